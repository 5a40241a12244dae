#include "services/ctl/monitoring.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <filesystem>
#include <set>

#include "tests/unit/services/ctl/temp_dir.h"

namespace tandem::ctl {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::StrEq;

class MonitoringTest : public ::testing::Test {
 protected:
  MonitoringTest() : dir_(StateDir::At(temp_.path() + "/state")) {
    std::filesystem::create_directories(temp_.path() + "/state");
    std::filesystem::create_directories(temp_.path() + "/bin");
    std::filesystem::create_directories(temp_.path() + "/share/rules");
    temp_.Write("bin/prometheus", "", /*executable=*/true);
    temp_.Write("share/prometheus.yml", "global: {}\n");
    temp_.Write("share/rules/alerts.yml", "groups: []\n");
  }
  std::string Path() const { return "/nowhere:" + temp_.path() + "/bin"; }
  absl::StatusOr<DaemonState> Plan() { return PlanPrometheus(config_, dir_, Path(), ports_); }
  // A cluster of a router and a worker, with Prometheus.
  ClusterState Cluster() {
    ClusterState state;
    for (const auto& [name, kind, address] : {std::tuple("router", "router", "127.0.0.1:9464"),
                                              std::tuple("ffn-0", "worker", "127.0.0.1:9465")}) {
      DaemonState daemon;
      daemon.name = name;
      daemon.kind = kind;
      daemon.metrics_address = address;
      state.daemons.push_back(std::move(daemon));
    }
    state.daemons.push_back(*Plan());
    return state;
  }

  test::TempDir temp_;
  StateDir dir_;
  ClusterConfig config_;
  std::set<int> used_;
  PortAllotter ports_{[this](int port) { return !used_.contains(port); }};
};

TEST_F(MonitoringTest, PrometheusListensOnLoopbackAndKeepsItsFilesWithTheCluster) {
  const absl::StatusOr<DaemonState> daemon = Plan();
  ASSERT_TRUE(daemon.ok()) << daemon.status();
  EXPECT_EQ(daemon->kind, "prometheus");
  EXPECT_EQ(daemon->address, "127.0.0.1:9090");
  EXPECT_EQ(daemon->argv[0], temp_.path() + "/bin/prometheus");
  EXPECT_THAT(daemon->argv, Contains(StrEq("--web.listen-address=127.0.0.1:9090")));
  EXPECT_THAT(daemon->argv,
              Contains(StrEq("--config.file=" + dir_.path() + "/prometheus/prometheus.yml")));
  EXPECT_THAT(daemon->argv,
              Contains(StrEq("--storage.tsdb.path=" + dir_.path() + "/prometheus/data")));
}

TEST_F(MonitoringTest, ATakenPortGivesWayUnlessItWasAskedFor) {
  used_ = {9090, 9091};
  EXPECT_EQ(Plan()->address, "127.0.0.1:9092");
  config_.monitoring_port = 9091;
  const absl::Status taken = Plan().status();
  EXPECT_EQ(taken.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(taken.message()), HasSubstr("prometheus: port 9091"));
}

TEST_F(MonitoringTest, WithoutPrometheusTheErrorNamesThePackage) {
  const absl::Status missing = PlanPrometheus(config_, dir_, "/nowhere::", ports_).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()), HasSubstr("Debian's package `prometheus`"));
  EXPECT_EQ(std::string(missing.message()).find('\n'), std::string::npos);
}

TEST_F(MonitoringTest, EveryDaemonButPrometheusIsATarget) {
  ASSERT_TRUE(WriteMonitoringFiles(Cluster(), dir_, temp_.path() + "/share").ok());
  const std::string folder = dir_.path() + "/prometheus";
  const boost::json::value targets = boost::json::parse(test::ReadFile(folder + "/targets.json"));
  ASSERT_EQ(targets.as_array().size(), 2u);
  const boost::json::object& worker = targets.as_array()[1].as_object();
  EXPECT_EQ(worker.at("targets").as_array()[0].as_string(), "127.0.0.1:9465");
  EXPECT_EQ(worker.at("labels").as_object().at("job").as_string(), "tandem-worker");
  EXPECT_EQ(worker.at("labels").as_object().at("process").as_string(), "ffn-0");
  EXPECT_EQ(test::ReadFile(folder + "/prometheus.yml"), "global: {}\n");
  EXPECT_EQ(test::ReadFile(folder + "/rules/alerts.yml"), "groups: []\n");
}

// Goal: a cluster that starts again on other ports is scraped there, and shows nothing of the last.
TEST_F(MonitoringTest, ANewClusterStartsAnew) {
  ClusterState state = Cluster();
  ASSERT_TRUE(WriteMonitoringFiles(state, dir_, temp_.path() + "/share").ok());
  std::filesystem::create_directories(dir_.path() + "/prometheus/data/wal");
  state.daemons[1].metrics_address = "127.0.0.1:9999";
  ASSERT_TRUE(WriteMonitoringFiles(state, dir_, temp_.path() + "/share").ok());
  EXPECT_THAT(test::ReadFile(dir_.path() + "/prometheus/targets.json"),
              HasSubstr("127.0.0.1:9999"));
  EXPECT_FALSE(std::filesystem::exists(dir_.path() + "/prometheus/data"));
  EXPECT_TRUE(std::filesystem::exists(temp_.path() + "/share/rules/alerts.yml"))
      << "the links went, not what they name";
}

TEST_F(MonitoringTest, WithoutRulesNothingIsStarted) {
  const absl::Status status = WriteMonitoringFiles(Cluster(), dir_, "/nowhere");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nowhere/rules"));
}

TEST_F(MonitoringTest, AClusterWithoutItNeedsNoFiles) {
  ClusterState state = Cluster();
  state.daemons.pop_back();
  EXPECT_EQ(PrometheusAddress(state), "");
  EXPECT_TRUE(WriteMonitoringFiles(state, dir_, "/nowhere").ok());
  EXPECT_FALSE(std::filesystem::exists(dir_.path() + "/prometheus"));
}

}  // namespace
}  // namespace tandem::ctl
