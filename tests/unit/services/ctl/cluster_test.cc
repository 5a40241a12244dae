#include "services/ctl/cluster.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/unit/services/ctl/temp_dir.h"

namespace tandem::ctl {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string ErrorOf(const std::string& yaml) {
  const test::TempDir dir;
  const absl::StatusOr<ClusterConfig> config = ReadClusterFile(dir.Write("cluster.yaml", yaml));
  return config.ok() ? "no error" : std::string(config.status().message());
}

TEST(ClusterFile, EachPresetOfDeployLocalIsItsTopologysDefault) {
  const char* source = std::getenv("TANDEM_SOURCE_DIR");
  ASSERT_NE(source, nullptr);
  for (const TopologyPreset& topology : Topologies()) {
    const std::string file =
        std::string(source) + "/deploy/local/" + std::string(topology.name) + ".yaml";
    const absl::StatusOr<ClusterConfig> config = ReadClusterFile(file);
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(*config, PresetCluster(topology, std::vector<int>(topology.pools.size(), 1))) << file;
  }
}

TEST(ClusterFile, ReadsEveryKey) {
  const test::TempDir dir;
  const absl::StatusOr<ClusterConfig> config = ReadClusterFile(dir.Write("cluster.yaml", R"(
topology: afd
model: /m/x.gguf
model_name: x
gateway: {port: 8181, flags: {log-format: json}}
router: {flags: {log-format: text}}
workers:
  - {pool: ffn, count: 2, flags: {threads: 2}}
  - {pool: attention, flags: {kv-tokens: 4096, max-batch: 4}}
)"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->model, "/m/x.gguf");
  EXPECT_EQ(config->model_name, "x");
  EXPECT_EQ(config->gateway_port, 8181);
  EXPECT_EQ(config->gateway_flags.at("log-format"), "json");
  EXPECT_EQ(config->router_flags.at("log-format"), "text");
  EXPECT_EQ(ShapeOf(*config), "1A2F");
  EXPECT_EQ(config->workers[0].stages, "prefill,attention");
  EXPECT_EQ(config->workers[0].flags.at("kv-tokens"), "4096");
  EXPECT_EQ(config->workers[1].memory_class, "sram");
  EXPECT_EQ(config->workers[1].flags.at("threads"), "2");
}

TEST(ClusterFile, ErrorsNameFileLineAndKey) {
  EXPECT_THAT(ErrorOf("topology: pd\nworkrs: []\n"),
              AllOf(HasSubstr("cluster.yaml:2"), HasSubstr("workrs")));
  EXPECT_THAT(ErrorOf("topology: dp\nworkers: []\n"),
              AllOf(HasSubstr("cluster.yaml"), HasSubstr("topology"), HasSubstr("dp")));
  EXPECT_THAT(ErrorOf("workers: []\n"),
              AllOf(HasSubstr("cluster.yaml"), HasSubstr("topology is missing")));
  EXPECT_THAT(ErrorOf("topology: colocated\nworkers:\n  - pool: colocated\n    count: 0\n"),
              AllOf(HasSubstr("cluster.yaml:4"), HasSubstr("count")));
  EXPECT_THAT(ErrorOf("topology: colocated\nworkers:\n  - pool: colocated\n    count: many\n"),
              AllOf(HasSubstr("cluster.yaml:4"), HasSubstr("count")));
  EXPECT_THAT(
      ErrorOf("topology: colocated\ngateway:\n  port: 70000\nworkers:\n  - pool: colocated\n"),
      AllOf(HasSubstr("cluster.yaml:3"), HasSubstr("port")));
  EXPECT_THAT(
      ErrorOf("topology: colocated\nworkers:\n  - pool: colocated\n    flags:\n      listen: x\n"),
      AllOf(HasSubstr("cluster.yaml:5"), HasSubstr("listen")));
  EXPECT_THAT(
      ErrorOf(
          "topology: colocated\nworkers:\n  - pool: colocated\n    flags:\n      --threads: 1\n"),
      AllOf(HasSubstr("cluster.yaml:5"), HasSubstr("--threads")));
  EXPECT_THAT(ErrorOf("topology: pd\nworkers:\n  - pool: prefill\n"),
              HasSubstr("needs pool 'decode'"));
  EXPECT_THAT(ErrorOf("topology: pd\nworkers:\n  - pool: ffn\n"),
              AllOf(HasSubstr("cluster.yaml:3"), HasSubstr("'ffn'")));
  EXPECT_THAT(ErrorOf("topology: pd\nworkers:\n  - pool: prefill\n  - pool: prefill\n"),
              AllOf(HasSubstr("cluster.yaml:4"), HasSubstr("twice")));
  EXPECT_THAT(ErrorOf("topology: [\n"), HasSubstr("cluster.yaml"));
  EXPECT_THAT(ErrorOf(""), HasSubstr("cluster.yaml"));
}

TEST(ClusterFile, AMissingOneIsNotFound) {
  const absl::Status status = ReadClusterFile("/nonexistent/cluster.yaml").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nonexistent/cluster.yaml"));
}

TEST(ClusterJson, RoundTrips) {
  ClusterConfig config = PresetCluster(**FindTopology("pd-afd"), {1, 2, 3});
  config.model = "/m/ü.gguf";
  config.model_name = "ü";
  config.gateway_port = 1;
  config.gateway_flags = {{"a", "b"}};
  config.workers[2].flags = {{"threads", "1"}};
  const absl::StatusOr<ClusterConfig> back = ClusterFromJson(ToJson(config));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(*back, config);
}

}  // namespace
}  // namespace tandem::ctl
