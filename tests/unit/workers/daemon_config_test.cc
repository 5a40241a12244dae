// tandem-worker's configuration: defaults, file, flags; what is refused, and how it says so.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <initializer_list>
#include <string>
#include <vector>

#include "workers/daemon/config.h"

namespace tandem {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<std::optional<WorkerCommand>> Parse(std::initializer_list<const char*> words) {
  std::vector<const char*> argv = {"tandem-worker"};
  argv.insert(argv.end(), words);
  return ParseWorkerCommand(static_cast<int>(argv.size()), argv.data());
}

WorkerConfig MustParse(std::initializer_list<const char*> words) {
  auto command = Parse(words);
  EXPECT_TRUE(command.ok()) << command.status();
  if (!command.ok() || !command->has_value()) return {};
  return (*command)->config;
}

std::string WriteFile(const std::string& text) {
  const std::string path = ::testing::TempDir() + "worker_" + std::to_string(::getpid()) + ".yaml";
  std::ofstream(path) << text;
  return path;
}

TEST(WorkerConfig, StagesAndModelSufficeAndNameTheRest) {
  const WorkerConfig config =
      MustParse({"--stages", "attention,ffn", "--model", "/models/small.Q4_1.gguf"});
  EXPECT_THAT(config.StageSet(), ElementsAre(Stage::kAttention, Stage::kFfn));
  EXPECT_EQ(config.model_name, "small.Q4_1");
  EXPECT_EQ(config.pool, "attention+ffn");
  EXPECT_EQ(config.worker_id, "attention+ffn@127.0.0.1:9200");
  EXPECT_EQ(config.Memory(), MemoryClass::kHbm);
  EXPECT_EQ(config.threads, 1u);
  EXPECT_THAT(config.routers, ElementsAre("127.0.0.1:9000"));
}

TEST(WorkerConfig, MetricsAreWhereTheWorkerIsDialled) {
  WorkerConfig config;
  config.metrics_listen = "0.0.0.0:9464";
  EXPECT_EQ(config.MetricsUrl("10.244.1.7:9200"), "http://10.244.1.7:9464/metrics");
  EXPECT_EQ(config.MetricsUrl("[fd00::7]:9200"), "http://[fd00::7]:9464/metrics");
  config.metrics_listen = "127.0.0.1:9466";
  EXPECT_EQ(config.MetricsUrl("127.0.0.1:9201"), "http://127.0.0.1:9466/metrics");
}

TEST(WorkerConfig, TlsNeedsAllThreeFiles) {
  const auto command =
      Parse({"--stages", "ffn", "--model", "m.gguf", "--tls-cert", "c", "--tls-ca", "a"});
  EXPECT_THAT(std::string(command.status().message()), HasSubstr("--tls-key is missing"));
  const std::string path =
      WriteFile("stages: [ffn]\nmodel: m.gguf\ntls_cert: c\ntls_key: k\ntls_ca: a\n");
  const WorkerConfig config = MustParse({"--config", path.c_str(), "--tls-name", "n"});
  EXPECT_EQ(config.tls, (TlsFiles{"c", "k", "a", "n"}));
}

TEST(WorkerConfig, FlagsOverrideTheFile) {
  const std::string path =
      WriteFile("stages: [ffn]\nmodel: m.gguf\nmemory_class: sram\nmax_batch: 7\nkv_tokens: 640\n");
  const WorkerConfig config = MustParse(
      {"--config", path.c_str(), "--max-batch", "9", "--router", "h1:1", "--router", "h2:2"});
  EXPECT_THAT(config.stages, ElementsAre("ffn"));
  EXPECT_EQ(config.Memory(), MemoryClass::kSram);
  EXPECT_EQ(config.max_batch, 9u);
  EXPECT_EQ(config.kv_tokens, 640u);
  EXPECT_THAT(config.routers, ElementsAre("h1:1", "h2:2"));
}

TEST(WorkerConfig, PrintedConfigurationReadsBackAsItself) {
  const WorkerConfig config =
      MustParse({"--stages", "prefill", "--model", "m.gguf", "--threads", "3",
                 "--drain-timeout-seconds", "2.5", "--advertise", "worker-0:9200"});
  const std::string path = WriteFile(ToYaml(config));
  const WorkerConfig again = MustParse({"--config", path.c_str()});
  EXPECT_EQ(ToYaml(again), ToYaml(config));
  EXPECT_EQ(again.threads, 3u);
  EXPECT_EQ(again.drain_timeout_seconds, 2.5);
  EXPECT_EQ(again.advertise, "worker-0:9200");
}

TEST(WorkerConfig, AnFfnWorkerMayHoldAPart) {
  const WorkerConfig whole = MustParse({"--stages", "ffn", "--model", "m.gguf"});
  EXPECT_TRUE(whole.Shard().IsWhole());
  EXPECT_THAT(ToYaml(whole), HasSubstr("layers: all\ncolumn: 0/1\n"));
  const WorkerConfig part = MustParse({"--stages", "ffn", "--model", "m.gguf", "--layers", "0:15",
                                       "--column", "1/2", "--max-merge-wait-us", "50"});
  EXPECT_EQ(*ResolveRequest(part.Shard(), 30), (FfnShard{0, 15, 1, 2}));
  const std::string path = WriteFile(ToYaml(part));
  EXPECT_EQ(ToYaml(MustParse({"--config", path.c_str()})), ToYaml(part));
  const auto error = [](std::initializer_list<const char*> words) {
    return std::string(Parse(words).status().message());
  };
  EXPECT_THAT(error({"--stages", "ffn", "--model", "m", "--layers", "9:3"}),
              HasSubstr("layers: [9, 3) is no range"));
  EXPECT_THAT(error({"--stages", "ffn", "--model", "m", "--column", "2/2"}),
              HasSubstr("column: 2/2 is none"));
  EXPECT_THAT(
      error({"--stages", "attention,ffn", "--model", "m", "--layers", "0/2"}),
      HasSubstr("layers: 0/2, column: 0/1: a part of the FFN is for the ffn stage alone, not "
                "for stages attention,ffn"));
}

TEST(WorkerConfig, ADeviceOfGgmlsIsAnythingButTheCatalogsAndHasSlots) {
  const WorkerConfig cpu = MustParse({"--stages", "attention", "--model", "m.gguf"});
  EXPECT_EQ(cpu.device, "cpu");
  EXPECT_EQ(cpu.block_tokens, 16u);
  const WorkerConfig gpu =
      MustParse({"--stages", "attention", "--model", "m.gguf", "--device", "cuda:1"});
  EXPECT_EQ(gpu.device, "cuda:1");
  EXPECT_EQ(gpu.block_tokens, 1024u);
  const WorkerConfig paged = MustParse(
      {"--stages", "attention", "--model", "m.gguf", "--device", "cuda", "--block-tokens", "32"});
  EXPECT_EQ(paged.block_tokens, 32u);
}

TEST(WorkerConfig, AListOfDevicesNeedsNothingElse) {
  const auto command = Parse({"--device", "list"});
  ASSERT_TRUE(command.ok()) << command.status();
  EXPECT_TRUE((*command)->config.lists_devices());
  EXPECT_FALSE(Parse({"--device", "list", "--backend", "emulated"}).ok()) << "of ggml's alone";
}

TEST(WorkerConfig, ErrorsNameTheKeyAndTheNumber) {
  struct Case {
    std::vector<const char*> words;
    const char* reason;
  };
  const Case cases[] = {
      {{"--model", "m"}, "stages: at least one"},
      {{"--stages", "ffn"}, "model: name a GGUF file"},
      {{"--stages", "ffn,head", "--model", "m"}, "'head' is none of prefill, attention, ffn"},
      {{"--stages", "ffn", "--model", "m", "--memory-class", "dram"}, "memory_class: 'dram'"},
      {{"--stages", "ffn", "--model", "m", "--backend", "cuda"}, "backend: 'cuda'"},
      {{"--stages", "ffn", "--model", "m", "--log-format", "xml"}, "log_format: 'xml'"},
      {{"--stages", "ffn", "--model", "m", "--max-batch", "0"}, "max_batch: 0 is not in [1, 4096]"},
      {{"--stages", "ffn", "--model", "m", "--chunk-tokens", "64"},
       "chunk_tokens: 64 is not in [1, 63]"},
      {{"--stages", "ffn", "--model", "m", "--kv-tokens", "8"}, "kv_tokens: 8 is not in [16"},
      {{"--stages", "ffn", "--model", "m", "--threads", "many"}, "threads"},
      {{"--stages", "ffn", "--model", "m", "--listen", "nowhere"},
       "listen: 'nowhere' is no host:port"},
      {{"--stages", "ffn", "--model", "m", "--router", "host:99999"},
       "router: 'host:99999' is no host:port"},
      {{"--stages", "ffn", "--model", "m", "--drain-timeout-seconds", "-1"},
       "drain_timeout_seconds: -1"},
      {{"--stages", "ffn", "--model", "m", "--numerics", "model:x.gguf"},
       "numerics: 'model:x.gguf' is of the emulated backend, not of ggml"},
      {{"--stages", "ffn", "--model", "m", "--speed", "11"}, "--speed"},
  };
  for (const Case& c : cases) {
    std::vector<const char*> argv = {"tandem-worker"};
    argv.insert(argv.end(), c.words.begin(), c.words.end());
    const auto command = ParseWorkerCommand(static_cast<int>(argv.size()), argv.data());
    ASSERT_FALSE(command.ok()) << c.reason;
    EXPECT_THAT(std::string(command.status().message()), HasSubstr(c.reason));
  }
}

TEST(WorkerConfig, NumericsDecideWhatThePayloadIs) {
  const std::initializer_list<const char*> synthetic = {
      "--stages", "ffn", "--backend", "emulated", "--device", "h100-x8", "--model-shape", "m"};
  const auto parse = [&](std::initializer_list<const char*> more) {
    std::vector<const char*> argv = {"tandem-worker"};
    argv.insert(argv.end(), synthetic);
    argv.insert(argv.end(), more);
    return ParseWorkerCommand(static_cast<int>(argv.size()), argv.data());
  };
  EXPECT_EQ((*parse({}))->config.payload, "elided");
  EXPECT_EQ((*parse({}))->config.NumericsFile(), "");
  EXPECT_EQ((*parse({"--payload", "real"}))->config.payload, "real");
  const WorkerConfig model = (*parse({"--numerics", "model:/models/small.gguf"}))->config;
  EXPECT_EQ(model.payload, "real");
  EXPECT_EQ(model.NumericsFile(), "/models/small.gguf");
  const std::string path = WriteFile(ToYaml(model));
  EXPECT_EQ(ToYaml(MustParse({"--config", path.c_str()})), ToYaml(model));

  const auto error = [&](std::initializer_list<const char*> more) {
    return std::string(parse(more).status().message());
  };
  EXPECT_THAT(error({"--numerics", "model:x.gguf", "--payload", "elided"}),
              HasSubstr("payload: elided frames hold no numbers, and numerics model:x.gguf"));
  EXPECT_THAT(error({"--payload", "none"}), HasSubstr("payload: 'none' is none of elided, real"));
  for (const char* word : {"real", "model", "model:"}) {
    EXPECT_THAT(error({"--numerics", word}),
                HasSubstr(std::string("numerics: '") + word +
                          "' is neither synthetic nor model:FILE.gguf"));
  }
}

TEST(WorkerConfig, FilesErrorsNameFileKeyAndLine) {
  const std::string unknown = WriteFile("stages: [ffn]\nmodel: m\nspeed: 11\n");
  EXPECT_THAT(std::string(Parse({"--config", unknown.c_str()}).status().message()),
              ::testing::AllOf(HasSubstr(unknown), HasSubstr("speed")));
  const std::string wrong = WriteFile("stages: [ffn]\nmodel: m\nthreads: many\n");
  EXPECT_THAT(std::string(Parse({"--config", wrong.c_str()}).status().message()),
              HasSubstr("threads"));
  EXPECT_THAT(std::string(Parse({"--config", "/no/such.yaml"}).status().message()),
              HasSubstr("/no/such.yaml"));
}

TEST(WorkerConfig, HelpAndVersionAskForNothingElse) {
  const auto help = Parse({"--help"});
  ASSERT_TRUE(help.ok());
  EXPECT_FALSE(help->has_value());
  const auto version = Parse({"--version"});
  ASSERT_TRUE(version.ok());
  EXPECT_FALSE(version->has_value());
}

}  // namespace
}  // namespace tandem
