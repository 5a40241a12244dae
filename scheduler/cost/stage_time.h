#pragma once

// Time of one layer's work on one chip. Source of the form: DESIGN section 6; facts/cost-fit.md for
// its constants.

#include <absl/types/span.h>

#include <cstdint>

#include "scheduler/base/time.h"
#include "scheduler/model/chip.h"
#include "scheduler/model/model_shape.h"

namespace tandem::cost {

// What one call moves and computes.
struct Work {
  double bytes = 0;  // read from the chip's memory
  double flops = 0;
};

// ((bytes/(BW·η))^p + (flops/(F·µ))^p)^(1/p) + t0, rounded down to a nanosecond.
Duration LayerTime(const model::Chip& chip, const Work& work);

// Attention of one layer over one row of each sequence: its weights once, and the KV of every
// sequence.
//   context_tokens  [rows]  positions that each row attends to, itself included; >= 1
Work AttentionWork(const model::ModelShape& shape, absl::Span<const uint32_t> context_tokens);
// FFN of one layer over `rows` rows: the weights once, of the experts that the rows are expected to
// touch.
Work FfnWork(const model::ModelShape& shape, uint64_t rows);
// One layer, attention and FFN, over `rows` rows of one prompt that starts at `first_position`.
Work PrefillWork(const model::ModelShape& shape, uint64_t first_position, uint64_t rows);
// Final norm, output matrix and sampling.
Work HeadWork(const model::ModelShape& shape, uint64_t rows);

// Experts touched in one layer by `rows` rows, each with k of E drawn uniformly:
// E·(1-(1-k/E)^rows). Source: facts/models.md. Zero experts: a dense layer, 1.
double ExpectedExperts(uint64_t experts, uint64_t experts_per_token, uint64_t rows);

// Bytes of the rows of one A2F or F2A transfer: raw F32 (PROTOCOL section 6).
uint64_t HandoffBytes(const model::ModelShape& shape, uint64_t rows);
// K and V of `tokens` positions, all layers.
uint64_t KvBytes(const model::ModelShape& shape, uint64_t tokens);

// How long a transfer occupies the chip's link, and how long it is on its way.
Duration LinkOccupancy(const model::Chip& chip, uint64_t bytes);
Duration TransferTime(const model::Chip& chip, uint64_t bytes);

}  // namespace tandem::cost
