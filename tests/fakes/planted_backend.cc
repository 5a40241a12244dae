#include "tests/fakes/planted_backend.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include "scheduler/base/status.h"

namespace tandem::test {
namespace {

using Fault = BackendFault;

constexpr ModelDimensions kDimensions{/*layers=*/3,          /*hidden=*/4,
                                      /*kv_heads=*/1,
                                      /*head_dim=*/4,        /*vocabulary=*/1000,
                                      /*context_tokens=*/256};

uint32_t NextNumber() {
  static std::atomic<uint32_t> number = 0;
  return number++;
}

TicketPtr Done(absl::Status status) { return std::make_unique<DoneTicket>(std::move(status)); }

// Keeps only the first float of each write.
class ForgetfulBuffer final : public Buffer {
 public:
  explicit ForgetfulBuffer(BufferRef rows) : rows_(std::move(rows)) {}
  float* host() override { return rows_->host(); }
  size_t bytes() const override { return rows_->bytes(); }
  void Write(size_t first, absl::Span<const float> in) override {
    if (first == 0) rows_->Write(first, in);
  }

 private:
  const BufferRef rows_;
};

}  // namespace

const std::vector<NamedBackendFault>& BackendFaults() {
  static const std::vector<NamedBackendFault> faults = {
      {"none", Fault::kNone},
      {"no_name", Fault::kNoName},
      {"other_class_each_time", Fault::kOtherClassEachTime},
      {"class_of_a_stage_it_has_not", Fault::kClassOfAStageItHasNot},
      {"other_bits_each_time", Fault::kOtherBitsEachTime},
      {"batch_dependent", Fault::kBatchDependent},
      {"place_dependent", Fault::kPlaceDependent},
      {"chunk_dependent", Fault::kChunkDependent},
      {"one_row_for_all", Fault::kOneRowForAll},
      {"forgets_first_token", Fault::kForgetsFirstToken},
      {"ignores_ffn_out", Fault::kIgnoresFfnOut},
      {"spoils_input", Fault::kSpoilsInput},
      {"writes_for_zero_rows", Fault::kWritesForZeroRows},
      {"buffers_forget", Fault::kBuffersForget},
      {"kv_reversed", Fault::kKvReversed},
      {"copies_nothing", Fault::kCopiesNothing},
      {"keeps_old_kv", Fault::kKeepsOldKv},
      {"token_of_the_batch", Fault::kTokenOfTheBatch},
      {"token_of_logprobs", Fault::kTokenOfLogprobs},
      {"takes_any_token", Fault::kTakesAnyToken},
      {"takes_any_layer", Fault::kTakesAnyLayer},
      {"takes_any_stage", Fault::kTakesAnyStage},
      {"shard_holds_all", Fault::kShardHoldsAll},
      {"piece_is_the_whole", Fault::kPieceIsTheWhole},
      {"takes_any_shard", Fault::kTakesAnyShard},
  };
  return faults;
}

PlantedBackend::PlantedBackend(const SyntheticOptions& options, BackendFault fault)
    : SyntheticBackend(options),
      fault_(fault),
      number_(NextNumber()),
      info_(SyntheticBackend::info()) {
  if (Is(Fault::kNoName)) info_.name.clear();
  if (Is(Fault::kOtherClassEachTime)) absl::StrAppend(&info_.numerics.attention, number_);
  if (Is(Fault::kClassOfAStageItHasNot)) info_.numerics.prefill = "synthetic";
}

std::unique_ptr<StageBackend> PlantedBackend::Make(BackendFault fault, std::set<Stage> stages,
                                                   uint32_t kv_blocks, uint32_t block_tokens) {
  SyntheticOptions options;
  options.dimensions = kDimensions;
  options.kv_blocks = stages == std::set<Stage>{Stage::kFfn} ? 0 : kv_blocks;
  options.block_tokens = block_tokens;
  options.stages = std::move(stages);
  return std::make_unique<PlantedBackend>(options, fault);
}

absl::StatusOr<std::unique_ptr<StageBackend>> PlantedBackend::MakeShard(
    BackendFault fault, const ShardRequest& request) {
  SyntheticOptions options;
  options.stages = {Stage::kFfn};
  options.dimensions = kDimensions;
  const absl::StatusOr<FfnShard> shard = ResolveRequest(request, kDimensions.layers);
  if (!shard.ok() && fault != Fault::kTakesAnyShard) return shard.status();
  if (shard.ok()) options.shard = *shard;
  auto backend = std::make_unique<PlantedBackend>(options, fault);
  return backend;
}

absl::StatusOr<BufferRef> PlantedBackend::AllocateRows(uint32_t rows) {
  ASSIGN_OR_RETURN(BufferRef buffer, SyntheticBackend::AllocateRows(rows));
  if (!Is(Fault::kBuffersForget)) return buffer;
  return std::make_shared<ForgetfulBuffer>(std::move(buffer));
}

TicketPtr PlantedBackend::Embed(absl::Span<const TokenId> ids, Buffer& residual) {
  if (Is(Fault::kTakesAnyStage) && info_.numerics.attention.empty()) return Done(absl::OkStatus());
  std::vector<TokenId> taken(ids.begin(), ids.end());
  if (Is(Fault::kTakesAnyToken))
    for (TokenId& id : taken) id %= info_.dimensions.vocabulary;
  return SyntheticBackend::Embed(taken, residual);
}

absl::Status PlantedBackend::KeepingOldKv(uint32_t layer, absl::Span<const step::KvRow> rows,
                                          const std::function<absl::Status()>& attend) {
  std::vector<std::pair<const step::KvRow*, std::vector<uint8_t>>> old;
  for (const step::KvRow& row : rows) {
    std::vector<uint8_t> kv(info_.kv_row_bytes);
    if (ReadKv(layer, *row.blocks, row.position, 1, absl::MakeSpan(kv)).ok())
      old.emplace_back(&row, std::move(kv));
  }
  RETURN_IF_ERROR(attend());
  for (const auto& [row, kv] : old) {
    const bool written = std::any_of(kv.begin(), kv.end(), [](uint8_t byte) { return byte != 0; });
    if (written) RETURN_IF_ERROR(WriteKv(layer, *row->blocks, row->position, 1, kv));
  }
  return absl::OkStatus();
}

TicketPtr PlantedBackend::AttentionLayer(uint32_t layer, absl::Span<const step::KvRow> rows,
                                         Buffer& residual, const Buffer* ffn_out) {
  const size_t hidden = info_.dimensions.hidden;
  if (Is(Fault::kForgetsFirstToken)) {
    for (size_t i = 0; i < rows.size(); ++i) {
      if (rows[i].position == 0) residual.Write(i * hidden, std::vector<float>(hidden, 0.0f));
    }
  }
  if (Is(Fault::kIgnoresFfnOut)) ffn_out = nullptr;
  const auto attend = [&] {
    return SyntheticBackend::AttentionLayer(layer, rows, residual, ffn_out)->Wait();
  };
  absl::Status status = Is(Fault::kKeepsOldKv) ? KeepingOldKv(layer, rows, attend) : attend();
  if (Is(Fault::kChunkDependent) && status.ok() && !rows.empty())
    residual.host()[(rows.size() - 1) * hidden] += static_cast<float>(rows.size());
  return Done(std::move(status));
}

absl::Status PlantedBackend::SpoilFfn(uint32_t rows, const Buffer& in, Buffer& out) const {
  const size_t hidden = info_.dimensions.hidden;
  float* const data = out.host();
  for (uint32_t row = 0; row < rows; ++row) {
    float& first = data[row * hidden];
    if (Is(Fault::kOtherBitsEachTime)) first += static_cast<float>(number_ + 1);
    if (Is(Fault::kBatchDependent)) first += static_cast<float>(rows);
    if (Is(Fault::kPlaceDependent)) first += static_cast<float>(row);
    if (Is(Fault::kOneRowForAll)) std::copy_n(data, hidden, data + row * hidden);
  }
  if (Is(Fault::kSpoilsInput)) const_cast<Buffer&>(in).Write(0, std::vector<float>{1.5f});
  return absl::OkStatus();
}

TicketPtr PlantedBackend::FfnLayer(uint32_t layer, uint32_t rows, const Buffer& in, Buffer& out) {
  const uint32_t layers = info_.dimensions.layers;
  if (rows == 0 && Is(Fault::kWritesForZeroRows)) out.Write(0, std::vector<float>{0.0f});
  if (Is(Fault::kTakesAnyLayer)) layer %= layers;
  if (Is(Fault::kShardHoldsAll) && !info_.shard.HoldsLayer(layer)) return Done(absl::OkStatus());
  if (Is(Fault::kPieceIsTheWhole) && info_.shard.columns > 1) {
    return Make(Fault::kNone, {Stage::kFfn}, 0, 16)->FfnLayer(layer, rows, in, out);
  }
  absl::Status status = SyntheticBackend::FfnLayer(layer, rows, in, out)->Wait();
  if (status.ok()) status = SpoilFfn(rows, in, out);
  return Done(std::move(status));
}

TicketPtr PlantedBackend::HeadAndSample(absl::Span<const step::SampleRow> rows, Buffer& residual,
                                        const Buffer* ffn_out,
                                        std::vector<step::SampledToken>& tokens) {
  absl::Status status = SyntheticBackend::HeadAndSample(rows, residual, ffn_out, tokens)->Wait();
  for (size_t i = 0; i < tokens.size(); ++i) {
    uint32_t further = 0;
    if (Is(Fault::kTokenOfTheBatch)) further = static_cast<uint32_t>(rows.size()) - 1;
    if (Is(Fault::kTokenOfLogprobs) && rows[i].sampling->top_logprobs > 0) further = 1;
    tokens[i].id = (tokens[i].id + further) % info_.dimensions.vocabulary;
  }
  return Done(std::move(status));
}

absl::Status PlantedBackend::ReadKv(uint32_t layer, const step::BlockTable& blocks, uint32_t first,
                                    uint32_t count, absl::Span<uint8_t> out) {
  if (!Is(Fault::kKvReversed)) return SyntheticBackend::ReadKv(layer, blocks, first, count, out);
  for (uint32_t i = 0; i < count; ++i) {  // each row by itself, from the last
    RETURN_IF_ERROR(
        SyntheticBackend::ReadKv(layer, blocks, first + count - 1 - i, 1,
                                 out.subspan(i * info_.kv_row_bytes, info_.kv_row_bytes)));
  }
  return absl::OkStatus();
}

absl::Status PlantedBackend::CopyBlocks(absl::Span<const step::KvBook::BlockCopy> copies) {
  if (Is(Fault::kCopiesNothing)) return absl::OkStatus();
  return SyntheticBackend::CopyBlocks(copies);
}

}  // namespace tandem::test
