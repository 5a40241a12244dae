#include <CLI/CLI.hpp>

#include <memory>

#include "scheduler/base/status.h"
#include "services/ctl/commands.h"
#include "services/ctl/state.h"
#include "services/ctl/supervisor.h"
#include "services/runtime/log.h"
#include "services/runtime/real_time.h"

namespace tandem::ctl {
namespace {

struct Options {
  std::string state_dir;
  int lock_fd = -1;
  int grace_seconds = 20;
};

// Runs the daemons that STATE_DIR/state.json lists. `up` hands over the folder's lock; by hand it
// is taken here.
absl::Status Supervise(const Options& options) {
  Supervisor::BlockSignals();
  InitLog({.daemon = "tandem-supervisor"});
  const StateDir dir = StateDir::At(options.state_dir);
  if (options.lock_fd < 0) {
    RETURN_IF_ERROR(dir.Create());
    RETURN_IF_ERROR(dir.Lock().status());  // held until the process ends
  }
  ASSIGN_OR_RETURN(ClusterState state, dir.Load());
  RealTimeSource time;
  Supervisor supervisor(std::move(state), dir, time,
                        {.grace = Duration::Seconds(options.grace_seconds),
                         .unix_seconds = [] { return UnixNanoseconds() / 1'000'000'000; }});
  return supervisor.Run();
}

}  // namespace

void AddLocalSupervise(CLI::App& local, int& exit_code) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      local.add_subcommand("supervise", "Keeps the daemons running; `up` starts it");
  AddStateDirOption(*command, options->state_dir);
  command->add_option("--lock-fd", options->lock_fd, "Descriptor that holds the folder's lock");
  command->add_option("--grace", options->grace_seconds, "Seconds between SIGTERM and SIGKILL [20]")
      ->check(CLI::Range(0, 3600));
  command->callback([options, &exit_code] { exit_code = Report(Supervise(*options)); });
}

}  // namespace tandem::ctl
