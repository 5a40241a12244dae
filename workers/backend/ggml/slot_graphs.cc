#include "workers/backend/ggml/slot_graphs.h"

#include <algorithm>
#include <cmath>

#include "scheduler/base/check.h"
#include "scheduler/base/status.h"

namespace tandem::ggml_cpu {
namespace {

constexpr uint16_t kHalfMinusInfinity = 0xfc00;

uint32_t Padded(uint32_t cells) {
  return (cells + KvPool::kViewPadding - 1) / KvPool::kViewPadding * KvPool::kViewPadding;
}

// Whether the blocks of the first `cells` positions follow each other in the pool.
bool InOnePiece(const step::BlockTable& blocks, uint32_t cells, uint32_t block_tokens) {
  const uint32_t used = (cells + block_tokens - 1) / block_tokens;
  for (uint32_t i = 1; i < used; ++i) {
    if (blocks[i] != blocks[i - 1] + 1) return false;
  }
  return true;
}

// [head_dim, cells, kv_heads] of rows [kv_dim, ...] that begin at `first`.
ggml_tensor* Heads(ggml_context* c, const LlamaShape& shape, ggml_tensor* rows, int64_t cells,
                   int64_t first) {
  return ggml_view_3d(c, rows, shape.head_dim, cells, shape.kv_heads, rows->nb[1],
                      shape.head_dim * rows->nb[0], static_cast<size_t>(first) * rows->nb[1]);
}

// A sequence's cells of the pool, in place or gathered. Halves become floats and halves again on
// the way, which changes none.
ggml_tensor* Cells(const GraphParts& parts, GraphSet& set, const SequenceRows& sequence,
                   ggml_tensor* pool) {
  ggml_context* c = set.graph_context.get();
  if (sequence.pool_row != SequenceRows::kGather)
    return Heads(c, parts.shape, pool, sequence.cells, sequence.pool_row);
  ggml_tensor* rows =
      ggml_view_1d(c, set.cells, sequence.cells, sequence.cells_at * sizeof(int32_t));
  ggml_tensor* gathered = ggml_cast(c, ggml_get_rows(c, pool, rows), GGML_TYPE_F16);
  return Heads(c, parts.shape, gathered, sequence.cells, 0);
}

// Attention of one sequence's rows [hidden, its rows].
ggml_tensor* Attend(const GraphParts& parts, GraphSet& set, const SequenceRows& sequence,
                    const Projected& projected) {
  const LlamaShape& shape = parts.shape;
  ggml_context* c = set.graph_context.get();
  ggml_tensor* q =
      ggml_view_3d(c, projected.q, shape.head_dim, shape.heads, sequence.rows, projected.q->nb[1],
                   projected.q->nb[2], sequence.first * projected.q->nb[2]);
  ggml_tensor* mask =
      ggml_view_2d(c, set.mask, sequence.cells, sequence.rows, sequence.cells * sizeof(ggml_fp16_t),
                   sequence.mask_at * sizeof(ggml_fp16_t));
  ggml_tensor* attended = ggml_flash_attn_ext(
      c, ggml_permute(c, q, 0, 2, 1, 3), Cells(parts, set, sequence, projected.keys),
      Cells(parts, set, sequence, projected.values), mask,
      1.0f / std::sqrt(static_cast<float>(shape.head_dim)), 0.0f, 0.0f);
  ggml_prec_set_acc(attended, GGML_PREC_F32);
  return ggml_reshape_2d(c, attended, shape.hidden, sequence.rows);
}

// The rows of all sequences in the batch's order.
ggml_tensor* AttendAll(const GraphParts& parts, GraphSet& set, const SlotLayout& layout,
                       const Projected& projected) {
  if (layout.sequences.size() == 1) return Attend(parts, set, layout.sequences.front(), projected);
  ggml_context* c = set.graph_context.get();
  ggml_tensor* all = set.attended;
  for (const SequenceRows& sequence : layout.sequences) {
    ggml_tensor* places =
        ggml_view_1d(c, set.order, sequence.rows, sequence.first * sizeof(int64_t));
    all = ggml_set_rows(c, all, Attend(parts, set, sequence, projected), places);
  }
  return all;
}

ggml_tensor* Sum(ggml_context* c, const DeviceRows& residual, const DeviceRows* ffn_out,
                 uint32_t rows) {
  ggml_tensor* x = residual.View(c, rows);
  return ffn_out == nullptr ? x : ggml_add(c, ffn_out->View(c, rows), x);
}

}  // namespace

std::vector<uint64_t> SlotLayout::Shape() const {
  std::vector<uint64_t> shape;
  for (const SequenceRows& sequence : sequences) {
    shape.push_back(sequence.rows);
    shape.push_back(sequence.cells);
    shape.push_back(static_cast<uint64_t>(sequence.pool_row));
  }
  return shape;
}

absl::StatusOr<SlotLayout> LayOut(const KvPool& pool, absl::Span<const step::KvRow> rows) {
  SlotLayout layout;
  const step::BlockTable* last = nullptr;
  for (uint32_t i = 0; i < rows.size(); ++i) {
    TANDEM_CHECK(rows[i].blocks != nullptr);
    RETURN_IF_ERROR(pool.CheckPosition(*rows[i].blocks, rows[i].position));
    if (rows[i].blocks != last) layout.sequences.push_back({i, 0, 0});
    last = rows[i].blocks;
    SequenceRows& sequence = layout.sequences.back();
    sequence.rows++;
    sequence.cells = std::max(sequence.cells, rows[i].position + 1);
  }
  for (SequenceRows& sequence : layout.sequences) {
    const step::BlockTable& blocks = *rows[sequence.first].blocks;
    // Every block up to the last position, and not those of the rows alone.
    for (uint32_t at = 0; at < sequence.cells; at += pool.block_tokens())
      RETURN_IF_ERROR(pool.CheckPosition(blocks, at));
    if (InOnePiece(blocks, sequence.cells, pool.block_tokens()))
      sequence.pool_row = pool.RowOf(blocks, 0);
    sequence.cells = Padded(sequence.cells);
    sequence.mask_at = layout.mask_halves;
    layout.mask_halves += size_t{sequence.cells} * sequence.rows;
    if (sequence.pool_row != SequenceRows::kGather) continue;
    sequence.cells_at = layout.gathered_cells;
    layout.gathered_cells += sequence.cells;
  }
  return layout;
}

SlotInputs InputsOf(const KvPool& pool, const SlotLayout& layout,
                    absl::Span<const step::KvRow> rows) {
  SlotInputs inputs;
  inputs.mask.assign(layout.mask_halves, kHalfMinusInfinity);
  for (size_t i = 0; i < rows.size(); ++i) {
    inputs.positions.push_back(static_cast<int32_t>(rows[i].position));
    inputs.kv_rows.push_back(pool.RowOf(*rows[i].blocks, rows[i].position));
    inputs.order.push_back(static_cast<int64_t>(i));
  }
  for (const SequenceRows& sequence : layout.sequences) {
    const step::BlockTable& blocks = *rows[sequence.first].blocks;
    uint32_t last = 0;
    for (uint32_t i = 0; i < sequence.rows; ++i) {
      const uint32_t position = rows[sequence.first + i].position;
      last = std::max(last, position);
      const auto row = inputs.mask.begin() +
                       static_cast<ptrdiff_t>(sequence.mask_at + size_t{i} * sequence.cells);
      std::fill_n(row, position + 1, uint16_t{0});
    }
    if (sequence.pool_row != SequenceRows::kGather) continue;
    for (uint32_t cell = 0; cell < sequence.cells;
         ++cell)  // the padding is masked: any row will do
      inputs.cells.push_back(static_cast<int32_t>(pool.RowOf(blocks, std::min(cell, last))));
  }
  return inputs;
}

std::unique_ptr<GraphSet> BuildSlotAttention(const GraphParts& parts, const SlotLayout& layout,
                                             const DeviceRows& residual, const DeviceRows* ffn_out,
                                             uint32_t rows, uint32_t first, uint32_t last) {
  const auto sequences = static_cast<uint32_t>(layout.sequences.size());
  const uint32_t nodes = kMaxNodes + 18 * sequences;
  auto set = std::make_unique<GraphSet>(last - first, nodes);
  ggml_context* inputs = set->input_context.get();
  set->positions = ggml_new_tensor_1d(inputs, GGML_TYPE_I32, rows);
  set->kv_rows = ggml_new_tensor_1d(inputs, GGML_TYPE_I64, rows);
  set->mask = ggml_new_tensor_1d(inputs, GGML_TYPE_F16, static_cast<int64_t>(layout.mask_halves));
  if (sequences > 1) {
    set->order = ggml_new_tensor_1d(inputs, GGML_TYPE_I64, rows);
    set->attended = ggml_new_tensor_2d(inputs, GGML_TYPE_F32, parts.shape.hidden, rows);
  }
  if (layout.gathered_cells > 0) {
    set->cells =
        ggml_new_tensor_1d(inputs, GGML_TYPE_I32, static_cast<int64_t>(layout.gathered_cells));
  }
  for (uint32_t layer = first; layer < last; ++layer) {
    ggml_tensor* x = Sum(set->graph_context.get(), residual, ffn_out, rows);
    const Projected projected = Project(parts, *set, layer, x);
    ggml_tensor* attended = AttendAll(parts, *set, layout, projected);
    ggml_tensor* out = AddAttended(parts, *set, layer, attended, x);
    residual.Take(out);
    set->AddGraph(nodes, {}, out);
  }
  return set;
}

std::unique_ptr<GraphSet> BuildDeviceEmbed(const GraphParts& parts, const DeviceRows& residual,
                                           uint32_t rows) {
  auto set = BuildEmbedGraphs(parts, rows);
  residual.Take(set->outputs[0]);
  return set;
}

std::unique_ptr<GraphSet> BuildDeviceFfn(const GraphParts& parts, const DeviceRows& in,
                                         const DeviceRows& out, uint32_t rows) {
  const FfnShard& shard = parts.weights.shard();
  auto set = std::make_unique<GraphSet>(shard.last_layer - shard.first_layer, kMaxNodes);
  ggml_tensor* x = in.View(set->graph_context.get(), rows);
  for (uint32_t layer = shard.first_layer; layer < shard.last_layer; ++layer) {
    ggml_tensor* result = Ffn(parts, *set, layer, x);
    out.Take(result);
    set->AddGraph(kMaxNodes, {}, result);
  }
  return set;
}

std::unique_ptr<GraphSet> BuildDeviceHead(const GraphParts& parts, const DeviceRows& residual,
                                          const DeviceRows* ffn_out, uint32_t rows, uint32_t top) {
  auto set = std::make_unique<GraphSet>(1, kMaxNodes);
  ggml_context* c = set->graph_context.get();
  ggml_tensor* x = Sum(c, residual, ffn_out, rows);
  if (ffn_out != nullptr) residual.Take(x);
  ggml_tensor* logits = Logits(parts, *set, x);
  if (top == 0) {
    set->AddGraph(kMaxNodes, {}, logits);
    return set;
  }
  ggml_tensor* ids = ggml_top_k(c, logits, static_cast<int>(top));
  ggml_tensor* values = ggml_get_rows(c, ggml_reshape_3d(c, logits, 1, logits->ne[0], rows), ids);
  ggml_set_output(logits);
  ggml_set_output(ids);
  set->AddGraph(kMaxNodes, {}, values);
  set->outputs = {logits, ids, values};
  return set;
}

}  // namespace tandem::ggml_cpu
