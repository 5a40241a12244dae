#pragma once

// What a worker's memory must hold, and whether it does.

#include <absl/status/status.h>

#include <cstdint>
#include <optional>

#include "scheduler/cost/work.h"
#include "scheduler/model/device.h"
#include "scheduler/model/dtype.h"
#include "scheduler/model/model_shape.h"

namespace tandem::cost {

// The stages that a device holds weights for (DESIGN section 2).
struct Holding {
  bool prefill = false;    // the whole model
  bool attention = false;  // attention and gate of every layer, embedding, head
  std::optional<FfnShard> ffn;

  static Holding Everything() { return {true, true, FfnShard()}; }
};

// All in bytes, of the device's memory; rounded up.
struct Footprint {
  uint64_t weights = 0;
  uint64_t kv = 0;
  uint64_t workspace = 0;

  uint64_t total() const { return weights + kv + workspace; }
};

// Weights of all that `holding` names, each once.
uint64_t WeightBytes(const model::ModelShape& shape, const model::Precision& precision,
                     const Holding& holding);

// K and V of one position of one layer, and of one position of all layers.
uint64_t KvRowBytes(const model::ModelShape& shape, const model::Precision& precision);
uint64_t KvBytesPerToken(const model::ModelShape& shape, const model::Precision& precision);
// K and V of one sequence of `tokens` positions: a windowed layer keeps no more than its window.
uint64_t KvBytes(const model::ModelShape& shape, const model::Precision& precision,
                 uint64_t tokens);

// How often a device stores each position's K and V: a tensor-parallel set has a copy for each chip
// past one for each KV head; MLA's latent cannot be divided at all.
uint32_t KvCopies(const model::ModelShape& shape, const model::Device& device);

//   kv_tokens  positions of all layers that the device shall have room for; 0 without attention or
//              prefill
Footprint FootprintOf(const model::Device& device, const model::ModelShape& shape,
                      const model::Precision& precision, const Holding& holding,
                      uint64_t kv_tokens);

// kInvalidArgument, with what is needed and what there is, when it does not fit.
absl::Status CheckFits(const model::Device& device, const model::ModelShape& shape,
                       const Footprint& footprint);

// How many positions of all layers fit beside the weights; 0: not even they do.
uint64_t KvTokensThatFit(const model::Device& device, const model::ModelShape& shape,
                         const model::Precision& precision, const Holding& holding);

}  // namespace tandem::cost
