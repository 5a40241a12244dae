#include "services/ctl/launch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "tests/unit/services/ctl/temp_dir.h"

namespace tandem::ctl {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class LaunchTest : public ::testing::Test {
 protected:
  LaunchTest() : dir_(StateDir::At(temp_.path())) {
    for (const char* name : {"tandem-gateway", "tandem-router", "tandem-worker"})
      temp_.Write(name, "", /*executable=*/true);
    config_ = PresetCluster(**FindTopology("pd-afd"), {1, 1, 2});
    config_.model = temp_.Write("m.gguf", "");
    config_.model_name = "m";
  }
  absl::StatusOr<ClusterState> Plan() { return PlanLaunch(config_, dir_, temp_.path(), ports_); }

  static std::string Flag(const DaemonState& daemon, const std::string& name) {
    const auto at = std::find(daemon.argv.begin(), daemon.argv.end(), "--" + name);
    return at == daemon.argv.end() ? "none" : *(at + 1);
  }

  test::TempDir temp_;
  StateDir dir_;
  ClusterConfig config_;
  std::set<int> used_;
  PortAllotter ports_{[this](int port) { return !used_.contains(port); }};
};

TEST_F(LaunchTest, NamesOneProcessADaemon) {
  const absl::StatusOr<ClusterState> state = Plan();
  ASSERT_TRUE(state.ok()) << state.status();
  std::vector<std::string> names;
  for (const DaemonState& daemon : state->daemons) names.push_back(daemon.name);
  EXPECT_THAT(names,
              ElementsAre("gateway", "router", "prefill-0", "attention-0", "ffn-0", "ffn-1"));
}

TEST_F(LaunchTest, DefaultPortsAreTheDocumentedOnes) {
  const absl::StatusOr<ClusterState> state = Plan();
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(state->gateway, "127.0.0.1:8080");
  EXPECT_EQ(state->router, "127.0.0.1:9000");
  EXPECT_EQ(state->router_admin, "127.0.0.1:9300");
  EXPECT_EQ(state->daemons[0].metrics_address, "127.0.0.1:9464");
  EXPECT_EQ(state->daemons[2].address, "127.0.0.1:9200");
  EXPECT_EQ(state->daemons[5].address, "127.0.0.1:9203");
}

TEST_F(LaunchTest, EveryDaemonGetsTheClustersCertificatesOrNone) {
  const absl::StatusOr<ClusterState> plain = Plan();
  ASSERT_TRUE(plain.ok()) << plain.status();
  for (const DaemonState& daemon : plain->daemons) EXPECT_EQ(Flag(daemon, "tls-name"), "none");
  config_.tls = {"/c", "/k", "/a", "n"};
  const absl::StatusOr<ClusterState> state = Plan();
  ASSERT_TRUE(state.ok()) << state.status();
  for (const DaemonState& daemon : state->daemons) {
    EXPECT_EQ(Flag(daemon, "tls-cert"), "/c") << daemon.name;
    EXPECT_EQ(Flag(daemon, "tls-key"), "/k") << daemon.name;
    EXPECT_EQ(Flag(daemon, "tls-ca"), "/a") << daemon.name;
    EXPECT_EQ(Flag(daemon, "tls-name"), "n") << daemon.name;
  }
}

TEST_F(LaunchTest, WorkersGetTheirStagesAndTheRouter) {
  used_ = {9000, 9200};
  config_.workers[2].flags = {{"threads", "1"}};
  const absl::StatusOr<ClusterState> state = Plan();
  ASSERT_TRUE(state.ok()) << state.status();
  const DaemonState& ffn = state->daemons[5];
  EXPECT_EQ(Flag(ffn, "stages"), "ffn");
  EXPECT_EQ(Flag(ffn, "memory-class"), "sram");
  EXPECT_EQ(Flag(ffn, "pool"), "ffn");
  EXPECT_EQ(Flag(ffn, "worker-id"), "ffn-1");
  EXPECT_EQ(Flag(ffn, "router"), "127.0.0.1:9001");
  EXPECT_EQ(Flag(ffn, "listen"), ffn.address);
  EXPECT_EQ(Flag(ffn, "advertise"), ffn.address);
  EXPECT_EQ(Flag(ffn, "threads"), "1");
  EXPECT_EQ(Flag(state->daemons[0], "router"), "127.0.0.1:9001");
  EXPECT_EQ(Flag(state->daemons[1], "listen"), "127.0.0.1:9001");
}

TEST_F(LaunchTest, NoTwoDaemonsShareAPort) {
  config_.workers[2].count = 60;  // worker ports 9200.. and admin ports 9300.. come close
  config_.workers[1].count = 60;
  const absl::StatusOr<ClusterState> state = Plan();
  ASSERT_TRUE(state.ok()) << state.status();
  std::set<std::string> seen;
  size_t addresses = 0;
  for (const DaemonState& daemon : state->daemons) {
    for (const std::string& address :
         {daemon.address, daemon.admin_address, daemon.metrics_address}) {
      if (address.empty()) continue;
      ++addresses;
      seen.insert(address);
    }
  }
  EXPECT_EQ(seen.size(), addresses);
}

TEST_F(LaunchTest, ATakenGatewayPortGivesWayOnlyIfNobodyAskedForIt) {
  used_ = {8080};
  EXPECT_EQ(Plan()->gateway, "127.0.0.1:8081");
  config_.gateway_port = 8080;
  const absl::Status status = Plan().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("8080"));
}

TEST_F(LaunchTest, AMissingModelOrProgramIsNamed) {
  config_.model = "/nonexistent.gguf";
  EXPECT_THAT(std::string(Plan().status().message()), HasSubstr("/nonexistent.gguf"));
  config_.model = temp_.path() + "/m.gguf";
  std::filesystem::remove(temp_.path() + "/tandem-worker");
  EXPECT_THAT(std::string(Plan().status().message()), HasSubstr("tandem-worker"));
}

}  // namespace
}  // namespace tandem::ctl
