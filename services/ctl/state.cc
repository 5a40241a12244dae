#include "services/ctl/state.h"

#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <boost/json.hpp>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "scheduler/base/status.h"

namespace tandem::ctl {
namespace {

namespace json = boost::json;

json::value ProcessJson(const ProcessRef& process) {
  return {{"pid", process.pid}, {"start_ticks", process.start_ticks}};
}

ProcessRef ProcessFromJson(const json::value& value) {
  return {.pid = json::value_to<pid_t>(value.at("pid")),
          .start_ticks = json::value_to<uint64_t>(value.at("start_ticks"))};
}

json::value DaemonJson(const DaemonState& daemon) {
  json::array argv;
  for (const std::string& arg : daemon.argv) argv.emplace_back(arg);
  return {{"name", daemon.name},
          {"kind", daemon.kind},
          {"argv", std::move(argv)},
          {"address", daemon.address},
          {"admin_address", daemon.admin_address},
          {"metrics_address", daemon.metrics_address},
          {"log", daemon.log},
          {"state", daemon.state},
          {"process", ProcessJson(daemon.process)},
          {"started_at", daemon.started_at},
          {"restarts", daemon.restarts},
          {"last_exit", daemon.last_exit}};
}

DaemonState DaemonFromJson(const json::value& value) {
  DaemonState daemon;
  daemon.name = json::value_to<std::string>(value.at("name"));
  daemon.kind = json::value_to<std::string>(value.at("kind"));
  daemon.argv = json::value_to<std::vector<std::string>>(value.at("argv"));
  daemon.address = json::value_to<std::string>(value.at("address"));
  daemon.admin_address = json::value_to<std::string>(value.at("admin_address"));
  daemon.metrics_address = json::value_to<std::string>(value.at("metrics_address"));
  daemon.log = json::value_to<std::string>(value.at("log"));
  daemon.state = json::value_to<std::string>(value.at("state"));
  daemon.process = ProcessFromJson(value.at("process"));
  daemon.started_at = json::value_to<int64_t>(value.at("started_at"));
  daemon.restarts = json::value_to<int>(value.at("restarts"));
  daemon.last_exit = json::value_to<std::string>(value.at("last_exit"));
  return daemon;
}

absl::Status WriteWhole(const std::string& path, const std::string& text) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", path));
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t wrote = write(fd, text.data() + done, text.size() - done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) {
      const int error = errno;
      close(fd);
      return absl::ErrnoToStatus(error, absl::StrCat("cannot write ", path));
    }
    done += static_cast<size_t>(wrote);
  }
  close(fd);
  return absl::OkStatus();
}

}  // namespace

json::value ToJson(const ClusterState& state) {
  json::array daemons;
  for (const DaemonState& daemon : state.daemons) daemons.push_back(DaemonJson(daemon));
  return {{"config", ToJson(state.config)}, {"supervisor", ProcessJson(state.supervisor)},
          {"since", state.since},           {"gateway", state.gateway},
          {"router", state.router},         {"router_admin", state.router_admin},
          {"daemons", std::move(daemons)}};
}

absl::StatusOr<ClusterState> StateFromJson(const json::value& value) {
  try {
    ClusterState state;
    ASSIGN_OR_RETURN(state.config, ClusterFromJson(value.at("config")));
    state.supervisor = ProcessFromJson(value.at("supervisor"));
    state.since = json::value_to<int64_t>(value.at("since"));
    state.gateway = json::value_to<std::string>(value.at("gateway"));
    state.router = json::value_to<std::string>(value.at("router"));
    state.router_admin = json::value_to<std::string>(value.at("router_admin"));
    for (const json::value& entry : value.at("daemons").as_array())
      state.daemons.push_back(DaemonFromJson(entry));
    return state;
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(error.what());
  }
}

StateDir StateDir::At(const std::string& path) {
  if (!path.empty()) return StateDir(std::filesystem::absolute(path).lexically_normal().string());
  const char* state_home = std::getenv("XDG_STATE_HOME");
  if (state_home != nullptr && *state_home == '/')
    return StateDir(absl::StrCat(state_home, "/tandem/local"));
  const char* home = std::getenv("HOME");
  return StateDir(absl::StrCat(home != nullptr ? home : "/tmp", "/.local/state/tandem/local"));
}

absl::Status StateDir::Create() const {
  std::error_code error;
  std::filesystem::create_directories(path_ + "/logs", error);
  if (error)
    return absl::FailedPreconditionError(
        absl::StrCat("cannot create ", path_, "/logs: ", error.message()));
  if (chmod(path_.c_str(), 0700) != 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("chmod ", path_));
  return absl::OkStatus();
}

absl::StatusOr<ClusterState> StateDir::Load() const {
  std::ifstream file(StateFile());
  if (!file) return absl::NotFoundError(absl::StrCat("no local cluster in ", path_));
  std::stringstream text;
  text << file.rdbuf();
  boost::system::error_code error;
  const json::value value = json::parse(text.str(), error);
  if (error) return absl::InvalidArgumentError(absl::StrCat(StateFile(), ": ", error.message()));
  absl::StatusOr<ClusterState> state = StateFromJson(value);
  if (!state.ok())
    return absl::InvalidArgumentError(absl::StrCat(StateFile(), ": ", state.status().message()));
  return state;
}

absl::Status StateDir::Save(const ClusterState& state) const {
  const std::string fresh = StateFile() + ".new";
  RETURN_IF_ERROR(WriteWhole(fresh, json::serialize(ToJson(state)) + "\n"));
  if (rename(fresh.c_str(), StateFile().c_str()) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot replace ", StateFile()));
  }
  return absl::OkStatus();
}

void StateDir::Forget() const { unlink(StateFile().c_str()); }

absl::StatusOr<int> StateDir::Lock() const {
  const std::string path = path_ + "/lock";
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    close(fd);
    if (error == EWOULDBLOCK)
      return absl::AlreadyExistsError(absl::StrCat("a local cluster runs in ", path_));
    return absl::ErrnoToStatus(error, absl::StrCat("cannot lock ", path));
  }
  return fd;
}

}  // namespace tandem::ctl
