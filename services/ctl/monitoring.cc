#include "services/ctl/monitoring.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

#include "scheduler/base/status.h"

namespace tandem::ctl {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

constexpr const char* kConfig = "prometheus.yml";
constexpr const char* kRules = "rules";
constexpr const char* kTargets = "targets.json";
// A local cluster is a handful of daemons: scraped often, its curves are there at once.
constexpr const char* kScrapeInterval = "1s";

std::string FolderOf(const StateDir& dir) { return dir.path() + "/prometheus"; }

absl::StatusOr<std::string> FindInPath(absl::string_view path, absl::string_view name) {
  for (const absl::string_view folder : absl::StrSplit(path, ':', absl::SkipEmpty())) {
    std::string file = absl::StrCat(folder, "/", name);
    if (fs::is_regular_file(file) && access(file.c_str(), X_OK) == 0) return file;
  }
  return absl::NotFoundError(absl::StrCat("--monitoring: no program `", name,
                                          "` in PATH; install Debian's package `", name,
                                          "` (`./dev up --monitoring` does)"));
}

// One group a daemon, for its name; in the form of file_sd.
std::string Targets(const ClusterState& state) {
  json::array groups;
  for (const DaemonState& daemon : state.daemons) {
    if (daemon.kind == kPrometheusKind) continue;
    groups.push_back({{"targets", json::array{daemon.metrics_address}},
                      {"labels",
                       {{"job", absl::StrCat("tandem-", daemon.kind)},
                        {"process", daemon.name},
                        {"namespace", "local"},
                        {"__scrape_interval__", kScrapeInterval},
                        {"__scrape_timeout__", kScrapeInterval}}}});
  }
  return json::serialize(groups);
}

absl::Status Failed(const std::string& what, const std::error_code& error) {
  return absl::FailedPreconditionError(absl::StrCat(what, ": ", error.message()));
}

}  // namespace

absl::StatusOr<DaemonState> PlanPrometheus(const ClusterConfig& config, const StateDir& dir,
                                           absl::string_view path, PortAllotter& ports) {
  DaemonState daemon;
  ASSIGN_OR_RETURN(std::string program, FindInPath(path, "prometheus"));
  const absl::StatusOr<int> port = config.monitoring_port != 0
                                       ? ports.Take(config.monitoring_port, "prometheus")
                                       : ports.TakeFrom(kPrometheusPort, "prometheus");
  if (!port.ok()) return port.status();
  daemon.name = daemon.kind = std::string(kPrometheusKind);
  daemon.address = daemon.metrics_address = absl::StrCat("127.0.0.1:", *port);
  daemon.log = dir.LogFile(daemon.name);
  daemon.argv = {std::move(program),
                 absl::StrCat("--config.file=", FolderOf(dir), "/", kConfig),
                 absl::StrCat("--storage.tsdb.path=", FolderOf(dir), "/data"),
                 "--storage.tsdb.retention.time=1d",
                 "--storage.tsdb.retention.size=1GB",
                 absl::StrCat("--web.listen-address=", daemon.address),
                 "--log.level=warn"};
  return daemon;
}

absl::Status WriteMonitoringFiles(const ClusterState& state, const StateDir& dir,
                                  const std::string& share) {
  if (PrometheusAddress(state).empty()) return absl::OkStatus();
  if (!fs::is_directory(absl::StrCat(share, "/", kRules))) {
    return absl::NotFoundError(absl::StrCat("--monitoring: no rules in ", share, "/", kRules,
                                            ": is tandemctl installed?"));
  }
  const std::string folder = FolderOf(dir);
  std::error_code error;
  fs::remove_all(folder, error);
  if (!error) fs::create_directories(folder, error);
  if (error) return Failed(absl::StrCat("cannot make ", folder), error);
  for (const char* name : {kConfig, kRules}) {
    fs::create_symlink(absl::StrCat(share, "/", name), absl::StrCat(folder, "/", name), error);
    if (error) return Failed(absl::StrCat("cannot make ", folder, "/", name), error);
  }
  const std::string targets = absl::StrCat(folder, "/", kTargets);
  std::ofstream out(targets);
  out << Targets(state) << "\n";
  if (!out.flush()) return absl::FailedPreconditionError(absl::StrCat("cannot write ", targets));
  return absl::OkStatus();
}

std::string PrometheusAddress(const ClusterState& state) {
  for (const DaemonState& daemon : state.daemons) {
    if (daemon.kind == kPrometheusKind) return daemon.address;
  }
  return "";
}

}  // namespace tandem::ctl
