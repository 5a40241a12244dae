#pragma once

// From what `tandem-worker microbench` measured to chips of the catalog: reading the JSON, fitting,
// the YAML files, and what the operator is told.

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstdint>
#include <string>
#include <vector>

#include "scheduler/model/catalog.h"
#include "scheduler/planner/calibrate.h"

namespace tandem::ctl {

// What was measured under one of the patterns of workers/microbench: the device alone, in turns
// with a neighbour, or beside it.
struct MeasuredSide {
  double read_bytes_per_s = 0;  // in turns: as alone
  std::vector<cost::TimedCall> calls;
  std::vector<planner::RoundTrip> handoffs;
  double spread = 0;  // of a call over the rounds: half of the calls have more
};

struct Measurement {
  std::string model_file, cpu, backend;
  uint32_t cores = 0, threads = 0, rounds = 0;
  double memory_bytes = 0, memory_bytes_free = 0;
  double load_before = 0, load_after = 0;
  uint64_t layers = 0, hidden = 0, kv_heads = 0, head_dim = 0, vocabulary = 0;
  uint64_t attention_bytes = 0, ffn_bytes = 0;  // of the loaded tensors
  MeasuredSide alone, turns, contended;
};

// The JSON of workers/daemon/microbench_command.h. kInvalidArgument names `where` and the key.
absl::StatusOr<Measurement> ReadMeasurement(absl::string_view text, absl::string_view where);

struct CalibrationOptions {
  std::string name = "local-cpu";  // of the first chip, and the beginning of the others'
  std::string model_shape;         // of the catalog; empty: the only one of the model's dimensions
  std::string date;                // "2026-11-28", for the sources
  double max_spread = 0.25;        // MeasuredSide::spread that is accepted
};

struct CalibratedChip {
  model::Chip chip;  // with one number format: the model's
  planner::Calibration calibration;
  planner::LinkFit link;
};

struct CalibrationReport {
  Measurement measurement;
  std::string model_shape;
  model::Dtype weights = model::Dtype::kBf16;
  std::vector<CalibratedChip> chips;
};

// Fits six chips: NAME to all calls alone; NAME-attention to those of a worker that prefills and
// attends, NAME-ffn to an FFN worker's, in turns with the other's, for the formula has one rate for
// all of a step's calls and kernels have several; and each as NAME...-contended, to the same calls
// beside another worker's.
// kFailedPrecondition: the machine was too busy, with the spread; kInvalidArgument: no model of the
// catalog has these dimensions, or several; else planner::Calibrate's.
absl::StatusOr<CalibrationReport> MakeCalibration(const Measurement& measurement,
                                                  const model::Catalog& catalog,
                                                  const CalibrationOptions& options);

// A file of the catalog's chips/, which model::ReadChip reads.
std::string ChipYaml(const model::Chip& chip);

// What was measured and how well the fit meets it, by kind of call. Lines end with a line break.
std::string CalibrationText(const CalibrationReport& report);

}  // namespace tandem::ctl
