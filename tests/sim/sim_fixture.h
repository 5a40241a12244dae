#pragma once

// Scenario files and the catalog, read for the simulator; one seed replays a failure.

#include <gtest/gtest.h>

#include <absl/strings/str_cat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "scheduler/sim/simulation.h"

namespace tandem::sim {

inline std::string ReadText(const std::filesystem::path& path) {
  std::ifstream in(path);
  EXPECT_TRUE(in) << path;
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

inline std::filesystem::path SourceDirectory() {
  const char* directory = std::getenv("TANDEM_SOURCE_DIR");
  return directory == nullptr ? std::filesystem::current_path() : std::filesystem::path(directory);
}

inline const Catalog& TheCatalog() {
  static const Catalog catalog = [] {
    Catalog read;
    const std::filesystem::path root = SourceDirectory() / "scheduler/model/catalog";
    for (const auto& entry : std::filesystem::directory_iterator(root / "chips")) {
      const auto chip = model::ReadChip(ReadText(entry.path()), entry.path().filename().string());
      EXPECT_TRUE(chip.ok()) << chip.status();
      if (chip.ok()) read.chips[chip->name] = *chip;
    }
    for (const auto& entry : std::filesystem::directory_iterator(root / "models")) {
      const auto shape =
          model::ReadModelShape(ReadText(entry.path()), entry.path().filename().string());
      EXPECT_TRUE(shape.ok()) << shape.status();
      if (shape.ok()) read.models[shape->name] = *shape;
    }
    return read;
  }();
  return catalog;
}

inline Scenario NamedScenario(const std::string& name) {
  const std::string file = name + ".yaml";
  auto scenario =
      ReadScenario(ReadText(SourceDirectory() / "tests/sim/scenarios" / file), file, TheCatalog());
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
