#pragma once

// What is known of the local cluster, in STATE_DIR/state.json. Written by `up` once, before the
// supervisor starts, then by the supervisor alone; read by everyone. Files are replaced whole, so a
// reader never sees half of one.

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <boost/json/value.hpp>

#include <cstdint>
#include <string>
#include <vector>

#include "services/ctl/cluster.h"
#include "services/ctl/process.h"

namespace tandem::ctl {

// One daemon: how it is started, and how it fares.
struct DaemonState {
  std::string name;  // "gateway", "router", "ffn-0"
  std::string kind;  // "gateway", "router", "worker" or "prometheus"
  std::vector<std::string> argv;
  std::string address;          // host:port that it serves
  std::string admin_address;    // host:port; empty: none
  std::string metrics_address;  // host:port
  std::string log;              // path

  // "starting" (never ran yet), "running", "backoff" (died, will be started again), "stopping" or
  // "stopped".
  std::string state = "starting";
  ProcessRef process;      // pid 0: none
  int64_t started_at = 0;  // of this process, seconds since 1970
  int restarts = 0;
  std::string last_exit;  // "exit code 1"; empty: it never ended
};

struct ClusterState {
  ClusterConfig config;  // as asked for
  ProcessRef supervisor;
  int64_t since = 0;                          // start of the cluster, seconds since 1970
  std::string gateway, router, router_admin;  // host:port
  std::vector<DaemonState> daemons;           // gateway, router, workers, Prometheus
};

boost::json::value ToJson(const ClusterState& state);
absl::StatusOr<ClusterState> StateFromJson(const boost::json::value& json);

// The folder of one local cluster.
class StateDir {
 public:
  // `path` empty: $XDG_STATE_HOME/tandem/local, or ~/.local/state/tandem/local.
  static StateDir At(const std::string& path);

  const std::string& path() const { return path_; }
  std::string StateFile() const { return path_ + "/state.json"; }
  std::string LogFile(const std::string& name) const { return path_ + "/logs/" + name + ".log"; }

  absl::Status Create() const;  // the folders, readable by this user alone

  // kNotFound: no cluster was started here, or it was stopped.
  absl::StatusOr<ClusterState> Load() const;
  absl::Status Save(const ClusterState& state) const;
  void Forget() const;  // removes state.json; the logs stay

  // Takes the folder's lock and returns its descriptor: held by the supervisor for its life (handed
  // over by `up`), so that the kernel lets go of it whatever kills the holder. kAlreadyExists:
  // somebody holds it.
  absl::StatusOr<int> Lock() const;

 private:
  explicit StateDir(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

}  // namespace tandem::ctl
