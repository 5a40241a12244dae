#pragma once

// The one interface that a device implements: load a shard, then embed, attention layer, FFN layer,
// head, sample.
//
// Shapes: a row is one token's hidden state, F32 [hidden]. Buffers hold [rows, hidden], row-major,
// contiguous. Calls return a ticket; the buffers they name must live, and not be touched, until it
// is done. One thread calls a backend (the device's); calls of one backend run in the order they
// were made.

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/types/span.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "scheduler/step/kv_book.h"
#include "scheduler/step/types.h"
#include "scheduler/view/worker.h"
#include "workers/backend/device_timeline.h"

namespace tandem {

// Memory that the backend allocated for rows. `host` is null where the host cannot address it; Read
// and Write copy, from and to any memory, once.
class Buffer {
 public:
  virtual ~Buffer() = default;
  virtual float* host() = 0;
  const float* host() const { return const_cast<Buffer*>(this)->host(); }
  virtual size_t bytes() const = 0;
  // Floats [first, first + size). No call that names the buffer is in flight; by the device's
  // thread.
  virtual void Read(size_t first, absl::Span<float> out) const {
    if (!out.empty()) std::memcpy(out.data(), host() + first, out.size() * sizeof(float));
  }
  virtual void Write(size_t first, absl::Span<const float> in) {
    if (!in.empty()) std::memcpy(host() + first, in.data(), in.size() * sizeof(float));
  }
};
using BufferRef = std::shared_ptr<Buffer>;

// A call in flight. Wait returns its outcome, and is called once.
class Ticket {
 public:
  virtual ~Ticket() = default;
  virtual absl::Status Wait() = 0;
};
using TicketPtr = std::unique_ptr<Ticket>;

// A ticket of work that is done: what a synchronous backend returns.
class DoneTicket final : public Ticket {
 public:
  explicit DoneTicket(absl::Status status) : status_(std::move(status)) {}
  absl::Status Wait() override { return status_; }

 private:
  absl::Status status_;
};

// What a worker loaded and how it computes.
struct BackendInfo {
  std::string name;        // "ggml-cpu"
  std::string model_name;  // from the file's metadata; may be empty
  ModelDimensions dimensions;
  NumericsClass numerics;        // parts of the loaded stages only
  FfnShard shard;                // of the FFN, resolved: last_layer is a number
  uint64_t attention_bytes = 0;  // of loaded tensors, by stage
  uint64_t ffn_bytes = 0;
  uint64_t head_bytes = 0;          // token embedding, final norm, output matrix
  uint64_t kv_row_bytes = 0;        // K and V of one position and layer
  uint32_t heads = 0, ffn = 0;      // of a real model: query heads, width of the whole FFN
  bool tied_embeddings = false;     // likewise: one matrix is both embedding and head
  std::vector<TokenId> end_tokens;  // end-of-generation ids
};

class StageBackend {
 public:
  virtual ~StageBackend() = default;
  virtual const BackendInfo& info() const = 0;

  // A buffer for `rows` rows. kResourceExhausted when the device has no memory.
  virtual absl::StatusOr<BufferRef> AllocateRows(uint32_t rows) = 0;

  // residual[i] = embedding of ids[i]. Needs the attention or prefill stage.
  virtual TicketPtr Embed(absl::Span<const TokenId> ids, Buffer& residual) = 0;

  // residual += ffn_out (unless null), then residual += attention of the layer. Writes K and V of
  // each row at its position first, so rows of one sequence see each other causally.
  //   rows      [n]           ascending positions within a sequence
  //   residual  [n, hidden]   in and out
  //   ffn_out   [n, hidden]   the layer before's FFN output, or null
  virtual TicketPtr AttentionLayer(uint32_t layer, absl::Span<const step::KvRow> rows,
                                   Buffer& residual, const Buffer* ffn_out) = 0;

  // out = FFN(ffn_norm(in)) of the layer, without the residual. A piece of a cut of columns gives
  // its partial, as wide as the whole: the pieces' sum, added in shard order, is the FFN. `in` and
  // `out` may not be the same. kNotFound: a layer that the shard does not hold; the message names
  // both.
  virtual TicketPtr FfnLayer(uint32_t layer, uint32_t rows, const Buffer& in, Buffer& out) = 0;

  // residual += ffn_out, then draws a token for each row: logits stay on the device.
  //   tokens  [n]  out; valid when the ticket is done
  virtual TicketPtr HeadAndSample(absl::Span<const step::SampleRow> rows, Buffer& residual,
                                  const Buffer* ffn_out,
                                  std::vector<step::SampledToken>& tokens) = 0;

  // KV rows of one layer as raw bytes: K [count, kv_heads, head_dim], then V. Positions [first,
  // first + count).
  virtual absl::Status ReadKv(uint32_t layer, const step::BlockTable& blocks, uint32_t first,
                              uint32_t count, absl::Span<uint8_t> out) = 0;
  virtual absl::Status WriteKv(uint32_t layer, const step::BlockTable& blocks, uint32_t first,
                               uint32_t count, absl::Span<const uint8_t> in) = 0;
  // Whole blocks, all layers.
  virtual absl::Status CopyBlocks(absl::Span<const step::KvBook::BlockCopy> copies) = 0;

  // Of a device whose time is emulated; null: its time is the machine's.
  virtual DeviceTimeline* timeline() { return nullptr; }
};

// What to load.
struct ShardSpec {
  std::string model_path;
  std::set<Stage> stages;  // prefill needs every tensor
  uint32_t kv_blocks = 0;  // of the KV cache; 0 for an FFN worker
  uint32_t block_tokens = 16;
  uint32_t threads = 1;  // compute threads
  ShardRequest shard{};  // of the FFN; other than whole with the ffn stage alone
  std::string device{};  // of backends that have several; empty: cpu
};

}  // namespace tandem
