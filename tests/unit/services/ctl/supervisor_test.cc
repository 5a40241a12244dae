// The supervisor is tested as the program it is: `tandemctl local supervise`, with shell scripts as
// daemons.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "services/ctl/log_file.h"
#include "services/ctl/process.h"
#include "services/ctl/state.h"
#include "services/ctl/stop.h"
#include "services/ctl/stop_signals.h"
#include "services/runtime/real_time.h"
#include "tests/unit/services/ctl/temp_dir.h"

namespace tandem::ctl {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

constexpr Duration kLong = Duration::Seconds(60);

class SupervisorTest : public ::testing::Test {
 protected:
  SupervisorTest() : dir_(StateDir::At(temp_.path() + "/state")) {
    EXPECT_TRUE(dir_.Create().ok());
    state_.config = PresetCluster(**FindTopology("colocated"), {1});
  }
  ~SupervisorTest() override {
    if (supervisor_.pid == 0) return;
    bool stopped = false;
    EXPECT_TRUE(StopCluster(dir_, stopped).ok());
    waitpid(supervisor_.pid, nullptr, 0);
  }

  // A daemon that runs `script` with sh.
  void Add(const std::string& name, const std::string& script, const std::string& kind = "worker") {
    DaemonState daemon;
    daemon.name = name;
    daemon.kind = kind;
    daemon.argv = {"/bin/sh", temp_.Write(name + ".sh", script)};
    daemon.log = dir_.LogFile(name);
    state_.daemons.push_back(daemon);
  }

  void Start(const std::vector<std::string>& more = {}) {
    ASSERT_TRUE(dir_.Save(state_).ok());
    const char* build = std::getenv("TANDEM_BINARY_DIR");
    ASSERT_NE(build, nullptr);
    std::vector<std::string> argv{std::string(build) + "/bin/tandemctl", "local", "supervise",
                                  "--state-dir", dir_.path()};
    argv.insert(argv.end(), more.begin(), more.end());
    const int log =
        open(dir_.LogFile("supervisor").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    const absl::StatusOr<ProcessRef> started = Spawn({.argv = argv, .output_fd = log});
    close(log);
    ASSERT_TRUE(started.ok()) << started.status();
    supervisor_ = *started;
  }

  // Looks again whenever the supervisor may have written; fails, with the logs, when `condition`
  // never holds.
  void Await(const std::string& what, const std::function<bool(const ClusterState&)>& condition) {
    const Instant deadline = time_.Now() + kLong;
    for (;;) {
      const absl::StatusOr<ClusterState> state = dir_.Load();
      if (state.ok() && state->supervisor == supervisor_ && condition(*state)) return;
      if (time_.Now() >= deadline || signals_.Wait(supervisor_, Duration::Milliseconds(20)) ==
                                         StopSignals::Woken::kProcessGone) {
        FAIL() << "never: " << what << "\n" << test::ReadFile(dir_.LogFile("supervisor"));
      }
    }
  }
  void AwaitLine(const std::string& daemon, const std::string& line) {
    Await(daemon + " says " + line, [&](const ClusterState&) {
      const std::vector<std::string> lines = LastLines(dir_.LogFile(daemon), 1000);
      return std::find(lines.begin(), lines.end(), line) != lines.end();
    });
  }
  DaemonState Daemon(const std::string& name) {
    const absl::StatusOr<ClusterState> state = dir_.Load();
    for (size_t i = 0; state.ok() && i < state->daemons.size(); ++i) {
      if (state->daemons[i].name == name) return state->daemons[i];
    }
    ADD_FAILURE() << "no daemon " << name;
    return {};
  }
  absl::Status Down() {
    bool stopped = false;
    absl::Status status = StopCluster(dir_, stopped);
    EXPECT_TRUE(stopped);
    waitpid(supervisor_.pid, nullptr, 0);
    supervisor_ = {};
    return status;
  }

  test::TempDir temp_;
  StateDir dir_;
  StopSignals signals_;
  RealTimeSource time_;
  ClusterState state_;
  ProcessRef supervisor_;
};

constexpr char kServe[] = "echo up\nexec sleep 1000\n";

TEST_F(SupervisorTest, AProcessThatDiesIsStartedAgain) {
  Add("steady", kServe);
  Add("mortal", kServe);
  Start();
  AwaitLine("mortal", "up");
  AwaitLine("steady", "up");
  const ProcessRef first = Daemon("mortal").process, steady = Daemon("steady").process;
  ASSERT_TRUE(SignalProcess(first, SIGKILL));
  Await("a second mortal", [&](const ClusterState& state) {
    return state.daemons[1].state == "running" && state.daemons[1].process != first;
  });
  EXPECT_EQ(Daemon("mortal").restarts, 1);
  EXPECT_THAT(Daemon("mortal").last_exit, HasSubstr("signal 9"));
  EXPECT_TRUE(IsAlive(Daemon("mortal").process));
  EXPECT_EQ(Daemon("steady").process, steady);
  EXPECT_EQ(Daemon("steady").restarts, 0);
}

TEST_F(SupervisorTest, ExitCodesAndLastWordsAreKept) {
  Add("failing", "echo cannot start: reason 42\nexit 3\n");
  Start();
  Await("a restart", [](const ClusterState& state) { return state.daemons[0].restarts >= 1; });
  EXPECT_EQ(Daemon("failing").last_exit, "exit code 3");
  EXPECT_THAT(LastLines(dir_.LogFile("failing"), 100), Contains("cannot start: reason 42"));
}

TEST_F(SupervisorTest, AProgramThatCannotBeExecutedBacksOffAndSaysSo) {
  Add("absent", "");
  state_.daemons[0].argv = {"/nonexistent/program"};
  Start();
  Await("a second try", [](const ClusterState& state) { return state.daemons[0].restarts >= 1; });
  EXPECT_THAT(Daemon("absent").last_exit, HasSubstr("/nonexistent/program"));
}

TEST_F(SupervisorTest, DownLeavesNothing) {
  Add("gateway", kServe, "gateway");
  Add("worker", kServe);
  Add("parent", "sleep 1000 &\necho child $!\nwait\n");  // its child must go too
  Start();
  AwaitLine("gateway", "up");
  AwaitLine("worker", "up");
  Await("the child",
        [&](const ClusterState&) { return !LastLines(dir_.LogFile("parent"), 1).empty(); });
  const std::string child_line = LastLines(dir_.LogFile("parent"), 1)[0];
  const std::optional<ProcessRef> child = FindProcess(std::atoi(child_line.substr(6).c_str()));
  ASSERT_TRUE(child.has_value()) << child_line;
  const ClusterState before = *dir_.Load();
  EXPECT_TRUE(Down().ok());
  for (const DaemonState& daemon : before.daemons)
    EXPECT_FALSE(IsAlive(daemon.process)) << daemon.name;
  EXPECT_TRUE(WaitUntilGone(*child, kLong));
  EXPECT_FALSE(IsAlive(before.supervisor));
  EXPECT_TRUE(absl::IsNotFound(dir_.Load().status()));
}

TEST_F(SupervisorTest, DownTwiceIsFine) {
  Add("worker", kServe);
  Start();
  AwaitLine("worker", "up");
  EXPECT_TRUE(Down().ok());
  bool stopped = true;
  EXPECT_TRUE(StopCluster(dir_, stopped).ok());
  EXPECT_FALSE(stopped);
}

// Goal: the gateway finishes its streams while the workers are still there.
TEST_F(SupervisorTest, TheGatewayStopsFirst) {
  Add("worker", "trap 'echo stopped >> " + temp_.path() +
                    "/order; exit 0' TERM\necho up\nsleep 1000 & wait\n");
  Add("gateway",
      "trap 'echo gateway >> " + temp_.path() +
          "/order; exit 0' TERM\necho up\nsleep 1000 & wait\n",
      "gateway");
  Start();
  AwaitLine("worker", "up");
  AwaitLine("gateway", "up");
  EXPECT_TRUE(Down().ok());
  EXPECT_EQ(test::ReadFile(temp_.path() + "/order"), "gateway\nstopped\n");
}

TEST_F(SupervisorTest, WhatIgnoresSigtermIsKilledAfterTheGrace) {
  Add("stubborn", "trap '' TERM\necho up\nwhile :; do sleep 1000; done\n");
  Start({"--grace", "1"});
  AwaitLine("stubborn", "up");
  const ProcessRef process = Daemon("stubborn").process;
  EXPECT_TRUE(Down().ok());
  EXPECT_FALSE(IsAlive(process));
  EXPECT_THAT(test::ReadFile(dir_.LogFile("supervisor")), HasSubstr("killed_after_grace"));
}

// Goal: kill -9 of the supervisor leaves no orphans, and the folder can be used again.
TEST_F(SupervisorTest, NoDaemonOutlivesItsSupervisor) {
  Add("worker", kServe);
  Add("stubborn", "trap '' TERM HUP INT\necho up\nexec sleep 1000\n");
  Start();
  AwaitLine("worker", "up");
  AwaitLine("stubborn", "up");
  const ClusterState before = *dir_.Load();
  EXPECT_TRUE(absl::IsAlreadyExists(dir_.Lock().status()));
  ASSERT_TRUE(SignalProcess(supervisor_, SIGKILL));
  waitpid(supervisor_.pid, nullptr, 0);
  supervisor_ = {};
  for (const DaemonState& daemon : before.daemons)
    EXPECT_TRUE(WaitUntilGone(daemon.process, kLong)) << daemon.name;
  const absl::StatusOr<int> lock = dir_.Lock();
  ASSERT_TRUE(lock.ok()) << lock.status();
  close(*lock);
}

TEST_F(SupervisorTest, ASecondOneInTheSameFolderIsRefused) {
  Add("worker", kServe);
  Start();
  AwaitLine("worker", "up");
  const ProcessRef first = supervisor_;
  const absl::StatusOr<ProcessRef> second =
      Spawn({.argv = {std::string(std::getenv("TANDEM_BINARY_DIR")) + "/bin/tandemctl", "local",
                      "supervise", "--state-dir", dir_.path()}});
  ASSERT_TRUE(second.ok());
  int wait_status = 0;
  ASSERT_EQ(waitpid(second->pid, &wait_status, 0), second->pid);
  EXPECT_EQ(DescribeExit(wait_status), "exit code 1");
  EXPECT_TRUE(IsAlive(first));
}

}  // namespace
}  // namespace tandem::ctl
