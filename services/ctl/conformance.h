#pragma once

namespace CLI {
class App;
}

namespace tandem::ctl {

// Hangs `conformance` into tandemctl, as commands.h's functions do their commands; each kind of
// thing that can be held against a contract is a subcommand of it.
void AddConformance(CLI::App& parent, int& exit_code);

}  // namespace tandem::ctl
