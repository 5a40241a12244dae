#include "services/ctl/local_status.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <CLI/CLI.hpp>
#include <boost/json.hpp>

#include <cstdio>
#include <memory>

#include "scheduler/base/status.h"
#include "services/ctl/commands.h"
#include "services/runtime/real_time.h"

namespace tandem::ctl {
namespace {

namespace json = boost::json;

struct Options {
  std::string state_dir;
  bool json = false;
};

int64_t Uptime(const DaemonState& daemon, int64_t now) {
  return daemon.process.pid != 0 ? now - daemon.started_at : 0;
}

absl::Status LocalStatus(const Options& options) {
  const StateDir dir = StateDir::At(options.state_dir);
  const absl::StatusOr<ClusterState> state = dir.Load();
  const bool running = state.ok() && IsAlive(state->supervisor);
  if (!running) {
    if (options.json)
      std::printf(
          "%s\n",
          json::serialize(json::object{{"running", false}, {"state_dir", dir.path()}}).c_str());
    if (!state.ok()) return state.status();
    return absl::FailedPreconditionError(
        absl::StrCat("the supervisor of the cluster in ", dir.path(),
                     " has ended, and its daemons with it; start again with `up`"));
  }
  const auto now = UnixNanoseconds() / 1'000'000'000;
  std::printf("%s\n", options.json ? json::serialize(ClusterJson(*state, dir, now)).c_str()
                                   : DescribeCluster(*state, now).c_str());
  return absl::OkStatus();
}

}  // namespace

std::string ShortDuration(int64_t seconds) {
  if (seconds < 60) return absl::StrCat(seconds, "s");
  if (seconds < 3600) return absl::StrFormat("%dm%02ds", seconds / 60, seconds % 60);
  return absl::StrFormat("%dh%02dm", seconds / 3600, seconds / 60 % 60);
}

std::string DescribeCluster(const ClusterState& state, int64_t now) {
  std::string text = absl::StrFormat(
      "%s %s, model %s, up %s, supervisor pid %d\n", state.config.topology, ShapeOf(state.config),
      state.config.model_name, ShortDuration(now - state.since), state.supervisor.pid);
  absl::StrAppendFormat(&text, "%-14s %-9s %8s %9s %8s  %-16s %s", "process", "state", "pid",
                        "restarts", "uptime", "address", "log");
  for (const DaemonState& daemon : state.daemons) {
    const bool runs = daemon.process.pid != 0;
    absl::StrAppendFormat(&text, "\n%-14s %-9s %8s %9d %8s  %-16s %s", daemon.name, daemon.state,
                          runs ? absl::StrCat(daemon.process.pid) : "-", daemon.restarts,
                          runs ? ShortDuration(Uptime(daemon, now)) : "-", daemon.address,
                          daemon.log);
    if (!daemon.last_exit.empty()) absl::StrAppend(&text, "  (last: ", daemon.last_exit, ")");
  }
  return text;
}

json::value ClusterJson(const ClusterState& state, const StateDir& dir, int64_t now) {
  json::array processes;
  for (const DaemonState& daemon : state.daemons) {
    processes.push_back(
        {{"name", daemon.name},
         {"kind", daemon.kind},
         {"state", daemon.state},
         {"pid", daemon.process.pid},
         {"restarts", daemon.restarts},
         {"last_exit", daemon.last_exit},
         {"uptime_seconds", Uptime(daemon, now)},
         {"address", daemon.address},
         {"admin_address", daemon.admin_address},
         {"metrics_url", absl::StrCat("http://", daemon.metrics_address, "/metrics")},
         {"log", daemon.log}});
  }
  return {{"running", true},
          {"topology", state.config.topology},
          {"shape", ShapeOf(state.config)},
          {"model", state.config.model},
          {"model_name", state.config.model_name},
          {"gateway", state.gateway},
          {"router", state.router},
          {"router_admin", state.router_admin},
          {"state_dir", dir.path()},
          {"since", state.since},
          {"supervisor", {{"pid", state.supervisor.pid}}},
          {"processes", std::move(processes)}};
}

void AddLocalStatus(CLI::App& local, int& exit_code) {
  auto options = std::make_shared<Options>();
  CLI::App* command = local.add_subcommand(
      "status", "Shows each process: state, pid, restarts, uptime, address, log");
  AddStateDirOption(*command, options->state_dir);
  command->add_flag("--json", options->json, "As JSON");
  command->callback([options, &exit_code] { exit_code = Report(LocalStatus(*options)); });
}

}  // namespace tandem::ctl
