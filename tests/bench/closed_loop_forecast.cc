// What the simulator, with the cost model's times, says of a cluster under closed-loop clients: the
// forecast that closed_loop_bench.py holds live clusters against.
//
//   closed_loop_forecast CATALOG_DIR SCENARIO.yaml
// prints {ttft_seconds, tpot_seconds, elapsed_seconds, tokens, device_seconds: {"attention busy":
// ...}} of the scenario (scheduler/sim/scenario.h), medians over the requests that count.

#include <absl/strings/str_cat.h>

#include <boost/json.hpp>
#include <cstdio>
#include <iostream>
#include <string>

#include "scheduler/base/status.h"
#include "scheduler/sim/simulation.h"
#include "services/runtime/catalog_files.h"
#include "services/runtime/yaml_file.h"

namespace tandem {
namespace {

constexpr uint64_t kSeed = 20261128;  // only tokens and clients' order of start depend on it

absl::StatusOr<boost::json::value> Forecast(const std::string& catalog_dir,
                                            const std::string& file) {
  ASSIGN_OR_RETURN(const model::Catalog catalog, LoadCatalog({catalog_dir, InstalledCatalog()}));
  ASSIGN_OR_RETURN(const std::string yaml, ReadTextFile(file));
  ASSIGN_OR_RETURN(const sim::Scenario scenario, sim::ReadScenario(yaml, file, catalog));
  const sim::SimReport report = sim::Simulate(scenario, kSeed);
  if (!report.violations.empty()) return absl::InternalError(report.violations.front());
  boost::json::object device;
  for (const auto& [state, time] : report.device_time) device[state] = time.seconds();
  return boost::json::value{{"ttft_seconds", report.ttft_p50.seconds()},
                            {"tpot_seconds", report.tpot_p50.seconds()},
                            {"elapsed_seconds", report.elapsed.seconds()},
                            {"tokens", report.tokens_delivered},
                            {"device_seconds", std::move(device)}};
}

int Main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: closed_loop_forecast CATALOG_DIR SCENARIO.yaml\n");
    return 2;
  }
  const absl::StatusOr<boost::json::value> forecast = Forecast(argv[1], argv[2]);
  if (!forecast.ok()) {
    std::fprintf(stderr, "closed_loop_forecast: %s\n", forecast.status().ToString().c_str());
    return 1;
  }
  std::cout << *forecast << "\n";
  return 0;
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) { return tandem::Main(argc, argv); }
