#include "workers/daemon/microbench_command.h"

#include <absl/strings/str_cat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>
#include <thread>

#include "scheduler/base/status.h"
#include "services/runtime/log.h"
#include "services/runtime/real_time.h"
#include "workers/backend/ggml/ggml_backend.h"
#include "workers/microbench/handoff_echo.h"
#include "workers/microbench/time_calls.h"
#include "workers/rpc/frame_memory.h"

namespace tandem {
namespace {

namespace json = boost::json;

constexpr uint32_t kBlockTokens = 16;
constexpr uint32_t kThreads = 1;  // of a backend, as a worker's default
constexpr uint32_t kWarmUpTrips = 50;
constexpr Duration kTurn = Duration::Microseconds(300);  // about a layer's call of one row

TimingPlan PlanOf(const MicrobenchOptions& options) {
  TimingPlan plan;
  if (options.quick) {
    plan = {{1, 4, 16}, {16, 128}, {8, 32}, {0, 64}, 3};
  } else {
    plan = {{1, 2, 4, 8, 16, 32}, {16, 64, 128}, {8, 16, 32}, {0, 32, 96}, 5};
  }
  if (options.rounds > 0) plan.rounds = options.rounds;
  return plan;
}

double LoadAverage() {
  double load = -1;
  return getloadavg(&load, 1) == 1 ? load : -1;
}

std::string CpuName() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos)
      return line.substr(colon + 2);
  }
  return "unknown CPU";
}

json::object MachineJson() {
  const auto pages = static_cast<double>(sysconf(_SC_PHYS_PAGES));
  const auto free_pages = static_cast<double>(sysconf(_SC_AVPHYS_PAGES));
  const auto page_bytes = static_cast<double>(sysconf(_SC_PAGESIZE));
  return {{"cpu", CpuName()},
          {"cores", std::thread::hardware_concurrency()},
          {"memory_bytes", pages * page_bytes},
          {"memory_bytes_free", free_pages * page_bytes}};
}

json::object ModelJson(const MicrobenchOptions& options, const BackendInfo& info) {
  const ModelDimensions& d = info.dimensions;
  return {{"file", options.model},       {"name", info.model_name},
          {"layers", d.layers},          {"hidden", d.hidden},
          {"kv_heads", d.kv_heads},      {"head_dim", d.head_dim},
          {"vocabulary", d.vocabulary},  {"attention_bytes", info.attention_bytes},
          {"ffn_bytes", info.ffn_bytes}, {"head_bytes", info.head_bytes}};
}

absl::Status TimeHandoffs(uint32_t hidden, Pattern pattern, const TimingPlan& plan,
                          TimeSource& time, json::array& handoffs) {
  for (const uint32_t rows : plan.rows) {
    ASSIGN_OR_RETURN(const std::unique_ptr<HandoffEcho> echo,
                     HandoffEcho::Start(rows, hidden, HandoffEcho::Ends::kDevices, time, kTurn));
    echo->RoundTrips(kWarmUpTrips);
    const MedianSpread trip = MedianOf(echo->RoundTrips(100 * plan.rounds));
    handoffs.push_back({{"rows", rows},
                        {"bytes", uint64_t{rows} * hidden * sizeof(float)},
                        {"pattern", std::string(PatternName(pattern))},
                        {"seconds", trip.median},
                        {"spread", trip.spread}});
  }
  return absl::OkStatus();
}

json::array CallsJson(const std::vector<CallTiming>& timings) {
  json::array calls;
  for (const CallTiming& timing : timings) {
    const absl::string_view kind = cost::CallKindName(timing.shape.kind);
    calls.push_back({{"kind", std::string(kind)},
                     {"rows", timing.shape.rows},
                     {"positions", timing.shape.positions},
                     {"pattern", std::string(PatternName(timing.pattern))},
                     {"seconds", timing.seconds},
                     {"spread", timing.spread}});
  }
  return calls;
}

}  // namespace

absl::StatusOr<json::value> RunMicrobench(const MicrobenchOptions& options) {
  const TimingPlan plan = PlanOf(options);
  const std::set<Stage> all = {Stage::kPrefill, Stage::kAttention, Stage::kFfn};
  const ShardSpec spec{options.model, all, BlocksFor(plan, kBlockTokens), kBlockTokens, kThreads};
  ASSIGN_OR_RETURN(const std::unique_ptr<StageBackend> device, MakeGgmlBackend(spec));
  ASSIGN_OR_RETURN(const std::unique_ptr<StageBackend> neighbour, MakeGgmlBackend(spec));
  RealTimeSource time;
  const double load_before = LoadAverage();
  json::object bandwidth{{"alone", ReadBandwidth(time)}};
  json::array handoffs;
  const uint32_t hidden = device->info().dimensions.hidden;
  RETURN_IF_ERROR(TimeHandoffs(hidden, Pattern::kTurns, plan, time, handoffs));
  RETURN_IF_ERROR(WhileNeighbourComputes(*neighbour, kBlockTokens, [&] {
    bandwidth["contended"] = ReadBandwidth(time);
    return TimeHandoffs(hidden, Pattern::kContended, plan, time, handoffs);
  }));
  ASSIGN_OR_RETURN(const std::vector<CallTiming> timings,
                   TimeCalls(*device, neighbour.get(), kBlockTokens, plan, time, [&](uint32_t n) {
                     std::fprintf(stderr, "microbench: %s %u of %u\n",
                                  n == 0 ? "warm-up, then round" : "round", n, plan.rounds);
                   }));
  json::object machine = MachineJson();
  machine["load_before"] = load_before;
  machine["load_after"] = LoadAverage();
  return json::object{{"model", ModelJson(options, device->info())},
                      {"machine", std::move(machine)},
                      {"backend", device->info().name},
                      {"numerics", device->info().numerics.attention},
                      {"threads", kThreads},
                      {"rounds", plan.rounds},
                      {"read_bytes_per_s", std::move(bandwidth)},
                      {"calls", CallsJson(timings)},
                      {"handoffs", std::move(handoffs)}};
}

int MicrobenchMain(int argc, const char* const* argv) {
  MicrobenchOptions options;
  std::string output;
  CLI::App app(
      "Times the device's calls (attention, FFN, head, prefill) by rows and positions, "
      "alone and while another one computes, and hand-offs over loopback; writes JSON",
      "tandem-worker microbench");
  app.add_option("--model", options.model, "GGUF file")->required();
  app.add_flag("--quick", options.quick, "Fewer sizes and rounds: some ten seconds");
  app.add_option("--rounds", options.rounds, "Times each call is timed [5, quick 3]")
      ->check(CLI::Range(1, 1000));
  app.add_option("--output", output, "File for the JSON [stdout]");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  KeepFrameMemory();
  InitLog({.daemon = "tandem-worker", .level = spdlog::level::warn});
  const absl::StatusOr<json::value> result = RunMicrobench(options);
  if (!result.ok()) {
    std::cerr << "tandem-worker: " << result.status().message() << "\n";
    return 1;
  }
  if (output.empty()) {
    std::cout << *result << "\n";
    return 0;
  }
  std::ofstream file(output);
  file << *result << "\n";
  if (file.flush()) return 0;
  std::cerr << "tandem-worker: cannot write " << output << "\n";
  return 1;
}

}  // namespace tandem
