#pragma once

// tandem-worker conformance-ffn: holds somebody's FFN server against the contract, and writes what
// it saw as JSON. What `tandemctl conformance ffn` runs.

namespace tandem {

// The command line after "tandem-worker conformance-ffn"; the exit code: 0 every case passed, 1 one
// failed or nobody answers, 2 wrong usage. Progress goes to stderr, a line a case. The JSON:
// {address, model, reference, cases: [{name, passed, what, first_difference}]}.
int ConformanceFfnMain(int argc, const char* const* argv);

}  // namespace tandem
