#pragma once

// What an engine makes of a device: its own time around the model's calls, how its kernels differ
// from the ones that the device's coefficients stand for, and how it takes in prompts.

#include <cstdint>
#include <string>

#include "scheduler/base/time.h"
#include "scheduler/model/dtype.h"
#include "scheduler/model/engine.h"

namespace tandem::cost {

// Multipliers of the seconds that a call is made of (CallParts); 1: the device's coefficients
// themselves.
struct CallFactors {
  double memory = 1;      // reading weights, in decode steps and prompts
  double kv = 1;          // reading K and V, on top of `memory`
  double compute = 1;     // in decode steps
  double fixed = 1;       // t0, in decode steps
  double all_reduce = 1;  // latency and bytes
  double prefill_compute = 1, prefill_fixed = 1;

  CallFactors& operator*=(const CallFactors& other);
};

// Zero for our own engine, whose time is real. Others': scheduler/model/engine.h.
struct EngineConstants {
  Duration per_step, per_sequence;
  double prefill_share = 0;  // φ: of the prefill time of a prompt that arrives in a step, what the
                             // step's other sequences wait
  CallFactors factors;
  // From a request's arrival until its prompt may be scheduled, and of that for each request that
  // is open already.
  Duration per_request, per_open_request;
  uint64_t step_tokens = 8192;  // rows of prompts and of decode that one step takes
  double kv_reserve = 1;        // of a request's output, what must be free when it is admitted
};

// What `engine` is on devices of `chip` with a model of that name.
// `version` of the engine may be empty: none in particular.
EngineConstants ConstantsOf(const model::Engine& engine, const std::string& version,
                            const std::string& chip, model::Dtype weights,
                            const std::string& model);

// Formats of a model with such weights on `engine`.
model::Precision PrecisionOf(const model::Engine& engine, model::Dtype weights);

}  // namespace tandem::cost
