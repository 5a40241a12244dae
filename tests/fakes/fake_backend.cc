#include "tests/fakes/fake_backend.h"

#include <utility>

#include "scheduler/base/status.h"
#include "workers/backend/synthetic/hash_chain.h"

namespace tandem::test {
namespace {

// Rows that only Read and Write reach.
class HiddenRows final : public Buffer {
 public:
  explicit HiddenRows(BufferRef rows) : rows_(std::move(rows)) {}
  float* host() override { return nullptr; }
  size_t bytes() const override { return rows_->bytes(); }
  void Read(size_t first, absl::Span<float> out) const override { rows_->Read(first, out); }
  void Write(size_t first, absl::Span<const float> in) override { rows_->Write(first, in); }
  Buffer& rows() const { return *rows_; }

 private:
  BufferRef rows_;
};

// As the synthetic backend made it.
Buffer& Shown(Buffer& buffer) {
  auto* const hidden = dynamic_cast<HiddenRows*>(&buffer);
  return hidden == nullptr ? buffer : hidden->rows();
}
const Buffer& Shown(const Buffer& buffer) { return Shown(const_cast<Buffer&>(buffer)); }
const Buffer* Shown(const Buffer* buffer) { return buffer == nullptr ? nullptr : &Shown(*buffer); }

TicketPtr Ended(absl::Status status) { return std::make_unique<DoneTicket>(std::move(status)); }

}  // namespace

FakeBackend::FakeBackend(const FakeOptions& options)
    : SyntheticBackend({.stages = options.stages,
                        .dimensions = options.dimensions,
                        .kv_blocks = options.kv_blocks,
                        .block_tokens = options.block_tokens,
                        .end_tokens = options.end_tokens,
                        .shard = options.shard}),
      hidden_rows_(options.hidden_rows) {}

absl::StatusOr<BufferRef> FakeBackend::AllocateRows(uint32_t rows) {
  ASSIGN_OR_RETURN(BufferRef shown, SyntheticBackend::AllocateRows(rows));
  if (!hidden_rows_) return shown;
  return std::make_shared<HiddenRows>(std::move(shown));
}

void FakeBackend::SetHook(Hook hook) {
  MutexLock lock(mu_);
  hook_ = std::move(hook);
}

absl::Status FakeBackend::Begin(FakeCallKind kind, uint32_t layer, size_t rows) {
  const FakeCall call{kind, layer, static_cast<uint32_t>(rows), calls_[static_cast<int>(kind)]++};
  Hook hook;
  {
    MutexLock lock(mu_);
    hook = hook_;
  }
  return hook ? hook(call) : absl::OkStatus();
}

TicketPtr FakeBackend::Embed(absl::Span<const TokenId> ids, Buffer& residual) {
  absl::Status status = Begin(FakeCallKind::kEmbed, 0, ids.size());
  return status.ok() ? SyntheticBackend::Embed(ids, Shown(residual)) : Ended(std::move(status));
}

TicketPtr FakeBackend::AttentionLayer(uint32_t layer, absl::Span<const step::KvRow> rows,
                                      Buffer& residual, const Buffer* ffn_out) {
  absl::Status status = Begin(FakeCallKind::kAttention, layer, rows.size());
  return status.ok()
             ? SyntheticBackend::AttentionLayer(layer, rows, Shown(residual), Shown(ffn_out))
             : Ended(std::move(status));
}

TicketPtr FakeBackend::FfnLayer(uint32_t layer, uint32_t rows, const Buffer& in, Buffer& out) {
  absl::Status status = Begin(FakeCallKind::kFfn, layer, rows);
  return status.ok() ? SyntheticBackend::FfnLayer(layer, rows, Shown(in), Shown(out))
                     : Ended(std::move(status));
}

TicketPtr FakeBackend::HeadAndSample(absl::Span<const step::SampleRow> rows, Buffer& residual,
                                     const Buffer* ffn_out,
                                     std::vector<step::SampledToken>& tokens) {
  absl::Status status = Begin(FakeCallKind::kHead, 0, rows.size());
  return status.ok()
             ? SyntheticBackend::HeadAndSample(rows, Shown(residual), Shown(ffn_out), tokens)
             : Ended(std::move(status));
}

absl::Status FakeBackend::ReadKv(uint32_t layer, const step::BlockTable& blocks, uint32_t first,
                                 uint32_t count, absl::Span<uint8_t> out) {
  RETURN_IF_ERROR(Begin(FakeCallKind::kReadKv, layer, count));
  return SyntheticBackend::ReadKv(layer, blocks, first, count, out);
}

absl::Status FakeBackend::WriteKv(uint32_t layer, const step::BlockTable& blocks, uint32_t first,
                                  uint32_t count, absl::Span<const uint8_t> in) {
  RETURN_IF_ERROR(Begin(FakeCallKind::kWriteKv, layer, count));
  return SyntheticBackend::WriteKv(layer, blocks, first, count, in);
}

absl::Status FakeBackend::CopyBlocks(absl::Span<const step::KvBook::BlockCopy> copies) {
  RETURN_IF_ERROR(Begin(FakeCallKind::kCopyBlocks, 0, copies.size()));
  return SyntheticBackend::CopyBlocks(copies);
}

std::vector<TokenId> ExpectedTokens(const ModelDimensions& dimensions,
                                    const std::vector<TokenId>& prompt, size_t count,
                                    const Sampling& sampling, uint64_t seed) {
  return synthetic::ReferenceTokens(dimensions, FakeOptions().block_tokens, prompt, count, sampling,
                                    seed);
}

}  // namespace tandem::test
