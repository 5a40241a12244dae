#include "services/ctl/explain/step_spans.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "scheduler/base/status.h"

namespace tandem::ctl {
namespace {

using LayerKey = std::pair<uint32_t, uint32_t>;  // layer, micro-batch

class Picker {
 public:
  Picker(absl::Span<const WorkerTrace> workers, absl::Span<const WorkerClock> clocks,
         absl::Span<const Handoff> handoffs, uint32_t attention_worker, uint64_t step)
      : workers_(workers),
        clocks_(clocks),
        handoffs_(handoffs),
        own_(attention_worker),
        step_(step) {}

  absl::StatusOr<StepSpans> Pick(uint32_t layers) {
    RETURN_IF_ERROR(TakeOwn(layers));
    RETURN_IF_ERROR(CheckOwn(layers));
    RETURN_IF_ERROR(AddLocalFfn());
    RETURN_IF_ERROR(AddRemoteFfn());
    for (uint32_t layer = 0; layer < layers; layer++) {
      const std::vector<LayerSpans>& all = out_.layers[layer];
      // A merged local call is told under its first micro-batch.
      const bool merged = std::any_of(all.begin(), all.end(), [](const LayerSpans& spans) {
        return !spans.ffn.empty() && !spans.ffn[0].remote && spans.ffn[0].calls > 1;
      });
      for (size_t i = 0; i < all.size(); i++) {
        if (all[i].ffn.empty() && !merged) return Missing("FFN", layer, i);
      }
    }
    return std::move(out_);
  }

 private:
  const WorkerTrace& own() const { return workers_[own_]; }

  absl::Status Missing(absl::string_view what, size_t layer, size_t micro_batch) const {
    uint64_t lost = 0;
    for (const WorkerTrace& worker : workers_) lost += worker.lost + worker.left_out;
    return absl::DataLossError(absl::StrCat("step ", step_, " of ", own().worker, ": no ", what,
                                            " of layer ", layer, ", micro-batch ", micro_batch,
                                            " in the trace, which lost ", lost, " spans"));
  }

  // What the attention worker's own device did.
  absl::Status TakeOwn(uint32_t layers) {
    const auto found = std::find_if(own().spans.begin(), own().spans.end(), [&](const auto& span) {
      return span.kind == v1::SPAN_KIND_STEP && span.step == step_;
    });
    if (found == own().spans.end()) {
      return absl::NotFoundError(
          absl::StrCat("the trace of ", own().worker, " has no step ", step_));
    }
    begin_ns_ = found->begin_ns;
    out_.attention_worker = own_;
    out_.length_ns = found->end_ns - found->begin_ns;
    out_.layers.resize(layers);
    for (const TracedSpan& span : own().spans) {
      if (span.step != step_ || span.micro_batch >= kMaxMicroBatches) continue;
      const DeviceSpan taken = {span.begin_ns - begin_ns_, span.end_ns - begin_ns_, span.rows,
                                span.context_tokens};
      if (span.kind == v1::SPAN_KIND_EMBED) At(out_.embed, span.micro_batch) = taken;
      if (span.kind == v1::SPAN_KIND_HEAD) At(out_.head, span.micro_batch) = taken;
      if (span.kind == v1::SPAN_KIND_ATTENTION && span.layer < layers)
        At(out_.layers[span.layer], span.micro_batch).attention = taken;
    }
    return absl::OkStatus();
  }

  absl::Status CheckOwn(uint32_t layers) const {
    const size_t micro_batches = out_.embed.size();
    if (micro_batches == 0) return Missing("embedding", 0, 0);
    if (out_.head.size() != micro_batches) return Missing("head", layers, out_.head.size());
    for (uint32_t layer = 0; layer < layers; layer++) {
      if (out_.layers[layer].size() > micro_batches)
        return Missing("embedding", layer, micro_batches);
      if (out_.layers[layer].size() < micro_batches)
        return Missing("attention", layer, out_.layers[layer].size());
      for (size_t i = 0; i < micro_batches; i++) {
        if (out_.layers[layer][i].attention.rows == 0) return Missing("attention", layer, i);
      }
    }
    for (size_t i = 0; i < micro_batches; i++) {
      if (out_.embed[i].rows == 0) return Missing("embedding", 0, i);
      if (out_.head[i].rows == 0) return Missing("head", layers, i);
    }
    return absl::OkStatus();
  }

  // A worker's own FFN stage computes this step's calls alone, possibly several in one.
  absl::Status AddLocalFfn() {
    if (!own().stages.contains(Stage::kFfn)) return absl::OkStatus();
    for (const TracedSpan& span : own().spans) {
      if (span.kind != v1::SPAN_KIND_FFN || span.step != step_ ||
          span.layer >= out_.layers.size() || span.micro_batch >= out_.layers[span.layer].size())
        continue;
      FfnPiece piece;
      piece.worker = own_;
      piece.rows = span.rows;
      piece.calls = std::max(span.calls, uint32_t{1});
      piece.begin_ns = span.begin_ns - begin_ns_;
      piece.end_ns = span.end_ns - begin_ns_;
      out_.layers[span.layer][span.micro_batch].ffn.push_back(piece);
    }
    return absl::OkStatus();
  }

  // Of each call the last attempt whose two ends are in the trace.
  absl::Status AddRemoteFfn() {
    std::map<std::pair<LayerKey, uint32_t>, const Handoff*> calls;
    for (const Handoff& handoff : handoffs_) {
      if (handoff.attention != own_) continue;
      const TracedSpan& span = own().spans[handoff.call];
      if (span.step != step_ || span.layer >= out_.layers.size() ||
          span.micro_batch >= out_.layers[span.layer].size())
        continue;
      const Handoff*& kept = calls[{{span.layer, span.micro_batch}, handoff.ffn}];
      if (kept == nullptr || own().spans[kept->call].attempt < span.attempt) kept = &handoff;
    }
    for (const auto& [key, handoff] : calls) {
      const auto [layer, micro_batch] = key.first;
      ASSIGN_OR_RETURN(const FfnPiece piece, RemotePiece(*handoff, layer, micro_batch));
      out_.layers[layer][micro_batch].ffn.push_back(piece);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<FfnPiece> RemotePiece(const Handoff& handoff, uint32_t layer,
                                       uint32_t micro_batch) const {
    const WorkerTrace& worker = workers_[handoff.ffn];
    const TracedSpan* computed = nullptr;
    for (const TracedSpan& span : worker.spans) {
      // In one merged call with others the numbers are the first one's.
      if (span.kind != v1::SPAN_KIND_FFN || span.layer != layer ||
          span.begin_ns < handoff.arrived_ns || span.end_ns > handoff.answered_ns)
        continue;
      if (computed == nullptr || span.end_ns > computed->end_ns) computed = &span;
    }
    if (computed == nullptr) return Missing("FFN compute", layer, micro_batch);
    const int64_t shift = clocks_[handoff.ffn].offset_ns - clocks_[own_].offset_ns - begin_ns_;
    FfnPiece piece;
    piece.worker = handoff.ffn;
    piece.rows = computed->rows;
    piece.calls = std::max(computed->calls, uint32_t{1});
    piece.begin_ns = computed->begin_ns + shift;
    piece.end_ns = computed->end_ns + shift;
    piece.remote = true;
    piece.sent_ns = handoff.sent_ns - begin_ns_;
    piece.arrived_ns = handoff.arrived_ns + shift;
    piece.answered_ns = handoff.answered_ns + shift;
    piece.received_ns = handoff.received_ns - begin_ns_;
    piece.clock_error_ns = clocks_[handoff.ffn].error_ns + clocks_[own_].error_ns;
    return piece;
  }

  static constexpr uint32_t kMaxMicroBatches = 64;
  template <typename T>
  static T& At(std::vector<T>& values, size_t index) {
    if (values.size() <= index) values.resize(index + 1);
    return values[index];
  }

  const absl::Span<const WorkerTrace> workers_;
  const absl::Span<const WorkerClock> clocks_;
  const absl::Span<const Handoff> handoffs_;
  const uint32_t own_;
  const uint64_t step_;
  int64_t begin_ns_ = 0;
  StepSpans out_;
};

}  // namespace

absl::StatusOr<StepSpans> PickStep(absl::Span<const WorkerTrace> workers,
                                   absl::Span<const WorkerClock> clocks,
                                   absl::Span<const Handoff> handoffs, uint32_t attention_worker,
                                   uint64_t step, uint32_t layers) {
  return Picker(workers, clocks, handoffs, attention_worker, step).Pick(layers);
}

}  // namespace tandem::ctl
