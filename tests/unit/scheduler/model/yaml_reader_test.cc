#include "scheduler/model/yaml_reader.h"

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include "scheduler/base/status.h"

namespace tandem {
namespace {

struct Config {
  std::string name = "default";
  int port = 1;
  uint32_t rows = 2;
  double share = 0.5;
  bool on = false;
  std::vector<std::string> stages;
  int inner = 0;
  std::vector<std::string> pools;
};

absl::StatusOr<Config> Read(const std::string& text) {
  Config config;
  YamlReader reader(YAML::Load(text), "gateway.yaml");
  reader.Get("name", config.name);
  reader.Get("port", config.port, 0, 65535);
  reader.Get("rows", config.rows, 1, 4'000'000'000);
  reader.Get("share", config.share, 0, 1);
  reader.Get("on", config.on);
  reader.Get("stages", config.stages);
  reader.GetMapping("limits", [&](const YAML::Node& node) {
    YamlReader inner(node, "gateway.yaml");
    inner.Get("inner", config.inner, 0, 9);
    return inner.Finish();
  });
  reader.GetList("pools", [&](const YAML::Node& node) {
    YamlReader pool(node, "gateway.yaml");
    pool.Get("name", config.pools.emplace_back());
    return pool.Finish();
  });
  RETURN_IF_ERROR(reader.Finish());
  return config;
}

std::string ErrorOf(const std::string& text) { return std::string(Read(text).status().message()); }

TEST(YamlReader, ReadsEveryKindAndLeavesAbsentKeysAlone) {
  const absl::StatusOr<Config> config = Read(
      "name: x y\nport: 8080\nrows: 4000000000\nshare: 0.25\non: true\nstages: [prefill, ffn]\n"
      "limits:\n  inner: 3\npools:\n  - name: a\n  - name: b\n");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->name, "x y");
  EXPECT_EQ(config->port, 8080);
  EXPECT_EQ(config->rows, 4'000'000'000u);
  EXPECT_EQ(config->share, 0.25);
  EXPECT_TRUE(config->on);
  EXPECT_EQ(config->stages, (std::vector<std::string>{"prefill", "ffn"}));
  EXPECT_EQ(config->inner, 3);
  EXPECT_EQ(config->pools, (std::vector<std::string>{"a", "b"}));
  const absl::StatusOr<Config> defaults = Read("");
  ASSERT_TRUE(defaults.ok()) << defaults.status();
  EXPECT_EQ(defaults->name, "default");
  EXPECT_EQ(defaults->port, 1);
}

TEST(YamlReader, ErrorsNameFileLineAndKey) {
  EXPECT_EQ(ErrorOf("name: x\nport: 70000\n"), "gateway.yaml:2: port: 70000 is not in [0, 65535]");
  EXPECT_EQ(ErrorOf("port: -1\n"), "gateway.yaml:1: port: -1 is not in [0, 65535]");
  EXPECT_EQ(ErrorOf("port: 80a\n"), "gateway.yaml:1: port: '80a' is no integer");
  EXPECT_EQ(ErrorOf("port: 1.5\n"), "gateway.yaml:1: port: '1.5' is no integer");
  EXPECT_EQ(ErrorOf("port: [1]\n"), "gateway.yaml:1: port: expected an integer, found a list");
  EXPECT_EQ(ErrorOf("port:\n"), "gateway.yaml:1: port: expected an integer, found nothing");
  EXPECT_EQ(ErrorOf("\nshare: nan\n"), "gateway.yaml:2: share: nan is not in [0, 1]");
  EXPECT_EQ(ErrorOf("on: yes\n"), "gateway.yaml:1: on: 'yes' is neither true nor false");
  EXPECT_EQ(ErrorOf("stages: prefill\n"),
            "gateway.yaml:1: stages: expected a list, found a scalar");
  EXPECT_EQ(ErrorOf("limits: 3\n"), "gateway.yaml:1: limits: expected a mapping, found a scalar");
}

TEST(YamlReader, UnknownKeyIsAnErrorAtEveryDepth) {
  EXPECT_EQ(ErrorOf("name: x\nprot: 1\n"), "gateway.yaml:2: prot: unknown key");
  EXPECT_EQ(ErrorOf("limits:\n  inner: 1\n  outer: 2\n"), "gateway.yaml:3: outer: unknown key");
  EXPECT_EQ(ErrorOf("pools:\n  - name: a\n  - nam: b\n"), "gateway.yaml:3: nam: unknown key");
}

TEST(YamlReader, KeyThatStandsTwiceIsAnError) {
  EXPECT_EQ(ErrorOf("port: 1\nname: x\nport: 2\n"), "gateway.yaml:3: port: stands there twice");
}

TEST(YamlReader, DocumentThatIsNoMappingIsAnError) {
  EXPECT_EQ(ErrorOf("- a\n- b\n"), "gateway.yaml:1: expected a mapping, found a list");
}

TEST(YamlReader, FirstErrorWins) {
  EXPECT_EQ(ErrorOf("port: x\nshare: y\n"), "gateway.yaml:1: port: 'x' is no integer");
}

TEST(YamlReader, RequiredKeyIsMissedAndPrefixStandsBeforeKeys) {
  const auto read = [](const std::string& text) {
    int port = 0;
    YamlReader reader(YAML::Load(text), "gateway.yaml", "http.");
    reader.Require("port", port, 0, 65535);
    reader.Refuse("port", absl::StrCat(port, " is taken"));
    return std::string(reader.Finish().message());
  };
  EXPECT_EQ(read("\nname: 1\n"), "gateway.yaml:2: http.port: is missing");
  EXPECT_EQ(read("port: 99999"), "gateway.yaml:1: http.port: 99999 is not in [0, 65535]");
  EXPECT_EQ(read("\nport: 9"), "gateway.yaml:2: http.port: 9 is taken");
}

TEST(ParseYaml, BadTextNamesTheLine) {
  const absl::Status status = ParseYaml("a: 1\nb: [1, 2\nc: 3\n", "f.yaml").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(std::string(status.message()).rfind("f.yaml:3: ", 0), 0u) << status;
  EXPECT_TRUE(ParseYaml("a: 1\n", "f.yaml").ok());
}

}  // namespace
}  // namespace tandem
