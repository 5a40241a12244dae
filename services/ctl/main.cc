// tandemctl: what an operator asks Tandem, and a whole cluster on loopback.

#include <CLI/CLI.hpp>

#include "services/ctl/commands.h"
#include "services/ctl/conformance.h"

int main(int argc, char** argv) {
  CLI::App app("tandemctl: operates Tandem, and runs a whole cluster on loopback");
  app.name("tandemctl");
  app.require_subcommand(1);
  int exit_code = 0;
  tandem::ctl::AddStatus(app, exit_code);
  tandem::ctl::AddTco(app, exit_code);
  tandem::ctl::AddTop(app, exit_code);
  tandem::ctl::AddTrace(app, exit_code);
  tandem::ctl::AddExplain(app, exit_code);
  tandem::ctl::AddCatalog(app, exit_code);
  tandem::ctl::AddFit(app, exit_code);
  tandem::ctl::AddCalibrate(app, exit_code);
  tandem::ctl::AddConformance(app, exit_code);
  tandem::ctl::AddLocal(app, exit_code);
  tandem::ctl::AddVersion(app, exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return exit_code;
}
