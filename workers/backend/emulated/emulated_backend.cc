#include "workers/backend/emulated/emulated_backend.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <utility>

#include "scheduler/base/status.h"
#include "scheduler/cost/footprint.h"

namespace tandem {
namespace {

// Ends when the device would have ended; the numbers were there before.
class PacedTicket final : public Ticket {
 public:
  PacedTicket(EmulatedTimeline& line, Instant end, TicketPtr numbers)
      : line_(line), end_(end), numbers_(std::move(numbers)) {}
  absl::Status Wait() override {
    absl::Status status = numbers_->Wait();
    line_.WaitFor(end_);
    return status;
  }

 private:
  EmulatedTimeline& line_;
  const Instant end_;
  const TicketPtr numbers_;
};

cost::Holding HoldingOf(const EmulatedOptions& options) {
  cost::Holding holding;
  holding.prefill = options.stages.contains(Stage::kPrefill);
  holding.attention = options.stages.contains(Stage::kAttention);
  if (options.stages.contains(Stage::kFfn)) holding.ffn = options.shard;
  return holding;
}

bool OneSequence(absl::Span<const step::KvRow> rows) {
  return rows.size() > 1 && rows[0].blocks == rows[1].blocks;
}

}  // namespace

EmulatedBackend::Timeline::Timeline(const cost::CostTable& table, const TimeSource& time,
                                    std::function<void(Instant)> wait_until, double time_scale)
    : line(time, std::move(wait_until), time_scale, table.link()), table_(table) {}

Instant EmulatedBackend::Timeline::SendA2f(uint32_t layer, uint32_t rows,
                                           const cost::LinkSpeed& peer) {
  return line.Send(cost::A2fBytes(table_.shape(), table_.precision(), layer, rows), peer);
}

Instant EmulatedBackend::Timeline::SendF2a(uint32_t rows, const cost::LinkSpeed& peer) {
  return line.Send(cost::F2aBytes(table_.shape(), table_.precision(), rows), peer);
}

Instant EmulatedBackend::Timeline::SendKv(uint32_t positions, const cost::LinkSpeed& peer) {
  return line.Send(positions * cost::KvRowBytes(table_.shape(), table_.precision()), peer);
}

absl::StatusOr<std::unique_ptr<EmulatedBackend>> EmulatedBackend::Create(
    const EmulatedOptions& options, const cost::CostTable& table,
    std::unique_ptr<StageBackend> numerics, const TimeSource& time,
    std::function<void(Instant)> wait_until) {
  const uint64_t layers = numerics->info().dimensions.layers;
  if (layers != table.shape().layers) {
    return absl::InvalidArgumentError(absl::StrCat("numerics of ", layers, " layers for ",
                                                   table.shape().name, ", which has ",
                                                   table.shape().layers));
  }
  const cost::Footprint footprint = cost::FootprintOf(
      table.device(), table.shape(), table.precision(), HoldingOf(options), options.kv_tokens);
  RETURN_IF_ERROR(cost::CheckFits(table.device(), table.shape(), footprint));
  return std::unique_ptr<EmulatedBackend>(
      new EmulatedBackend(options, table, std::move(numerics), time, std::move(wait_until)));
}

EmulatedBackend::EmulatedBackend(const EmulatedOptions& options, const cost::CostTable& table,
                                 std::unique_ptr<StageBackend> numerics, const TimeSource& time,
                                 std::function<void(Instant)> wait_until)
    : options_(options),
      table_(table),
      numerics_(std::move(numerics)),
      info_(numerics_->info()),
      timeline_(table_, time, std::move(wait_until), options.time_scale) {
  info_.name = absl::StrCat("emulated/", table_.device().name);
  info_.model_name = table_.shape().name;
  info_.dimensions.context_tokens = static_cast<uint32_t>(
      std::min<uint64_t>(info_.dimensions.context_tokens, table_.shape().context_tokens));
  const cost::Holding holding = HoldingOf(options);
  const auto bytes = [&](const cost::Holding& part) {
    return cost::WeightBytes(table_.shape(), table_.precision(), part);
  };
  // Prefill needs all of them.
  if (holding.prefill || holding.ffn.has_value())
    info_.ffn_bytes = bytes({false, false, holding.prefill ? FfnShard() : holding.ffn});
  if (holding.prefill || holding.attention)
    info_.attention_bytes = bytes({false, true, std::nullopt});
  info_.head_bytes = 0;  // within attention's
}

absl::StatusOr<BufferRef> EmulatedBackend::AllocateRows(uint32_t rows) {
  return numerics_->AllocateRows(rows);
}

TicketPtr EmulatedBackend::Take(Duration work, TicketPtr numbers) {
  return std::make_unique<PacedTicket>(timeline_.line, timeline_.line.Run(work),
                                       std::move(numbers));
}

TicketPtr EmulatedBackend::Embed(absl::Span<const TokenId> ids, Buffer& residual) {
  prefilled_layer_.reset();
  return Take(table_.Embed(ids.size()), numerics_->Embed(ids, residual));
}

Duration EmulatedBackend::AttentionTime(uint32_t layer, absl::Span<const step::KvRow> rows) {
  if (layer >= table_.shape().layers || rows.empty()) return Duration();
  if (OneSequence(rows)) {
    prefilled_layer_ = layer;
    return table_.PrefillLayer(layer, rows[0].position, rows.size());
  }
  contexts_.clear();
  for (const step::KvRow& row : rows) contexts_.push_back(row.position + 1);
  return table_.AttentionLayer(layer, cost::AttentionRows::Of(table_.shape(), contexts_));
}

TicketPtr EmulatedBackend::AttentionLayer(uint32_t layer, absl::Span<const step::KvRow> rows,
                                          Buffer& residual, const Buffer* ffn_out) {
  prefilled_layer_.reset();
  const Duration work = AttentionTime(layer, rows);
  return Take(work, numerics_->AttentionLayer(layer, rows, residual, ffn_out));
}

TicketPtr EmulatedBackend::FfnLayer(uint32_t layer, uint32_t rows, const Buffer& in, Buffer& out) {
  const bool charged = prefilled_layer_ == layer;
  prefilled_layer_.reset();
  const bool known = layer < table_.shape().layers && options_.shard.HoldsLayer(layer);
  const Duration work =
      charged || !known ? Duration() : table_.FfnLayer(options_.shard, layer, rows);
  return Take(work, numerics_->FfnLayer(layer, rows, in, out));
}

TicketPtr EmulatedBackend::HeadAndSample(absl::Span<const step::SampleRow> rows, Buffer& residual,
                                         const Buffer* ffn_out,
                                         std::vector<step::SampledToken>& tokens) {
  prefilled_layer_.reset();
  return Take(table_.Head(rows.size()) + table_.StepOverhead(rows.size()),
              numerics_->HeadAndSample(rows, residual, ffn_out, tokens));
}

// The engines that copy KV do it beside the compute.
absl::Status EmulatedBackend::ReadKv(uint32_t layer, const step::BlockTable& blocks, uint32_t first,
                                     uint32_t count, absl::Span<uint8_t> out) {
  return numerics_->ReadKv(layer, blocks, first, count, out);
}

absl::Status EmulatedBackend::WriteKv(uint32_t layer, const step::BlockTable& blocks,
                                      uint32_t first, uint32_t count,
                                      absl::Span<const uint8_t> in) {
  return numerics_->WriteKv(layer, blocks, first, count, in);
}

absl::Status EmulatedBackend::CopyBlocks(absl::Span<const step::KvBook::BlockCopy> copies) {
  return numerics_->CopyBlocks(copies);
}

}  // namespace tandem
