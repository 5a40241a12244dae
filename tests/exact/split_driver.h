#pragma once

// Drives StageBackends as an engine would, step by step and on one thread: chunked prefill on one
// backend, its KV moved to another, decode steps whose FFN a third computes. For tests and
// benchmarks; one backend may play several parts.

#include <absl/status/status.h>
#include <absl/types/span.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "scheduler/step/types.h"
#include "workers/backend/stage_backend.h"

namespace tandem::exact {

// Who computes what. `prefill` may be `attention`: then no KV moves; `ffn` likewise: then no rows
// are copied.
struct Parts {
  StageBackend* prefill = nullptr;
  StageBackend* attention = nullptr;
  StageBackend* ffn = nullptr;
  // Instead of `ffn`: the holders of each layer are those of these that hold it, in shard order.
  std::vector<StageBackend*> shards = {};
};

// Faults that a comparison must see.
enum class Fault {
  kNone,
  kSwapRows,  // the FFN's first two rows of layer 3 come back in each other's place, in every step
  kDropKvBlock,  // the first KV block of the first sequence is zeroed after its prefill, on every
                 // layer
  kLeaveOutPartial,  // of a layer cut by columns, the last piece's is not added
  kArrivalOrder,     // its pieces are added in the order of an arrival: 1, 2, ..., 0
  kRopeOffByOne,     // each cached K of the first sequence is rotated as if one position later
};

struct Sequence {
  std::vector<TokenId> prompt_ids;
  uint32_t max_tokens = 0;
  Sampling sampling;  // greedy unless set
  uint64_t seed = 0;

  std::vector<TokenId> ids;   // generated
  std::vector<float> logits;  // [ids, vocabulary], when the driver is given a LogitsOf
  step::BlockTable blocks;    // on the attention backend
};

// The logits [rows, vocabulary] of the last HeadAndSample; the span lives until the next call.
using LogitsOf = std::function<absl::Span<const float>()>;

class SplitDriver {
 public:
  struct KvSize {
    uint32_t blocks = 0, block_tokens = 0;
  };
  // `kv_blocks` of `block_tokens` on both prefill and attention backend, handed out in a shuffled
  // order; or others on the prefill backend.
  SplitDriver(const Parts& parts, uint32_t kv_blocks, uint32_t block_tokens, uint64_t seed,
              std::optional<KvSize> prefill_kv = std::nullopt);

  void set_fault(Fault fault) { fault_ = fault; }
  void set_logits(LogitsOf logits) { logits_ = std::move(logits); }

  // Positions 0 to p-2 of the prompt, in chunks; `first`: a fault in KV hits this sequence.
  absl::Status Prefill(Sequence& sequence, uint32_t chunk, bool first = false);
  // One token more for each.
  absl::Status Step(absl::Span<Sequence* const> batch);
  void Release(Sequence& sequence);

  // Continuous batching: a sequence joins every `join_every` steps while fewer than `max_batch`
  // run, and leaves at max_tokens or an end token.
  absl::Status Run(std::vector<Sequence>& sequences, uint32_t chunk, uint32_t max_batch,
                   uint32_t join_every);

 private:
  struct Rows {
    BufferRef residual, ffn_out;  // attention side
    BufferRef ffn_in, ffn_back;   // FFN side; unused when it is the same backend
    uint32_t capacity = 0;
  };
  static absl::Status Reserve(StageBackend& attention, StageBackend& ffn, uint32_t count,
                              Rows& rows);
  absl::Status Layers(StageBackend& attention, StageBackend& ffn,
                      absl::Span<const step::KvRow> rows, Rows& memory);
  absl::Status CallFfn(StageBackend& attention, StageBackend& ffn, uint32_t layer, uint32_t rows,
                       Rows& memory);
  absl::Status CallShards(uint32_t layer, uint32_t rows, Rows& memory);
  StageBackend& FfnSide() { return parts_.shards.empty() ? *parts_.ffn : *parts_.shards.front(); }
  absl::Status MoveKv(const step::BlockTable& from, Sequence& sequence, uint32_t positions);
  absl::Status DamageKv(Sequence& sequence, uint32_t positions);
  static absl::Status Take(std::vector<uint32_t>& free, uint32_t block_tokens, uint64_t tokens,
                           step::BlockTable& table);

  Parts parts_;
  uint32_t block_tokens_, prefill_block_tokens_;
  std::vector<uint32_t> free_prefill_, free_attention_;
  Rows rows_, prefill_rows_;  // the latter of a prefill backend of its own
  Fault fault_ = Fault::kNone;
  LogitsOf logits_;
};

// Copies the first `rows` rows of the model's width.
void CopyRows(const StageBackend& backend, uint32_t rows, const Buffer& from, Buffer& to);

// The rotation that kRopeOffByOne applies: K rows [count, kv_heads, head_dim] F16 by `positions`
// positions, adjacent pairs. By 0 it changes nothing.
void RotateKeys(absl::Span<uint8_t> keys, uint32_t head_dim, float rope_base, int positions);

}  // namespace tandem::exact
