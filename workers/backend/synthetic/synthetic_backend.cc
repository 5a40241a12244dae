#include "workers/backend/synthetic/synthetic_backend.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "scheduler/base/check.h"
#include "scheduler/base/status.h"
#include "workers/backend/synthetic/hash_chain.h"

namespace tandem {
namespace {

class HostRowsBuffer final : public Buffer {
 public:
  explicit HostRowsBuffer(size_t floats) : rows_(floats) {}
  float* host() override { return rows_.data(); }
  size_t bytes() const override { return rows_.size() * sizeof(float); }

 private:
  std::vector<float> rows_;
};

TicketPtr Done(absl::Status status) { return std::make_unique<DoneTicket>(std::move(status)); }

// What V holds beside K, so that a damaged row is known.
uint64_t ValueOf(uint64_t key) { return synthetic::Fold(6, key); }

}  // namespace

SyntheticBackend::SyntheticBackend(SyntheticOptions options)
    : options_(std::move(options)), blocks_(options_.kv_blocks) {
  TANDEM_CHECK(options_.kv_row_bytes >= 16 && options_.kv_row_bytes % 2 == 0);
  TANDEM_CHECK(options_.block_tokens > 0 && options_.dimensions.hidden > 0);
  info_.name = "synthetic";
  info_.model_name = "hash-chain";
  info_.dimensions = options_.dimensions;
  if (options_.stages.contains(Stage::kPrefill)) info_.numerics.prefill = "synthetic";
  if (options_.stages.contains(Stage::kAttention)) info_.numerics.attention = "synthetic";
  if (options_.stages.contains(Stage::kFfn))
    info_.numerics.ffn = "synthetic/" + GeometryOf(options_.shard.columns);
  info_.shard = ResolveShard(options_.shard, options_.dimensions.layers);
  info_.kv_row_bytes = options_.kv_row_bytes;
  info_.end_tokens = options_.end_tokens;
}

absl::Status SyntheticBackend::NeedsStage(Stage stage) const {
  if (options_.stages.contains(Stage::kPrefill) || options_.stages.contains(stage))
    return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the synthetic backend holds no ", ToString(stage), " stage"));
}

absl::Status SyntheticBackend::NeedsLayer(uint32_t layer) const {
  if (layer < options_.dimensions.layers) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("layer ", layer, " of ", options_.dimensions.layers));
}

absl::StatusOr<BufferRef> SyntheticBackend::AllocateRows(uint32_t rows) {
  return BufferRef(std::make_shared<HostRowsBuffer>(size_t{rows} * options_.dimensions.hidden));
}

TicketPtr SyntheticBackend::Embed(absl::Span<const TokenId> ids, Buffer& residual) {
  absl::Status status = NeedsStage(Stage::kAttention);
  const uint32_t hidden = options_.dimensions.hidden;
  for (size_t i = 0; status.ok() && i < ids.size(); i++) {
    if (ids[i] >= options_.dimensions.vocabulary) {
      status = absl::InvalidArgumentError(
          absl::StrCat("token ", ids[i], " of ", options_.dimensions.vocabulary));
    } else {
      synthetic::Expand(synthetic::EmbedOf(ids[i]), residual.host() + i * hidden, hidden);
    }
  }
  return Done(std::move(status));
}

absl::StatusOr<SyntheticBackend::Block*> SyntheticBackend::BlockOf(uint32_t layer,
                                                                   const step::BlockTable& blocks,
                                                                   uint32_t position) {
  const size_t index = position / options_.block_tokens;
  if (layer >= options_.dimensions.layers || index >= blocks.size() ||
      blocks[index] >= options_.kv_blocks) {
    return absl::InvalidArgumentError(
        absl::StrCat("no KV cell for layer ", layer, " position ", position));
  }
  Block& block = blocks_[blocks[index]];
  if (block.empty()) {
    block.resize(size_t{options_.dimensions.layers} * options_.block_tokens, synthetic::kNoKv);
  }
  return &block;
}

uint64_t& SyntheticBackend::Cell(Block& block, uint32_t layer, uint32_t position) const {
  return block[size_t{layer} * options_.block_tokens + position % options_.block_tokens];
}

TicketPtr SyntheticBackend::AttentionLayer(uint32_t layer, absl::Span<const step::KvRow> rows,
                                           Buffer& residual, const Buffer* ffn_out) {
  absl::Status status = NeedsStage(Stage::kAttention);
  if (status.ok()) status = NeedsLayer(layer);
  if (status.ok()) status = Attend(layer, rows, residual, ffn_out);
  return Done(std::move(status));
}

void SyntheticBackend::Add(Buffer& residual, const Buffer* ffn_out, size_t rows) const {
  if (ffn_out == nullptr) return;
  const size_t floats = rows * options_.dimensions.hidden;
  for (size_t i = 0; i < floats; i++) residual.host()[i] += ffn_out->host()[i];
}

absl::Status SyntheticBackend::Attend(uint32_t layer, absl::Span<const step::KvRow> rows,
                                      Buffer& residual, const Buffer* ffn_out) {
  const uint32_t hidden = options_.dimensions.hidden;
  Add(residual, ffn_out, rows.size());
  // Rows of one sequence come in ascending position, so each finds the one before it.
  for (size_t i = 0; i < rows.size(); i++) {
    float* const row = residual.host() + i * hidden;
    ASSIGN_OR_RETURN(const uint64_t out,
                     AttendOne(layer, rows[i], synthetic::HashRow(row, hidden)));
    synthetic::Expand(out, row, hidden);
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> SyntheticBackend::AttendOne(uint32_t layer, const step::KvRow& row,
                                                     uint64_t h) {
  const uint32_t tokens = options_.block_tokens;
  uint64_t full_blocks = 0;
  uint64_t before = synthetic::kNoKv;
  for (uint32_t end = tokens; end <= row.position; end += tokens) {
    ASSIGN_OR_RETURN(Block* const block, BlockOf(layer, *row.blocks, end - 1));
    before = Cell(*block, layer, end - 1);
    full_blocks = synthetic::Fold(full_blocks, before);
  }
  ASSIGN_OR_RETURN(Block* const block, BlockOf(layer, *row.blocks, row.position));
  if (row.position % tokens != 0) before = Cell(*block, layer, row.position - 1);
  uint64_t& kv = Cell(*block, layer, row.position);
  kv = synthetic::KvOf(before, h, layer, row.position);
  return synthetic::AttentionOf(full_blocks, kv, h, layer, row.position);
}

TicketPtr SyntheticBackend::FfnLayer(uint32_t layer, uint32_t rows, const Buffer& in, Buffer& out) {
  absl::Status status = NeedsStage(Stage::kFfn);
  if (status.ok()) status = NeedsLayer(layer);
  if (status.ok() && !info_.shard.HoldsLayer(layer)) {
    status = absl::NotFoundError(absl::StrCat("layer ", layer, ": this shard holds ",
                                              ToString(info_.shard, options_.dimensions.layers)));
  }
  const uint32_t hidden = options_.dimensions.hidden;
  for (size_t i = 0; status.ok() && i < rows; i++) {
    const uint64_t h = synthetic::HashRow(in.host() + i * hidden, hidden);
    ComputePiece(synthetic::FfnOf(h, layer), out.host() + i * hidden);
  }
  return Done(std::move(status));
}

// All pieces but the last are rows of their own; the last is what the sum lacks. Whole numbers
// below 2^24, so every sum is exact.
void SyntheticBackend::ComputePiece(uint64_t hash, float* out) const {
  const FfnShard& shard = info_.shard;
  const uint32_t hidden = options_.dimensions.hidden;
  if (shard.columns == 1) return synthetic::Expand(hash, out, hidden);
  std::vector<float> piece(hidden);
  const auto expand_piece = [&](uint32_t column) {
    synthetic::Expand(synthetic::Fold(hash, column + 1), piece.data(), hidden);
    for (float& value : piece) value = std::floor(value / static_cast<float>(shard.columns));
  };
  if (shard.column + 1 < shard.columns) {
    expand_piece(shard.column);
    std::copy(piece.begin(), piece.end(), out);
    return;
  }
  synthetic::Expand(hash, out, hidden);
  for (uint32_t before = 0; before < shard.column; before++) {
    expand_piece(before);
    for (uint32_t i = 0; i < hidden; i++) out[i] -= piece[i];
  }
}

TicketPtr SyntheticBackend::HeadAndSample(absl::Span<const step::SampleRow> rows, Buffer& residual,
                                          const Buffer* ffn_out,
                                          std::vector<step::SampledToken>& tokens) {
  if (absl::Status status = NeedsStage(Stage::kAttention); !status.ok())
    return Done(std::move(status));
  const uint32_t hidden = options_.dimensions.hidden;
  Add(residual, ffn_out, rows.size());
  tokens.clear();
  for (size_t i = 0; i < rows.size(); i++) {
    const step::SampleRow& row = rows[i];
    if (row.emitted_ids->size() != row.output_position) {
      return Done(
          absl::InternalError(absl::StrCat("output position ", row.output_position, " after ",
                                           row.emitted_ids->size(), " emitted ids")));
    }
    const uint64_t h = synthetic::HashRow(residual.host() + i * hidden, hidden);
    const uint64_t draw =
        synthetic::DrawOf(h, row.sampling->temperature == 0, row.seed, row.output_position);
    step::SampledToken token;
    token.id = static_cast<TokenId>(draw % options_.dimensions.vocabulary);
    if (row.sampling->top_logprobs.has_value())
      token.logprob = -1.0f - static_cast<float>(token.id);
    tokens.push_back(std::move(token));
  }
  return Done(absl::OkStatus());
}

absl::Status SyntheticBackend::ReadKv(uint32_t layer, const step::BlockTable& blocks,
                                      uint32_t first, uint32_t count, absl::Span<uint8_t> out) {
  const size_t half = options_.kv_row_bytes / 2;
  if (out.size() != count * 2 * half)
    return absl::InvalidArgumentError(absl::StrCat(out.size(), " B for ", count, " rows"));
  for (uint32_t i = 0; i < count; i++) {
    ASSIGN_OR_RETURN(Block* const block, BlockOf(layer, blocks, first + i));
    const uint64_t key = Cell(*block, layer, first + i), value = ValueOf(key);
    std::memcpy(&out[i * half], &key, sizeof(key));
    std::memcpy(&out[(count + i) * half], &value, sizeof(value));
  }
  return absl::OkStatus();
}

absl::Status SyntheticBackend::WriteKv(uint32_t layer, const step::BlockTable& blocks,
                                       uint32_t first, uint32_t count,
                                       absl::Span<const uint8_t> in) {
  const size_t half = options_.kv_row_bytes / 2;
  if (in.size() != count * 2 * half)
    return absl::InvalidArgumentError(absl::StrCat(in.size(), " B for ", count, " rows"));
  for (uint32_t i = 0; i < count; i++) {
    ASSIGN_OR_RETURN(Block* const block, BlockOf(layer, blocks, first + i));
    uint64_t key = 0, value = 0;
    std::memcpy(&key, &in[i * half], sizeof(key));
    std::memcpy(&value, &in[(count + i) * half], sizeof(value));
    if (value != ValueOf(key)) {
      return absl::DataLossError(
          absl::StrCat("KV of layer ", layer, " position ", first + i, " was damaged"));
    }
    Cell(*block, layer, first + i) = key;
  }
  return absl::OkStatus();
}

absl::Status SyntheticBackend::CopyBlocks(absl::Span<const step::KvBook::BlockCopy> copies) {
  for (const step::KvBook::BlockCopy& copy : copies) {
    if (copy.from >= options_.kv_blocks || copy.to >= options_.kv_blocks) {
      return absl::InvalidArgumentError(
          absl::StrCat("block ", copy.from, " to ", copy.to, " of ", options_.kv_blocks));
    }
    blocks_[copy.to] = blocks_[copy.from];
  }
  return absl::OkStatus();
}

}  // namespace tandem
