#pragma once

// Graphs for devices other than the CPU: rows are taken from and left in the device's memory, and
// attention is ggml's own flash attention over each sequence's cells.
//
// A sequence's cells lie in one piece, its slot, when its blocks follow each other in the pool; a
// worker makes its blocks as large as a sequence (--block-tokens) so that they do. They are read in
// place then. Of a sequence whose blocks are scattered the cells are gathered on the device first:
// the same numbers, at the cost of copying them. Either way they come in ascending position, padded
// to KvPool::kViewPadding and masked, so that blocks, batch and chunk decide no bits where the
// device's kernel reads cell by cell.

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/types/span.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "scheduler/step/types.h"
#include "workers/backend/ggml/device_rows.h"
#include "workers/backend/ggml/layer_graphs.h"

namespace tandem::ggml_cpu {

// Neighbouring rows of a call that are of one sequence.
struct SequenceRows {
  uint32_t first = 0, rows = 0;
  uint32_t cells = 0;          // that are looked at, padded
  int64_t pool_row = kGather;  // where they begin in the pool
  size_t mask_at = 0;          // of its mask [cells, rows] among the call's
  size_t cells_at = 0;         // of its pool rows [cells] among those to gather

  static constexpr int64_t kGather = -1;
};

// How the rows of one call lie.
struct SlotLayout {
  std::vector<SequenceRows> sequences;
  size_t mask_halves = 0;     // of all masks
  size_t gathered_cells = 0;  // of all sequences that are gathered

  // What a graph is built for: equal for calls that the same graphs serve.
  std::vector<uint64_t> Shape() const;
};

// kInvalidArgument: a position or block out of range (KvPool::CheckPosition).
absl::StatusOr<SlotLayout> LayOut(const KvPool& pool, absl::Span<const step::KvRow> rows);

// The inputs of a call, as they go to the device.
struct SlotInputs {
  std::vector<int32_t> positions;
  std::vector<int64_t> kv_rows, order;
  std::vector<uint16_t> mask;  // F16: 0, or minus infinity
  std::vector<int32_t> cells;
};
SlotInputs InputsOf(const KvPool& pool, const SlotLayout& layout,
                    absl::Span<const step::KvRow> rows);

// residual += ffn_out (unless null), then residual += attention; one graph for each layer of
// [first, last).
std::unique_ptr<GraphSet> BuildSlotAttention(const GraphParts& parts, const SlotLayout& layout,
                                             const DeviceRows& residual, const DeviceRows* ffn_out,
                                             uint32_t rows, uint32_t first, uint32_t last);
// residual = embeddings of tokens
std::unique_ptr<GraphSet> BuildDeviceEmbed(const GraphParts& parts, const DeviceRows& residual,
                                           uint32_t rows);
// out = FFN of in; one graph a layer that the shard holds
std::unique_ptr<GraphSet> BuildDeviceFfn(const GraphParts& parts, const DeviceRows& in,
                                         const DeviceRows& out, uint32_t rows);

// residual += ffn_out (unless null). Outputs: logits [vocabulary, rows]; with `top` > 0 ids
// [top, rows] I32 and values [1, top, rows] F32 of so many likeliest, in no order.
std::unique_ptr<GraphSet> BuildDeviceHead(const GraphParts& parts, const DeviceRows& residual,
                                          const DeviceRows* ffn_out, uint32_t rows, uint32_t top);

}  // namespace tandem::ggml_cpu
