#include "tests/fakes/fake_backend.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "scheduler/base/random.h"
#include "scheduler/base/status.h"

namespace tandem::test {
namespace {

constexpr uint64_t kEmbedSalt = 1, kKeySalt = 2, kValueSalt = 3, kAttentionSalt = 4, kFfnSalt = 5,
                   kTokenSalt = 6;

uint64_t Fold(uint64_t hash, uint64_t value) { return Mix64(hash ^ Mix64(value)); }

// [hidden] integers below 2^22: sums of two stay exact in F32.
void Expand(uint64_t hash, float* row, uint32_t hidden) {
  for (uint32_t i = 0; i < hidden; i++) row[i] = static_cast<float>(Mix64(hash + i) >> 42);
}

uint64_t HashRow(const float* row, uint32_t hidden) {
  uint64_t hash = 0;
  for (uint32_t i = 0; i < hidden; i++) {
    uint32_t bits = 0;
    std::memcpy(&bits, &row[i], sizeof(bits));
    hash = Fold(hash, bits);
  }
  return hash;
}

uint64_t KeyOf(uint64_t h, uint32_t layer, uint32_t position) {
  return Fold(Fold(Fold(kKeySalt, h), layer), position);
}
uint64_t ValueOf(uint64_t key) { return Fold(kValueSalt, key); }
uint64_t AttentionOf(uint64_t kv, uint64_t h, uint32_t layer, uint32_t position) {
  return Fold(Fold(Fold(Fold(kAttentionSalt, kv), h), layer), position);
}
uint64_t FfnOf(uint64_t h, uint32_t layer) { return Fold(Fold(kFfnSalt, h), layer); }
uint64_t DrawOf(uint64_t h, const Sampling& sampling, uint64_t seed, uint32_t output_position) {
  const uint64_t hash = Fold(kTokenSalt, h);
  return sampling.temperature == 0 ? hash : Fold(Fold(hash, seed), output_position);
}

class HostRowsBuffer final : public Buffer {
 public:
  explicit HostRowsBuffer(size_t floats) : rows_(floats) {}
  float* host() override { return rows_.data(); }
  size_t bytes() const override { return rows_.size() * sizeof(float); }

 private:
  std::vector<float> rows_;
};

TicketPtr Done(absl::Status status) { return std::make_unique<DoneTicket>(std::move(status)); }

void Add(Buffer& residual, const Buffer* ffn_out, size_t floats) {
  if (ffn_out == nullptr) return;
  for (size_t i = 0; i < floats; i++) residual.host()[i] += ffn_out->host()[i];
}

}  // namespace

FakeBackend::FakeBackend(FakeOptions options) : options_(std::move(options)) {
  const ModelDimensions& d = options_.dimensions;
  info_.name = "fake";
  info_.model_name = "hash-chain";
  info_.dimensions = d;
  if (options_.stages.contains(Stage::kPrefill)) info_.numerics.prefill = "hash";
  if (options_.stages.contains(Stage::kAttention)) info_.numerics.attention = "hash";
  if (options_.stages.contains(Stage::kFfn))
    info_.numerics.ffn = "hash/" + GeometryOf(options_.shard.columns);
  info_.shard = ResolveShard(options_.shard, d.layers);
  info_.kv_row_bytes = sizeof(Kv);
  info_.end_tokens = options_.end_tokens;
  kv_.resize(size_t{d.layers} * options_.kv_blocks * options_.block_tokens);
}

void FakeBackend::SetHook(Hook hook) {
  MutexLock lock(mu_);
  hook_ = std::move(hook);
}

absl::Status FakeBackend::Begin(FakeCallKind kind, uint32_t layer, uint32_t rows) {
  const FakeCall call{kind, layer, rows, calls_[static_cast<int>(kind)]++};
  Hook hook;
  {
    MutexLock lock(mu_);
    hook = hook_;
  }
  return hook ? hook(call) : absl::OkStatus();
}

absl::Status FakeBackend::NeedsStage(bool attention) const {
  const bool prefill = options_.stages.contains(Stage::kPrefill);
  if (prefill || options_.stages.contains(attention ? Stage::kAttention : Stage::kFfn))
    return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the fake holds no ", attention ? "attention" : "FFN", " stage"));
}

absl::StatusOr<BufferRef> FakeBackend::AllocateRows(uint32_t rows) {
  return BufferRef(std::make_shared<HostRowsBuffer>(size_t{rows} * options_.dimensions.hidden));
}

TicketPtr FakeBackend::Embed(absl::Span<const TokenId> ids, Buffer& residual) {
  absl::Status status = NeedsStage(/*attention=*/true);
  if (status.ok()) status = Begin(FakeCallKind::kEmbed, 0, static_cast<uint32_t>(ids.size()));
  const uint32_t hidden = options_.dimensions.hidden;
  for (size_t i = 0; status.ok() && i < ids.size(); i++) {
    if (ids[i] >= options_.dimensions.vocabulary) {
      status = absl::InvalidArgumentError(
          absl::StrCat("token ", ids[i], " of ", options_.dimensions.vocabulary));
    } else {
      Expand(Fold(kEmbedSalt, ids[i]), residual.host() + i * hidden, hidden);
    }
  }
  return Done(std::move(status));
}

absl::StatusOr<FakeBackend::Kv*> FakeBackend::Cell(uint32_t layer, const step::BlockTable& blocks,
                                                   uint32_t position) {
  const size_t index = position / options_.block_tokens;
  if (layer >= options_.dimensions.layers || index >= blocks.size() ||
      blocks[index] >= options_.kv_blocks) {
    return absl::InvalidArgumentError(
        absl::StrCat("no KV cell for layer ", layer, " position ", position));
  }
  const size_t block = size_t{layer} * options_.kv_blocks + blocks[index];
  return &kv_[block * options_.block_tokens + position % options_.block_tokens];
}

TicketPtr FakeBackend::AttentionLayer(uint32_t layer, absl::Span<const step::KvRow> rows,
                                      Buffer& residual, const Buffer* ffn_out) {
  absl::Status status = NeedsStage(/*attention=*/true);
  if (status.ok())
    status = Begin(FakeCallKind::kAttention, layer, static_cast<uint32_t>(rows.size()));
  if (status.ok()) status = Attend(layer, rows, residual, ffn_out);
  return Done(std::move(status));
}

absl::Status FakeBackend::Attend(uint32_t layer, absl::Span<const step::KvRow> rows,
                                 Buffer& residual, const Buffer* ffn_out) {
  const uint32_t hidden = options_.dimensions.hidden;
  Add(residual, ffn_out, rows.size() * hidden);
  for (size_t i = 0; i < rows.size(); i++) {
    ASSIGN_OR_RETURN(Kv* const cell, Cell(layer, *rows[i].blocks, rows[i].position));
    cell->k = KeyOf(HashRow(residual.host() + i * hidden, hidden), layer, rows[i].position);
    cell->v = ValueOf(cell->k);
  }
  for (size_t i = 0; i < rows.size(); i++) {
    float* const row = residual.host() + i * hidden;
    uint64_t kv = 0;
    for (uint32_t position = 0; position <= rows[i].position; position++) {
      ASSIGN_OR_RETURN(const Kv* const cell, Cell(layer, *rows[i].blocks, position));
      kv = Fold(Fold(kv, cell->k), cell->v);
    }
    Expand(AttentionOf(kv, HashRow(row, hidden), layer, rows[i].position), row, hidden);
  }
  return absl::OkStatus();
}

TicketPtr FakeBackend::FfnLayer(uint32_t layer, uint32_t rows, const Buffer& in, Buffer& out) {
  absl::Status status = NeedsStage(/*attention=*/false);
  if (status.ok() && layer >= options_.dimensions.layers) {
    status = absl::InvalidArgumentError(
        absl::StrCat("layer ", layer, " of ", options_.dimensions.layers));
  }
  if (status.ok() && !info_.shard.HoldsLayer(layer)) {
    status = absl::NotFoundError(absl::StrCat("layer ", layer, ": this shard holds ",
                                              ToString(info_.shard, options_.dimensions.layers)));
  }
  if (status.ok()) status = Begin(FakeCallKind::kFfn, layer, rows);
  const uint32_t hidden = options_.dimensions.hidden;
  for (size_t i = 0; status.ok() && i < rows; i++) {
    ComputePiece(FfnOf(HashRow(in.host() + i * hidden, hidden), layer), out.host() + i * hidden);
  }
  return Done(std::move(status));
}

// All pieces but the last are rows of their own; the last is what the sum lacks. Integers below
// 2^24, so every sum is exact.
void FakeBackend::ComputePiece(uint64_t hash, float* out) const {
  const FfnShard& shard = info_.shard;
  const uint32_t hidden = options_.dimensions.hidden;
  std::vector<float> piece(hidden);
  const auto expand_piece = [&](uint32_t column) {
    Expand(Fold(hash, column + 1), piece.data(), hidden);
    for (float& value : piece) value = std::floor(value / static_cast<float>(shard.columns));
  };
  if (shard.column + 1 < shard.columns) {
    expand_piece(shard.column);
    std::copy(piece.begin(), piece.end(), out);
    return;
  }
  Expand(hash, out, hidden);
  for (uint32_t before = 0; before < shard.column; before++) {
    expand_piece(before);
    for (uint32_t i = 0; i < hidden; i++) out[i] -= piece[i];
  }
}

TicketPtr FakeBackend::HeadAndSample(absl::Span<const step::SampleRow> rows, Buffer& residual,
                                     const Buffer* ffn_out,
                                     std::vector<step::SampledToken>& tokens) {
  absl::Status status = NeedsStage(/*attention=*/true);
  if (status.ok()) status = Begin(FakeCallKind::kHead, 0, static_cast<uint32_t>(rows.size()));
  if (!status.ok()) return Done(std::move(status));
  const uint32_t hidden = options_.dimensions.hidden;
  Add(residual, ffn_out, rows.size() * hidden);
  tokens.clear();
  for (size_t i = 0; i < rows.size(); i++) {
    const step::SampleRow& row = rows[i];
    if (row.emitted_ids->size() != row.output_position) {
      return Done(
          absl::InternalError(absl::StrCat("output position ", row.output_position, " after ",
                                           row.emitted_ids->size(), " emitted ids")));
    }
    const uint64_t draw = DrawOf(HashRow(residual.host() + i * hidden, hidden), *row.sampling,
                                 row.seed, row.output_position);
    step::SampledToken token;
    token.id = static_cast<TokenId>(draw % options_.dimensions.vocabulary);
    if (row.sampling->top_logprobs.has_value())
      token.logprob = -1.0f - static_cast<float>(token.id);
    tokens.push_back(std::move(token));
  }
  return Done(absl::OkStatus());
}

absl::Status FakeBackend::ReadKv(uint32_t layer, const step::BlockTable& blocks, uint32_t first,
                                 uint32_t count, absl::Span<uint8_t> out) {
  RETURN_IF_ERROR(Begin(FakeCallKind::kReadKv, layer, count));
  if (out.size() != count * sizeof(Kv))
    return absl::InvalidArgumentError(absl::StrCat(out.size(), " B for ", count, " rows"));
  for (uint32_t i = 0; i < count; i++) {
    ASSIGN_OR_RETURN(const Kv* const cell, Cell(layer, blocks, first + i));
    std::memcpy(&out[i * sizeof(uint64_t)], &cell->k, sizeof(uint64_t));
    std::memcpy(&out[(count + i) * sizeof(uint64_t)], &cell->v, sizeof(uint64_t));
  }
  return absl::OkStatus();
}

absl::Status FakeBackend::WriteKv(uint32_t layer, const step::BlockTable& blocks, uint32_t first,
                                  uint32_t count, absl::Span<const uint8_t> in) {
  RETURN_IF_ERROR(Begin(FakeCallKind::kWriteKv, layer, count));
  if (in.size() != count * sizeof(Kv))
    return absl::InvalidArgumentError(absl::StrCat(in.size(), " B for ", count, " rows"));
  for (uint32_t i = 0; i < count; i++) {
    ASSIGN_OR_RETURN(Kv* const cell, Cell(layer, blocks, first + i));
    std::memcpy(&cell->k, &in[i * sizeof(uint64_t)], sizeof(uint64_t));
    std::memcpy(&cell->v, &in[(count + i) * sizeof(uint64_t)], sizeof(uint64_t));
  }
  return absl::OkStatus();
}

absl::Status FakeBackend::CopyBlocks(absl::Span<const step::KvBook::BlockCopy> copies) {
  RETURN_IF_ERROR(Begin(FakeCallKind::kCopyBlocks, 0, static_cast<uint32_t>(copies.size())));
  for (const step::KvBook::BlockCopy& copy : copies) {
    if (copy.from >= options_.kv_blocks || copy.to >= options_.kv_blocks) {
      return absl::InvalidArgumentError(
          absl::StrCat("block ", copy.from, " to ", copy.to, " of ", options_.kv_blocks));
    }
    for (uint32_t layer = 0; layer < options_.dimensions.layers; layer++) {
      const size_t base = size_t{layer} * options_.kv_blocks;
      std::copy_n(&kv_[(base + copy.from) * options_.block_tokens], options_.block_tokens,
                  &kv_[(base + copy.to) * options_.block_tokens]);
    }
  }
  return absl::OkStatus();
}

std::vector<TokenId> ExpectedTokens(const ModelDimensions& d, const std::vector<TokenId>& prompt,
                                    size_t count, const Sampling& sampling, uint64_t seed) {
  std::vector<TokenId> tokens;
  std::vector<TokenId> ids = prompt;
  std::vector<uint64_t> kv(d.layers);  // folded over the positions so far
  std::vector<float> residual(d.hidden), ffn(d.hidden);
  for (uint32_t position = 0; tokens.size() < count; position++) {
    Expand(Fold(kEmbedSalt, ids[position]), residual.data(), d.hidden);
    for (uint32_t layer = 0; layer < d.layers; layer++) {
      const uint64_t h = HashRow(residual.data(), d.hidden);
      const uint64_t key = KeyOf(h, layer, position);
      kv[layer] = Fold(Fold(kv[layer], key), ValueOf(key));
      Expand(AttentionOf(kv[layer], h, layer, position), residual.data(), d.hidden);
      Expand(FfnOf(HashRow(residual.data(), d.hidden), layer), ffn.data(), d.hidden);
      for (uint32_t i = 0; i < d.hidden; i++) residual[i] += ffn[i];
    }
    if (position + 1 < ids.size()) continue;
    const uint64_t draw = DrawOf(HashRow(residual.data(), d.hidden), sampling, seed,
                                 static_cast<uint32_t>(tokens.size()));
    tokens.push_back(static_cast<TokenId>(draw % d.vocabulary));
    ids.push_back(tokens.back());
  }
  return tokens;
}

}  // namespace tandem::test
