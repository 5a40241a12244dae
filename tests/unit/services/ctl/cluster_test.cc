#include "services/ctl/cluster.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>
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
tls: {cert: c.crt, key: c.key, ca: ca.crt, name: n}
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
  EXPECT_EQ(config->tls, (TlsFiles{"c.crt", "c.key", "ca.crt", "n"}));
  EXPECT_EQ(ShapeOf(*config), "1A2F");
  EXPECT_EQ(config->workers[0].stages, "prefill,attention");
  EXPECT_EQ(config->workers[0].flags.at("kv-tokens"), "4096");
  EXPECT_EQ(config->workers[1].memory_class, "sram");
  EXPECT_EQ(config->workers[1].flags.at("threads"), "2");
}

TEST(ClusterFile, ErrorsNameFileLineAndKey) {
  EXPECT_THAT(
      ErrorOf("topology: colocated\ntls: {cert: c, ca: a}\nworkers:\n  - pool: colocated\n"),
      AllOf(HasSubstr("cluster.yaml:2"), HasSubstr("tls: --tls-key is missing")));
  EXPECT_THAT(ErrorOf("topology: colocated\nworkers:\n  - pool: colocated\n    flags:\n"
                      "      tls-name: x\n"),
              AllOf(HasSubstr("cluster.yaml:5"), HasSubstr("tls-name")));
  EXPECT_THAT(ErrorOf("topology: pd\nworkrs: []\n"),
              AllOf(HasSubstr("cluster.yaml:2"), HasSubstr("workrs")));
  EXPECT_THAT(ErrorOf("topology: dp\nworkers: []\n"),
              AllOf(HasSubstr("cluster.yaml"), HasSubstr("topology"), HasSubstr("dp")));
  EXPECT_THAT(ErrorOf("workers: []\n"),
              AllOf(HasSubstr("cluster.yaml"), HasSubstr("topology is missing")));
  EXPECT_THAT(ErrorOf("topology: colocated\nworkers:\n  - pool: colocated\n    count: 0\n"),
              AllOf(HasSubstr("cluster.yaml:4"), HasSubstr("count")));
  EXPECT_THAT(ErrorOf("topology: afd\nworkers:\n  - pool: attention\n    count: 0\n"),
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
  config.emulation = {.model_shape = "s",
                      .devices = "d",
                      .weights = "w",
                      .time_scale = "t",
                      .perturbation = "p",
                      .numerics = "n",
                      .payload = "real"};
  const absl::StatusOr<ClusterConfig> back = ClusterFromJson(ToJson(config));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(*back, config);
}

TEST(ClusterFile, TheEmulatedExampleWithTextIsRead) {
  const std::string local = std::string(std::getenv("TANDEM_SOURCE_DIR")) + "/deploy/local/";
  const auto text = ReadClusterFile(local + "emulated-rubin-lpx-text.yaml");
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(text->emulation.numerics, "model");
  const auto chain = ReadClusterFile(local + "emulated-rubin-lpx.yaml");
  ASSERT_TRUE(chain.ok()) << chain.status();
  EXPECT_EQ(chain->emulation.numerics, "synthetic");
}

TEST(ClusterFile, AnFfnPoolMayBeLeftToOthers) {
  const auto own =
      ReadClusterFile(std::string(std::getenv("TANDEM_SOURCE_DIR")) + "/deploy/local/own-ffn.yaml");
  ASSERT_TRUE(own.ok()) << own.status();
  EXPECT_EQ(own->workers.back().pool, "ffn");
  EXPECT_EQ(own->workers.back().count, 0);
  EXPECT_EQ(ShapeOf(*own), "1A0F");
}

// ---- Shards of the FFN.

std::string WithShards(const std::string& shards, int count = 4) {
  return absl::StrCat("topology: afd\nworkers:\n  - pool: attention\n  - pool: ffn\n    count: ",
                      count, "\n    shards:", shards);
}

TEST(ClusterFile, TheExamplesOfShardsAreRead) {
  const std::string local = std::string(std::getenv("TANDEM_SOURCE_DIR")) + "/deploy/local/";
  const auto layers = ReadClusterFile(local + "layer-shards.yaml");
  ASSERT_TRUE(layers.ok()) << layers.status();
  EXPECT_EQ(layers->workers.back().shards,
            (std::vector<ShardText>{{"0/2", "0/1"}, {"1/2", "0/1"}}));
  const auto columns = ReadClusterFile(local + "column-shards.yaml");
  ASSERT_TRUE(columns.ok()) << columns.status();
  EXPECT_EQ(columns->workers.back().shards,
            (std::vector<ShardText>{{"all", "0/2"}, {"all", "1/2"}}));
}

TEST(ClusterFile, ShardsAreAWordOrAList) {
  const test::TempDir dir;
  const auto read = [&](const std::string& yaml) {
    auto config = ReadClusterFile(dir.Write("cluster.yaml", yaml));
    EXPECT_TRUE(config.ok()) << config.status();
    return config.ok() ? config->workers.back().shards : std::vector<ShardText>();
  };
  EXPECT_TRUE(read(WithShards(" replicas\n")).empty());
  EXPECT_EQ(read(WithShards(" columns\n", 3)),
            (std::vector<ShardText>{{"all", "0/3"}, {"all", "1/3"}, {"all", "2/3"}}));
  EXPECT_EQ(read(WithShards("\n      - {layers: \"0:10\"}\n      - {layers: \"10:30\", column: 0/2}"
                            "\n      - {layers: \"10:30\", column: 1/2}\n")),
            (std::vector<ShardText>{{"0:10", "0/1"}, {"10:30", "0/2"}, {"10:30", "1/2"}}));
}

TEST(ClusterFile, ShardsThatAreNotTheFfnOnceAreRefusedWithFileKeyAndNumbers) {
  const auto error = [](const std::string& entries, int count = 4) {
    std::string list;
    for (const auto entry : absl::StrSplit(entries, ' '))
      absl::StrAppend(&list, "\n      - ", entry);
    return ErrorOf(WithShards(list + "\n", count));
  };
  const auto layers = [](const char* range) {
    return absl::StrCat("{\"layers\":\"", range, "\"}");
  };
  EXPECT_THAT(error(absl::StrCat(layers("0:20"), " ", layers("10:30"))),
              AllOf(HasSubstr("cluster.yaml:7"), HasSubstr("shards"),
                    HasSubstr("layers 0:20 and 10:30 overlap and are not equal")));
  EXPECT_THAT(error(absl::StrCat(layers("0:10"), " ", layers("15:30"))),
              HasSubstr("no shard has the layers between 0:10 and 15:30"));
  EXPECT_THAT(error(layers("5:30")), HasSubstr("no shard has the layers before 5:30"));
  EXPECT_THAT(error(absl::StrCat(layers("0/3"), " ", layers("1/3"))),
              HasSubstr("no shard has the layers after 1/3"));
  EXPECT_THAT(error(absl::StrCat(layers("0/3"), " ", layers("0/2"))),
              HasSubstr("layers 0/3 and 0/2 overlap and are not equal"));
  EXPECT_THAT(error(absl::StrCat(layers("all"), " ", layers("0:10"))),
              HasSubstr("layers all and 0:10 are numbers and parts"));
  EXPECT_THAT(error("{\"column\":\"0/2\"}"), HasSubstr("layers all: no shard has column 1/2"));
  EXPECT_THAT(error("{\"column\":\"0/2\"} {\"column\":\"1/3\"}"),
              HasSubstr("layers all are cut into 2 and into 3 pieces of columns"));
  EXPECT_THAT(error("{\"column\":\"2/2\"}"), HasSubstr("column: 2/2 is none"));
  EXPECT_THAT(error(absl::StrCat(layers("0/2"), " ", layers("1/2")), 1),
              HasSubstr("2 shards for 1 workers"));
  EXPECT_THAT(ErrorOf(WithShards(" halves\n")),
              AllOf(HasSubstr("cluster.yaml:6"), HasSubstr("'halves' is none of layers")));
  EXPECT_THAT(ErrorOf("topology: colocated\nworkers:\n  - pool: colocated\n    shards: layers\n"),
              HasSubstr("only workers of pool ffn"));
}

TEST(FfnShards, EqualShardsAreReplicas) {
  EXPECT_TRUE(CheckShards({{"0:10", "0/1"}, {"0:10", "0/1"}, {"10:30", "0/1"}}, 3).ok());
  EXPECT_TRUE(CheckShards({{"0/2", "0/1"}, {"2/4", "0/1"}, {"3/4", "0/1"}}, 3).ok());
}

}  // namespace
}  // namespace tandem::ctl
