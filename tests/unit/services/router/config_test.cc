#include "services/router/config.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <vector>

namespace tandem::router {
namespace {

absl::StatusOr<RouterCommandLine> Parse(std::vector<const char*> flags) {
  flags.insert(flags.begin(), "tandem-router");
  return ParseCommandLine(static_cast<int>(flags.size()), flags.data(), "9.9.9");
}

class YamlFile {
 public:
  explicit YamlFile(const std::string& text)
      : path_(testing::TempDir() + "/router_config_test." + std::to_string(getpid()) + ".yaml") {
    std::ofstream(path_) << text;
  }
  ~YamlFile() { std::remove(path_.c_str()); }
  const char* path() const { return path_.c_str(); }

 private:
  std::string path_;
};

TEST(RouterConfig, FlagsRuleOverTheFileAndTheFileOverDefaults) {
  const YamlFile file("model_name: from-file\nmax_queued_requests: 7\nworker_lease_seconds: 9\n");
  const auto line =
      Parse({"--config", file.path(), "--model-name", "from-flag", "--worker-lease", "3"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->config.model_name, "from-flag");
  EXPECT_EQ(line->config.max_queued_requests, 7u);
  EXPECT_EQ(line->config.worker_lease_seconds, 3);
  EXPECT_EQ(line->config.listen, "127.0.0.1:9000");
}

TEST(RouterConfig, PrintedConfigReadsBackToItself) {
  RouterConfig config;
  config.model_name = "a: b # \"c\"";
  config.log_format = "json";
  config.worker_lease_seconds = 2.5;
  config.max_prompt_tokens = 12345;
  const YamlFile file(PrintConfig(config));
  const auto line = Parse({"--config", file.path(), "--print-config"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_TRUE(line->print_config);
  EXPECT_EQ(PrintConfig(line->config), PrintConfig(config));
  EXPECT_EQ(line->config.model_name, config.model_name);
}

TEST(RouterConfig, ErrorsNameTheFlagOrTheFileLineAndKey) {
  EXPECT_EQ(Parse({}).status().message(), "model_name is empty: --model-name is required");
  const YamlFile file("model_name: m\nmax_worker: 3\n");
  EXPECT_EQ(std::string(Parse({"--config", file.path()}).status().message()),
            std::string(file.path()) + ":2: max_worker: unknown key");
  const std::string zero(Parse({"--model-name", "m", "--max-workers", "0"}).status().message());
  EXPECT_NE(zero.find("--max-workers"), std::string::npos) << zero;
  EXPECT_EQ(Parse({"--model-name", "m", "--worker-lease", "1"}).status().message(),
            "worker_lease_seconds 1 is not above heartbeat_interval_seconds 1");
  EXPECT_EQ(Parse({"--model-name", "m", "--log-format", "xml"}).status().message(),
            "log_format: 'xml' is neither text nor json");
  EXPECT_EQ(Parse({"--model-name", "m", "--log-level", "loud"}).status().message(),
            "log_level: 'loud' is none of trace, debug, info, warning, error");
  EXPECT_EQ(Parse({"--model-name", "m", "--slo-tpot-ms", "0"}).status().message(),
            "slo_tpot_ms is 0");
  EXPECT_FALSE(Parse({"--no-such-flag"}).ok());
  EXPECT_EQ(Parse({"--config", "/no/such.yaml"}).status().code(), absl::StatusCode::kNotFound);
}

TEST(RouterConfig, HelpAndVersionNeedNoModel) {
  EXPECT_EQ(Parse({"--version"})->done, "9.9.9\n");
  EXPECT_NE(Parse({"--help"})->done.find("--max-queued-requests"), std::string::npos);
}

}  // namespace
}  // namespace tandem::router
