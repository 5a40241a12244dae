#pragma once

// A serving engine of others, as the cost model sees it: what it takes to compare with figures that
// were measured on it.

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <array>
#include <map>
#include <string>

#include "scheduler/model/figure.h"

namespace tandem::model {

// Multipliers of seconds, over what the device's own figures give; above 1 is slower. Of decode
// steps: memory (reading weights, in prompts too), kv (reading K and V, on top of memory), compute,
// fixed, all_reduce, and decode for all of these but kv; of prompts: prefill_compute,
// prefill_fixed, and prefill for both.
inline constexpr std::array<absl::string_view, 9> kEngineFactorNames = {
    "memory",        "kv",     "compute", "fixed", "all_reduce", "decode", "prefill_compute",
    "prefill_fixed", "prefill"};
struct EngineFactors {
  std::map<std::string, Figure> figures;  // by those names

  double Of(absl::string_view name) const;  // 1 where the file has none
};

struct Engine {
  std::string name;  // "vllm"
  std::string source;
  Figure step_seconds;          // of each step, beside the model's calls
  Figure sequence_seconds;      // of each step, for each sequence in it
  Figure prefill_share;         // of the prefill time of prompts in a step, what its sequences wait
  Figure request_seconds;       // from a request's arrival until its prompt may be scheduled
  Figure open_request_seconds;  // of that, for each request that is open already
  Figure step_tokens;           // rows of prompts and decode that a step takes
  Figure kv_reserve;        // of a request's output, the share whose KV must be free to admit it
  Figure kv_element_bytes;  // of K and V where weights are narrower than 16 bits; 2 where not
  // By scope: "h100-sxm/fp8" (chip and dtype), "deepseek-v3" (model) and "deepseek-v3@0.5.9" (model
  // and the engine's version). Those of all scopes multiply.
  std::map<std::string, EngineFactors> factors;
};

// `where` names the file in messages. kInvalidArgument names file, line and key.
absl::StatusOr<Engine> ReadEngine(absl::string_view yaml, absl::string_view where);

// An engine that adds nothing to a step and lets every prompt hold up the batch in full, as
// Tandem's own does.
Engine NoEngine();

}  // namespace tandem::model
