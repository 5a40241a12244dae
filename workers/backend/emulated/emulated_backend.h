#pragma once

#include <absl/status/statusor.h>

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "scheduler/cost/cost_table.h"
#include "workers/backend/emulated/emulated_timeline.h"
#include "workers/backend/stage_backend.h"

namespace tandem {

struct EmulatedOptions {
  std::set<Stage> stages;
  FfnShard shard;          // of the FFN
  uint32_t kv_tokens = 0;  // positions that the KV cache holds; 0 without prefill and attention
  double time_scale = 1;   // machine seconds for one of the device's, > 0
};

// A device of the catalog: the numbers of `numerics`, in the time and memory of `table`'s device.
class EmulatedBackend final : public StageBackend {
 public:
  // `wait_until`: EmulatedTimeline. kInvalidArgument: the shard and its KV do not fit, with both
  // numbers, or numerics of another number of layers.
  static absl::StatusOr<std::unique_ptr<EmulatedBackend>> Create(
      const EmulatedOptions& options, const cost::CostTable& table,
      std::unique_ptr<StageBackend> numerics, const TimeSource& time,
      std::function<void(Instant)> wait_until);

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
  absl::Status WriteKv(uint32_t layer, const step::BlockTable& blocks, uint32_t first,
                       uint32_t count, absl::Span<const uint8_t> in) override;
  absl::Status CopyBlocks(absl::Span<const step::KvBook::BlockCopy> copies) override;
  DeviceTimeline* timeline() override { return &timeline_; }

 private:
  class Timeline final : public DeviceTimeline {
   public:
    Timeline(const cost::CostTable& table, const TimeSource& time,
             std::function<void(Instant)> wait_until, double time_scale);
    double time_scale() const override { return line.time_scale(); }
    Instant Now() const override { return line.Now(); }
    void Arrived(Instant at) override { line.Arrived(at); }
    void Woken(Instant now) override { line.Woken(now); }
    Instant Due(Instant arrives_at) const override { return line.Due(arrives_at); }
    Instant SendA2f(uint32_t layer, uint32_t rows, const cost::LinkSpeed& peer) override;
    Instant SendF2a(uint32_t rows, const cost::LinkSpeed& peer) override;
    Instant SendKv(uint32_t positions, const cost::LinkSpeed& peer) override;
    const cost::LinkSpeed& link() const override { return line.link(); }
    EmulationLag lag() const override { return line.lag(); }

    EmulatedTimeline line;

   private:
    const cost::CostTable& table_;
  };

  EmulatedBackend(const EmulatedOptions& options, const cost::CostTable& table,
                  std::unique_ptr<StageBackend> numerics, const TimeSource& time,
                  std::function<void(Instant)> wait_until);
  TicketPtr Take(Duration work, TicketPtr numbers);
  Duration AttentionTime(uint32_t layer, absl::Span<const step::KvRow> rows);

  const EmulatedOptions options_;
  const cost::CostTable table_;
  const std::unique_ptr<StageBackend> numerics_;
  BackendInfo info_;
  Timeline timeline_;
  std::optional<uint32_t> prefilled_layer_;  // its FFN is charged already
  std::vector<uint32_t> contexts_;           // of the rows of a call
};

}  // namespace tandem
