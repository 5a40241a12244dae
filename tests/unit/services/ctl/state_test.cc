#include "services/ctl/state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cstdlib>

#include "tests/unit/services/ctl/temp_dir.h"

namespace tandem::ctl {
namespace {

using ::testing::HasSubstr;

ClusterState SomeState() {
  ClusterState state;
  state.config = PresetCluster(**FindTopology("afd"), {1, 2});
  state.supervisor = {.pid = 17, .start_ticks = 1ULL << 40};
  state.since = 1'800'000'000;
  state.gateway = "127.0.0.1:8080";
  state.router = "127.0.0.1:9000";
  state.router_admin = "127.0.0.1:9300";
  state.daemons.push_back({.name = "ffn-0",
                           .kind = "worker",
                           .argv = {"/bin/x", "--listen", "127.0.0.1:9200"},
                           .address = "127.0.0.1:9200",
                           .admin_address = "127.0.0.1:9301",
                           .metrics_address = "127.0.0.1:9466",
                           .log = "/l/ffn-0.log",
                           .state = "backoff",
                           .process = {.pid = 18, .start_ticks = 99},
                           .started_at = 1'800'000'001,
                           .restarts = 3,
                           .last_exit = "signal 9 (Killed)"});
  return state;
}

TEST(State, RoundTripsThroughItsFile) {
  const test::TempDir temp;
  const StateDir dir = StateDir::At(temp.path() + "/a/b");
  ASSERT_TRUE(dir.Create().ok());
  ASSERT_TRUE(dir.Save(SomeState()).ok());
  const absl::StatusOr<ClusterState> back = dir.Load();
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(boost::json::serialize(ToJson(*back)), boost::json::serialize(ToJson(SomeState())));
  EXPECT_EQ(back->daemons[0].process, SomeState().daemons[0].process);
  EXPECT_EQ(back->config, SomeState().config);
  dir.Forget();
  EXPECT_TRUE(absl::IsNotFound(dir.Load().status()));
}

TEST(State, ABrokenFileIsNamed) {
  const test::TempDir temp;
  for (const char* text : {"", "{", "[]", "{\"config\": 1}"}) {
    temp.Write("state.json", text);
    const absl::Status status = StateDir::At(temp.path()).Load().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr("state.json")) << text;
  }
}

TEST(StateDir, OnlyOneHoldsTheLock) {
  const test::TempDir temp;
  const StateDir dir = StateDir::At(temp.path());
  const absl::StatusOr<int> first = dir.Lock();
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_TRUE(absl::IsAlreadyExists(dir.Lock().status()));
  close(*first);
  const absl::StatusOr<int> next = dir.Lock();
  ASSERT_TRUE(next.ok()) << next.status();
  close(*next);
}

TEST(StateDir, DefaultsToTheUsersStateFolder) {
  setenv("XDG_STATE_HOME", "/x/state", 1);
  EXPECT_EQ(StateDir::At("").path(), "/x/state/tandem/local");
  unsetenv("XDG_STATE_HOME");
  setenv("HOME", "/home/u", 1);
  EXPECT_EQ(StateDir::At("").path(), "/home/u/.local/state/tandem/local");
  EXPECT_EQ(StateDir::At("/a/b").path(), "/a/b");
}

}  // namespace
}  // namespace tandem::ctl
