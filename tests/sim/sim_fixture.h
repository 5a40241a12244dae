#pragma once

// Scenario files and the catalog, read for the simulator; one seed replays a failure.

#include <gtest/gtest.h>

#include <absl/strings/str_cat.h>

#include <cstdlib>
#include <string>

#include "scheduler/sim/simulation.h"
#include "services/runtime/catalog_files.h"
#include "services/runtime/yaml_file.h"

namespace tandem::sim {

inline std::string SourceDirectory() {
  const char* directory = std::getenv("TANDEM_SOURCE_DIR");
  return directory == nullptr ? "." : directory;
}

inline std::string ReadText(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadTextFile(path);
  EXPECT_TRUE(text.ok()) << text.status();
  return text.value_or("");
}

inline const model::Catalog& TheCatalog() {
  static const model::Catalog catalog = [] {
    auto read = LoadCatalog({SourceDirectory() + "/scheduler/model/catalog"});
    EXPECT_TRUE(read.ok()) << read.status();
    return read.value_or(model::Catalog());
  }();
  return catalog;
}

inline Scenario NamedScenario(const std::string& name) {
  const std::string file = name + ".yaml";
  auto scenario = ReadScenario(ReadText(SourceDirectory() + "/tests/sim/scenarios/" + file), file,
                               TheCatalog());
  EXPECT_TRUE(scenario.ok()) << scenario.status();
  EXPECT_EQ(scenario.ok() ? scenario->name : "", name);
  return scenario.ok() ? *std::move(scenario) : Scenario();
}

// SIM_SEED replays one run; SIM_TRACE=1 prints its control events.
inline uint64_t SeedOr(uint64_t seed) {
  const char* given = std::getenv("SIM_SEED");
  return given == nullptr ? seed : std::strtoull(given, nullptr, 10);
}

inline SimReport Play(const std::string& name, uint64_t seed) {
  return Simulate(NamedScenario(name), seed, std::getenv("SIM_TRACE") != nullptr);
}

inline std::string Text(const SimReport& report) {
  std::string text =
      absl::StrCat("tokens ", report.tokens_delivered, "/", report.tokens_requested, " resumes ",
                   report.resumes, " preemptions ", report.preemptions, " elapsed ",
                   report.elapsed.seconds(), " s, ", report.events, " events, ttft p50 ",
                   report.ttft_p50.seconds(), " p99 ", report.ttft_p99.seconds(), " tpot p50 ",
                   report.tpot_p50.seconds(), " p99 ", report.tpot_p99.seconds(), "\n");
  for (const auto& [how, count] : report.ended)
    absl::StrAppend(&text, "  ", how, ": ", count, "\n");
  for (const auto& [state, time] : report.device_time)
    absl::StrAppend(&text, "  ", state, ": ", time.seconds(), " s\n");
  for (const std::string& violation : report.violations)
    absl::StrAppend(&text, "  VIOLATION ", violation, "\n");
  return text;
}

}  // namespace tandem::sim
