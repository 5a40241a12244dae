#pragma once

// A backend that keeps every promise of stage_backend.h but one: what the conformance suite must
// catch. Computes the synthetic backend's hash chain.

#include <absl/strings/string_view.h>

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "workers/backend/synthetic/synthetic_backend.h"

namespace tandem::test {

enum class BackendFault {
  kNone,
  // Of what it says about itself.
  kNoName,
  kOtherClassEachTime,
  kClassOfAStageItHasNot,
  // Of its rows.
  kOtherBitsEachTime,  // each instance's own, under one class
  kBatchDependent,     // the number of rows shows
  kPlaceDependent,     // so does a row's place
  kChunkDependent,     // of the rows of an attention call, the number shows
  kOneRowForAll,       // every row gets the first one's result
  kForgetsFirstToken,  // it has no effect
  kIgnoresFfnOut,      // attention does not add it
  kSpoilsInput,        // the FFN writes to its input
  kWritesForZeroRows,  // a call of no rows writes one
  kBuffersForget,      // of a write past the first float, nothing is kept
  // Of its KV.
  kKvReversed,  // several rows are read in the wrong order
  kCopiesNothing,
  kKeepsOldKv,  // what another sequence left in a block is not overwritten
  // Of its tokens.
  kTokenOfTheBatch,
  kTokenOfLogprobs,  // asking for logprobs draws another
  // Of what it refuses.
  kTakesAnyToken,
  kTakesAnyLayer,
  kTakesAnyStage,
  // Of shards.
  kShardHoldsAll,  // and answers for layers that are not its own
  kPieceIsTheWhole,
  kTakesAnyShard,
};

struct NamedBackendFault {
  const char* name;
  BackendFault fault;
};
const std::vector<NamedBackendFault>& BackendFaults();

class PlantedBackend final : public SyntheticBackend {
 public:
  PlantedBackend(const SyntheticOptions& options, BackendFault fault);
  // Of the suite's cases.
  static std::unique_ptr<StageBackend> Make(BackendFault fault, std::set<Stage> stages,
                                            uint32_t kv_blocks, uint32_t block_tokens);
  static absl::StatusOr<std::unique_ptr<StageBackend>> MakeShard(BackendFault fault,
                                                                 const ShardRequest& request);

  const BackendInfo& info() const override { return info_; }
  absl::StatusOr<BufferRef> AllocateRows(uint32_t rows) override;
  TicketPtr Embed(absl::Span<const TokenId> ids, Buffer& residual) override;
  TicketPtr AttentionLayer(uint32_t layer, absl::Span<const step::KvRow> rows, Buffer& residual,
                           const Buffer* ffn_out) override;
  TicketPtr FfnLayer(uint32_t layer, uint32_t rows, const Buffer& in, Buffer& out) override;
  TicketPtr HeadAndSample(absl::Span<const step::SampleRow> rows, Buffer& residual,
                          const Buffer* ffn_out, std::vector<step::SampledToken>& tokens) override;
  absl::Status ReadKv(uint32_t layer, const step::BlockTable& blocks, uint32_t first,
                      uint32_t count, absl::Span<uint8_t> out) override;
  absl::Status CopyBlocks(absl::Span<const step::KvBook::BlockCopy> copies) override;

 private:
  bool Is(BackendFault fault) const { return fault_ == fault; }
  absl::Status SpoilFfn(uint32_t rows, const Buffer& in, Buffer& out) const;
  // Runs `attend`, then puts back what the rows' positions held before, if anything.
  absl::Status KeepingOldKv(uint32_t layer, absl::Span<const step::KvRow> rows,
                            const std::function<absl::Status()>& attend);

  const BackendFault fault_;
  const uint32_t number_;  // of the instance
  BackendInfo info_;
};

}  // namespace tandem::test
