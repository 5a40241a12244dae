#include "services/ctl/ready.h"

#include <absl/strings/ascii.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

#include <cstdio>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "scheduler/base/status.h"
#include "services/ctl/admin_client.h"
#include "services/ctl/http_client.h"
#include "services/ctl/log_file.h"
#include "services/ctl/monitoring.h"

namespace tandem::ctl {
namespace {

constexpr Duration kPollEvery = Duration::Milliseconds(100);
constexpr Duration kHttpSilence = Duration::Seconds(5);
constexpr int kMostDeaths = 3;  // of one daemon, before `up` gives up
constexpr size_t kLogLines = 6;

// How often a daemon has ended since the cluster was started.
int Deaths(const DaemonState& daemon) {
  return daemon.restarts + (daemon.state == "backoff" ? 1 : 0);
}

// The first thing that is missing; empty when ready.
std::string WhatIsMissing(const ClusterState& state, const LinkSecurity& security) {
  std::vector<std::string> waiting;
  for (const DaemonState& daemon : state.daemons) {
    if (daemon.state != "running")
      waiting.push_back(absl::StrCat(daemon.name, " (", daemon.state, ")"));
  }
  if (!waiting.empty())
    return absl::StrCat("processes not running: ", absl::StrJoin(waiting, ", "));
  const absl::StatusOr<HttpReply> reply = HttpGet(state.gateway, "/readyz", kHttpSilence);
  if (!reply.ok())
    return absl::StrCat("gateway does not answer yet (", reply.status().message(), ")");
  if (reply->status != 200) {
    return absl::StrCat("gateway is not ready: ",
                        absl::StripAsciiWhitespace(reply->body.substr(0, 300)));
  }
  const absl::StatusOr<v1::StatusReply> router =
      AskRouterStatus(state.router_admin, security, /*timeout_seconds=*/5);
  if (!router.ok()) return std::string(router.status().message());
  std::map<std::string, std::string> known;
  for (const v1::WorkerStatus& worker : router->workers())
    known[worker.registration().worker_id()] = worker.state();
  for (const DaemonState& daemon : state.daemons) {
    if (daemon.kind != "worker") continue;
    const auto found = known.find(daemon.name);
    if (found == known.end()) {
      waiting.push_back(absl::StrCat(daemon.name, " (not registered)"));
    } else if (found->second != "ready") {
      waiting.push_back(absl::StrCat(daemon.name, " (", found->second, ")"));
    }
  }
  if (!waiting.empty()) return absl::StrCat("workers not ready: ", absl::StrJoin(waiting, ", "));
  const std::string prometheus = PrometheusAddress(state);
  if (prometheus.empty()) return "";
  const absl::StatusOr<HttpReply> monitoring = HttpGet(prometheus, "/-/ready", kHttpSilence);
  return monitoring.ok() && monitoring->status == 200 ? "" : "prometheus does not answer yet";
}

void PrintLogEnd(const DaemonState& daemon, std::FILE* out) {
  std::fprintf(out, "  %s ended with %s; the end of %s:\n", daemon.name.c_str(),
               daemon.last_exit.c_str(), daemon.log.c_str());
  for (const std::string& line : LastLines(daemon.log, kLogLines))
    std::fprintf(out, "    %s\n", line.c_str());
}

// Tells of each death once. An error when one daemon dies again and again.
absl::Status ReportDeaths(const ClusterState& state, std::map<std::string, int>& told,
                          std::FILE* out) {
  for (const DaemonState& daemon : state.daemons) {
    const int deaths = Deaths(daemon);
    if (deaths <= told[daemon.name]) continue;
    told[daemon.name] = deaths;
    PrintLogEnd(daemon, out);
    if (deaths >= kMostDeaths) {
      return absl::FailedPreconditionError(absl::StrCat(daemon.name, " has ended ", deaths,
                                                        " times, last with ", daemon.last_exit,
                                                        "; see ", daemon.log));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status WaitUntilReady(const StateDir& dir, const ProcessRef& supervisor, StopSignals& signals,
                            TimeSource& time, Duration limit, std::FILE* out) {
  ASSIGN_OR_RETURN(const ClusterState planned, dir.Load());
  ASSIGN_OR_RETURN(const LinkSecurity security, LinkSecurity::Make(planned.config.tls));
  const Instant deadline = time.Now() + limit;
  std::map<std::string, int> deaths_told;
  std::string missing_told;
  for (;;) {
    std::string missing = "the supervisor has not started yet";
    const absl::StatusOr<ClusterState> state = dir.Load();
    if (state.ok() && state->supervisor == supervisor) {
      if (absl::Status deaths = ReportDeaths(*state, deaths_told, out); !deaths.ok()) return deaths;
      missing = WhatIsMissing(*state, security);
    }
    if (missing.empty()) return absl::OkStatus();
    if (missing != missing_told) {
      std::fprintf(out, "  waiting: %s\n", missing.c_str());
      std::fflush(out);
      missing_told = missing;
    }
    if (time.Now() >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("not ready after ", limit.seconds(), " s: ", missing));
    }
    switch (signals.Wait(supervisor, kPollEvery)) {
      case StopSignals::Woken::kTimeout:
        break;
      case StopSignals::Woken::kSignal:
        return absl::CancelledError("interrupted");
      case StopSignals::Woken::kProcessGone:
        return absl::FailedPreconditionError(
            absl::StrCat("the supervisor has ended; see ", dir.LogFile("supervisor")));
    }
  }
}

}  // namespace tandem::ctl
