#pragma once

// What one layer's call reads and computes, from a model's shape alone. cost_table.h turns it into
// time.

#include <absl/types/span.h>

#include <cstdint>

#include "scheduler/model/dtype.h"
#include "scheduler/model/model_shape.h"
#include "scheduler/view/shard.h"

namespace tandem::cost {

// Of one call, on all chips of a device together.
struct Work {
  double weight_bytes = 0;  // read from the device's memory
  double kv_bytes = 0;      // likewise
  double flops = 0;

  Work& operator+=(const Work& other);
};
inline Work operator+(Work a, const Work& b) { return a += b; }

// The rows of a decode batch, as attention sees them: one of each sequence. Made once a step; every
// layer's time then takes the same few operations, whatever the batch.
struct AttentionRows {
  uint64_t rows = 0;
  uint64_t context_tokens = 0;   // positions attended to, of all rows
  uint64_t windowed_tokens = 0;  // the same in a layer with a sliding window

  //   context_tokens  [rows]  positions that each row attends to, itself included; >= 1
  static AttentionRows Of(const model::ModelShape& shape,
                          absl::Span<const uint32_t> context_tokens);
  // Equal contexts; what `windowed_tokens` would be needs each one's. Exact without a window.
  static AttentionRows Even(const model::ModelShape& shape, uint64_t rows, uint64_t context_tokens);
};

// The rows of prompts that one prefill call computes, as attention sees them: chunks of any number
// of prompts together.
struct PrefillRows {
  uint64_t rows = 0;
  uint64_t attended_tokens = 0;  // positions attended to, of all rows; causal
  uint64_t kv_tokens = 0;        // positions whose K and V are read, each chunk's once
  uint64_t windowed_attended_tokens = 0, windowed_kv_tokens = 0;  // in a layer with a window

  // Rows [first_position, first_position + rows) of one prompt: row i attends to
  // first_position + i + 1 positions, or to the last `window`.
  static PrefillRows Of(const model::ModelShape& shape, uint64_t first_position, uint64_t rows);
  PrefillRows& operator+=(const PrefillRows& other);
};

// A shard's share of a matrix with `width` columns, in columns: the pieces add up to it.
uint64_t ShardWidth(const FfnShard& shard, uint64_t width);

// The parts that calls are made of (ops.h lists them by name). A matrix is read once, and costs two
// flops a parameter and row; `read` and `computed` differ for experts only.
//   read      parameters read, of all rows together
//   computed  parameters that one row is multiplied with
Work MatrixWork(const model::Precision& precision, double read, double computed, uint64_t rows);
// Scores and values of a decode batch over the KV of every sequence.
//   GQA  K and V of each position; 4 flops per head, dimension and position
//   MLA  the latent of each position, K and V projections absorbed into query and output
Work DecodeScoresWork(const model::ModelShape& shape, const model::Precision& precision,
                      uint64_t layer, const AttentionRows& rows);
// The same of rows of prompts. The KV before and of a chunk is read once. MLA computes heads in
// full, as prefill does.
Work PrefillScoresWork(const model::ModelShape& shape, const model::Precision& precision,
                       uint64_t layer, const PrefillRows& rows);
// The experts that `rows` rows are expected to touch, and those that all rows go to; nothing in a
// layer without experts. The FFN of such a layer; nothing in one with experts.
Work RoutedExpertsWork(const model::ModelShape& shape, const model::Precision& precision,
                       const FfnShard& shard, uint64_t layer, uint64_t rows);
Work SharedExpertsWork(const model::ModelShape& shape, const model::Precision& precision,
                       const FfnShard& shard, uint64_t layer, uint64_t rows);
Work DenseFfnWork(const model::ModelShape& shape, const model::Precision& precision,
                  const FfnShard& shard, uint64_t layer, uint64_t rows);

// Attention of one layer over one row of each sequence: its weights once, the gate of its experts
// among them, and the KV of every sequence.
Work AttentionWork(const model::ModelShape& shape, const model::Precision& precision,
                   uint64_t layer, const AttentionRows& rows);

// FFN of one layer over `rows` rows: the weights once, of the experts that the rows are expected to
// touch and of the shared ones. Nothing for no rows.
Work FfnWork(const model::ModelShape& shape, const model::Precision& precision,
             const FfnShard& shard, uint64_t layer, uint64_t rows);

// One layer, attention and FFN, over rows of prompts: the weights once.
Work PrefillWork(const model::ModelShape& shape, const model::Precision& precision, uint64_t layer,
                 const PrefillRows& rows);

// Final norm, output matrix and sampling; and the rows of the embedding.
Work HeadWork(const model::ModelShape& shape, const model::Precision& precision, uint64_t rows);
Work EmbedWork(const model::ModelShape& shape, const model::Precision& precision, uint64_t rows);

// Experts touched in one layer by `rows` rows, each with k of E drawn uniformly:
// E·(1-(1-k/E)^rows). Source: facts/models.md.
double ExpectedExperts(uint64_t experts, uint64_t experts_per_token, uint64_t rows);

// Bytes of the rows of one A2F call: hidden states, and for experts 4 bytes of id and 4 of weight
// for each that a row goes to. Of one F2A reply: hidden states, one of each row; a reply of a
// column part is as wide.
uint64_t A2fBytes(const model::ModelShape& shape, const model::Precision& precision, uint64_t layer,
                  uint64_t rows);
uint64_t F2aBytes(const model::ModelShape& shape, const model::Precision& precision, uint64_t rows);

}  // namespace tandem::cost
