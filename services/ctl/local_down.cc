#include <CLI/CLI.hpp>

#include <cstdio>
#include <memory>

#include "scheduler/base/status.h"
#include "services/ctl/commands.h"
#include "services/ctl/stop.h"

namespace tandem::ctl {
namespace {

absl::Status Down(const std::string& state_dir) {
  const StateDir dir = StateDir::At(state_dir);
  bool stopped = false;
  RETURN_IF_ERROR(StopCluster(dir, stopped));
  std::printf(stopped ? "stopped the cluster of %s\n" : "no cluster runs in %s\n",
              dir.path().c_str());
  return absl::OkStatus();
}

}  // namespace

void AddLocalDown(CLI::App& local, int& exit_code) {
  auto state_dir = std::make_shared<std::string>();
  CLI::App* command = local.add_subcommand("down", "Stops exactly what `up` started");
  AddStateDirOption(*command, *state_dir);
  command->callback([state_dir, &exit_code] { exit_code = Report(Down(*state_dir)); });
}

}  // namespace tandem::ctl
