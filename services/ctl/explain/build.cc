#include "services/ctl/explain/build.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "scheduler/base/check.h"
#include "scheduler/base/status.h"
#include "services/ctl/explain/step_ops.h"
#include "services/ctl/explain/step_spans.h"
#include "services/ctl/explain/worker_model.h"
#include "services/ctl/trace/align.h"

namespace tandem::ctl {
namespace {

// The cost model has the norm before the FFN with attention, where experts are chosen; a real FFN
// worker applies it itself (StageBackend::FfnLayer).
cost::Op TakeFfnNorm(std::vector<cost::Op>& attention) {
  const auto norm = std::find_if(attention.begin(), attention.end(),
                                 [](const cost::Op& op) { return op.name == "ffn_norm"; });
  TANDEM_CHECK(norm != attention.end());
  cost::Op taken = std::move(*norm);
  attention.erase(norm);
  return taken;
}

// One FFN computation, by the worker and when it began: of merged calls there is one.
using ComputeKey = std::pair<uint32_t, int64_t>;

class Builder {
 public:
  Builder(const ExplainInput& input, const StepSpans& spans, std::vector<WorkerModel> models)
      : input_(input), spans_(spans), models_(std::move(models)) {
    const WorkerTrace& own = input.traces[spans.attention_worker];
    device_seconds_ = 1e-9 / own.time_scale;
    report_.time_scale = own.emulated ? own.time_scale : 0;
  }

  ExplainReport Build() {
    DescribeRequest();
    DescribeStep();
    AddEnd(PartKind::kEmbed, spans_.embed);
    for (uint32_t layer = 0; layer < spans_.layers.size(); layer++) AddLayer(layer);
    AddEnd(PartKind::kHead, spans_.head);
    AddTotals();
    AddGroups();
    AddNotes();
    return std::move(report_);
  }

 private:
  const WorkerModel& attention() const { return models_[spans_.attention_worker]; }
  bool emulated() const { return report_.time_scale > 0; }
  double Device(int64_t ns) const { return static_cast<double>(ns) * device_seconds_; }

  void DescribeRequest() {
    const ExplainAnswer& answer = input_.answer;
    report_.prompt = input_.question.prompt;
    report_.sampling = SamplingWords(input_.question);
    report_.topology = answer.topology;
    report_.prompt_tokens = answer.prompt_tokens;
    report_.tokens = answer.tokens;
    report_.candidates = answer.candidates;
    report_.model = input_.workers[spans_.attention_worker].model();
    report_.shape_source = attention().shape_source;
  }

  void DescribeStep() {
    report_.attention_worker = input_.traces[spans_.attention_worker].worker;
    report_.step = input_.answer.decode_step;
    report_.position =
        input_.answer.prompt_tokens + static_cast<uint32_t>(input_.answer.tokens.size()) - 2;
    report_.layers = static_cast<uint32_t>(spans_.layers.size());
    report_.step_seconds = Device(spans_.length_ns);
    const std::vector<LayerSpans>& first = spans_.layers.front();
    for (const LayerSpans& spans : first)
      report_.micro_batches.push_back({spans.attention.rows, spans.attention.context_tokens});
    for (const WorkerTrace& trace : input_.traces)
      report_.spans_lost += trace.lost + trace.left_out;
  }

  // Embedding or head of all micro-batches.
  void AddEnd(PartKind kind, const std::vector<DeviceSpan>& spans) {
    ExplainedPart part = StartPart(kind, std::nullopt, {spans_.attention_worker});
    std::vector<ModelledCall> calls;
    const WorkerModel& own = attention();
    part.begin_seconds = Device(spans.front().begin_ns);
    for (const DeviceSpan& span : spans) {
      ModelledCall& call = calls.emplace_back();
      const bool head = kind == PartKind::kHead;
      call.ops = head ? cost::HeadOps(own.shape, own.precision, span.rows)
                      : cost::EmbedOps(own.shape, own.precision, span.rows);
      if (own.table.has_value())
        call.parts = head ? own.table->HeadParts(span.rows) : own.table->EmbedParts(span.rows);
      part.measured_seconds += Device(span.end_ns - span.begin_ns);
    }
    report_.attention_busy_seconds += part.measured_seconds;
    FinishPart(std::move(part), ExplainCalls(own, calls, own.head_scale));
  }

  void AddLayer(uint32_t layer) {
    AddAttention(layer);
    const std::vector<LayerSpans>& all = spans_.layers[layer];
    const bool remote = !all[0].ffn.empty() && all[0].ffn[0].remote;
    if (remote) AddTransfer(PartKind::kA2f, layer);
    if (remote) AddTransfer(PartKind::kQueue, layer);
    AddFfn(layer);
    if (remote) AddTransfer(PartKind::kF2a, layer);
  }

  void AddAttention(uint32_t layer) {
    ExplainedPart part = StartPart(PartKind::kAttention, layer, {spans_.attention_worker});
    const WorkerModel& own = attention();
    std::vector<ModelledCall> calls;
    part.begin_seconds = Device(spans_.layers[layer].front().attention.begin_ns);
    for (const LayerSpans& spans : spans_.layers[layer]) {
      const DeviceSpan& span = spans.attention;
      const auto rows = cost::AttentionRows::Even(own.shape, span.rows, span.context_tokens);
      ModelledCall& call = calls.emplace_back();
      call.ops = cost::AttentionOps(own.shape, own.precision, layer, rows);
      if (!emulated()) TakeFfnNorm(call.ops);
      if (own.table.has_value()) call.parts = own.table->AttentionParts(layer, rows);
      part.measured_seconds += Device(span.end_ns - span.begin_ns);
    }
    report_.attention_busy_seconds += part.measured_seconds;
    FinishPart(std::move(part), ExplainCalls(own, calls, own.attention_scale));
  }

  // Of several pieces of one call the one whose answer came last: what the layer waited for.
  static const FfnPiece& Last(const LayerSpans& spans) {
    return *std::max_element(
        spans.ffn.begin(), spans.ffn.end(),
        [](const FfnPiece& a, const FfnPiece& b) { return a.LastNs() < b.LastNs(); });
  }

  // What a call's way took: there, in the queue, computed, back. They add up to the round trip,
  // whatever the clocks are off by.
  struct Way {
    int64_t there_ns = 0, queue_ns = 0, compute_ns = 0, back_ns = 0;
  };
  static Way WayOf(const FfnPiece& piece) {
    Way way;
    way.compute_ns = piece.end_ns - piece.begin_ns;
    if (!piece.remote) return way;
    way.queue_ns = piece.begin_ns - piece.arrived_ns;
    const int64_t links = piece.received_ns - piece.sent_ns - way.compute_ns - way.queue_ns;
    way.there_ns =
        std::clamp<int64_t>(piece.arrived_ns - piece.sent_ns, 0, std::max<int64_t>(links, 0));
    way.back_ns = links - way.there_ns;
    return way;
  }

  // A2F, queue or F2A of a layer.
  void AddTransfer(PartKind kind, uint32_t layer) {
    const std::vector<LayerSpans>& all = spans_.layers[layer];
    std::set<uint32_t> workers;
    std::vector<uint32_t> rows;
    size_t pieces = 0;
    ExplainedPart part = StartPart(kind, layer, {});
    for (const LayerSpans& spans : all) {
      const FfnPiece& last = Last(spans);
      const Way way = WayOf(last);
      const auto [at, took] = kind == PartKind::kA2f     ? std::pair(last.sent_ns, way.there_ns)
                              : kind == PartKind::kQueue ? std::pair(last.arrived_ns, way.queue_ns)
                                                         : std::pair(last.end_ns, way.back_ns);
      if (rows.empty()) part.begin_seconds = Device(at);
      part.measured_seconds += Device(took);
      pieces = std::max(pieces, spans.ffn.size());
      rows.push_back(spans.attention.rows);
      for (const FfnPiece& piece : spans.ffn) {
        workers.insert(piece.worker);
        report_.clock_error_seconds =
            std::max(report_.clock_error_seconds, Device(piece.clock_error_ns));
      }
    }
    const WorkerModel& ffn = models_[*workers.begin()];
    const std::string own = report_.attention_worker;
    std::vector<std::string> ffn_workers = Names(workers);
    if (kind == PartKind::kA2f) part.workers.push_back(own);
    part.workers.insert(part.workers.end(), ffn_workers.begin(), ffn_workers.end());
    if (kind == PartKind::kF2a) part.workers.push_back(own);
    const auto piece_count = static_cast<uint32_t>(pieces);
    std::vector<ExplainedOp> ops;
    if (kind == PartKind::kA2f)
      ops.push_back(ExplainA2f(attention(), ffn, layer, rows, piece_count));
    if (kind == PartKind::kF2a) ops.push_back(ExplainF2a(attention(), ffn, rows, piece_count));
    if (kind == PartKind::kQueue) ops.push_back(QueueOp(ffn));
    FinishPart(std::move(part), std::move(ops));
  }

  static ExplainedOp QueueOp(const WorkerModel& ffn);

  // Every computation once, and of the pieces of one call the model's slowest.
  void AddFfn(uint32_t layer) {
    std::map<ComputeKey, const FfnPiece*> computed;
    ExplainedPart part = StartPart(PartKind::kFfn, layer, {});
    std::set<uint32_t> workers;
    std::vector<ModelledCall> calls;
    bool first = true;
    uint32_t merged_rows = 0, own_rows = 0;
    for (const LayerSpans& spans : spans_.layers[layer]) {
      own_rows += spans.attention.rows;
      if (spans.ffn.empty()) continue;  // in the call of another micro-batch
      const FfnPiece& last = Last(spans);
      if (std::exchange(first, false)) part.begin_seconds = Device(last.begin_ns);
      const bool is_new = computed.emplace(ComputeKey(last.worker, last.begin_ns), &last).second;
      for (const FfnPiece& piece : spans.ffn) {
        workers.insert(piece.worker);
        if (busy_.insert({piece.worker, piece.begin_ns}).second)
          report_.ffn_busy_seconds += Device(piece.end_ns - piece.begin_ns);
      }
      if (!is_new) continue;
      part.measured_seconds += Device(last.end_ns - last.begin_ns);
      merged_rows += last.rows;
      calls.push_back(FfnCall(layer, spans, last));
    }
    part.workers = Names(workers);
    if (merged_rows > own_rows) {
      part.note = absl::StrCat("computed together with ", merged_rows - own_rows,
                               " rows of other attention workers");
    }
    const WorkerModel& ffn = models_[*workers.begin()];
    FinishPart(std::move(part), ExplainCalls(ffn, calls, ffn.ffn_scale));
  }

  // The whole layer's operations, whatever it is cut into; the time is the slowest piece's.
  ModelledCall FfnCall(uint32_t layer, const LayerSpans& spans, const FfnPiece& last) const {
    const WorkerModel& ffn = models_[last.worker];
    ModelledCall call;
    call.ops = cost::FfnOps(ffn.shape, ffn.precision, layer, last.rows);
    if (!emulated()) {
      const auto rows = cost::AttentionRows::Even(ffn.shape, last.rows, last.rows);
      std::vector<cost::Op> attention = cost::AttentionOps(ffn.shape, ffn.precision, layer, rows);
      call.ops.insert(call.ops.begin(), TakeFfnNorm(attention));
    }
    if (!ffn.table.has_value()) return call;
    for (const FfnPiece& piece : spans.ffn) {
      const WorkerModel& each = models_[piece.worker];
      if (!each.table.has_value()) continue;
      const cost::CallParts parts =
          each.table->FfnParts(ShardOf(piece, spans.ffn.size()), layer, piece.rows);
      if (each.table->TimeOf(parts) > ffn.table->TimeOf(call.parts)) call.parts = parts;
    }
    return call;
  }

  static FfnShard ShardOf(const FfnPiece&, size_t pieces) {
    FfnShard shard;
    shard.columns = static_cast<uint32_t>(pieces);
    return shard;
  }

  std::vector<std::string> Names(const std::set<uint32_t>& workers) const {
    std::vector<std::string> names;
    names.reserve(workers.size());
    for (const uint32_t worker : workers) names.push_back(input_.traces[worker].worker);
    return names;
  }

  ExplainedPart StartPart(PartKind kind, std::optional<uint32_t> layer,
                          const std::set<uint32_t>& workers) const {
    ExplainedPart part;
    part.kind = kind;
    part.layer = layer;
    part.workers = Names(workers);
    return part;
  }

  void FinishPart(ExplainedPart part, std::vector<ExplainedOp> ops) {
    bool known = !ops.empty();
    double seconds = 0;
    for (const ExplainedOp& op : ops) {
      known = known && op.model_seconds.has_value();
      seconds += op.model_seconds.value_or(0);
    }
    if (known) part.model_seconds = seconds;
    part.ops = std::move(ops);
    report_.parts.push_back(std::move(part));
  }

  void AddTotals() {
    ExplainTotal total;
    total.model_seconds = 0;
    for (ExplainedPart& part : report_.parts) {
      for (size_t i = 0; i < part.ops.size(); i++) {
        const ExplainedOp& op = part.ops[i];
        total.memory_bytes += op.memory_bytes();
        total.link_bytes += op.link_bytes;
        total.flops += op.flops;
        if (!op.model_seconds.has_value()) total.model_seconds.reset();
        if (total.model_seconds.has_value()) *total.model_seconds += *op.model_seconds;
        if (i + 1 == part.ops.size()) total.measured_seconds += part.measured_seconds;
        part.totals.push_back(total);
      }
    }
  }

  // Two layers are alike when the same workers do the same operations on as much.
  std::string KindOf(uint32_t layer) const {
    std::string kind;
    for (const ExplainedPart* part : report_.PartsOfLayer(layer)) {
      absl::StrAppend(&kind, ToString(part->kind), "@", absl::StrJoin(part->workers, ","), ":");
      for (const ExplainedOp& op : part->ops)
        absl::StrAppend(&kind, op.name, "=", op.shape, "/", op.memory_bytes(), ";");
    }
    return kind;
  }

  void AddGroups() {
    std::map<std::string, size_t> known;
    for (uint32_t layer = 0; layer < report_.layers; layer++) {
      const auto [at, is_new] = known.emplace(KindOf(layer), report_.groups.size());
      if (is_new) report_.groups.emplace_back();
      report_.groups[at->second].layers.push_back(layer);
    }
    for (LayerGroup& group : report_.groups) AddSpreads(group);
  }

  void AddSpreads(LayerGroup& group) const {
    std::map<PartKind, std::vector<double>> seconds;
    for (const uint32_t layer : group.layers) {
      for (const ExplainedPart* part : report_.PartsOfLayer(layer))
        seconds[part->kind].push_back(part->measured_seconds);
    }
    for (auto& [kind, all] : seconds) {
      std::sort(all.begin(), all.end());
      Spread spread{kind, all.front(), all[all.size() / 2], all.back(), 0};
      for (const double each : all) spread.sum_seconds += each;
      group.spreads.push_back(spread);
    }
  }

  void AddNotes();

  const ExplainInput& input_;
  const StepSpans& spans_;
  const std::vector<WorkerModel> models_;
  double device_seconds_ = 1e-9;  // of a nanosecond of the line
  std::set<ComputeKey> busy_;
  ExplainReport report_;
};

ExplainedOp Builder::QueueOp(const WorkerModel& ffn) {
  ExplainedOp op;
  op.name = "queue";
  op.title = "Waits at the FFN worker until its device takes the call.";
  if (ffn.table.has_value()) op.model_seconds = 0;
  return op;
}

void Builder::AddNotes() {
  std::vector<std::string>& notes = report_.notes;
  for (const WorkerModel& model : models_) report_.workers.push_back(model.words);
  notes.push_back(
      "An operation's time is the cost model's: the call's forecast, divided as each operation's "
      "bytes and flops alone would take; only whole spans (a layer's attention, its FFN, a "
      "hand-off) are measured.");
  notes.push_back(
      "Rotary embedding, softmax, SiLU, gating and the residual are done on the way by the "
      "operations around them.");
  if (report_.micro_batches.size() > 1) {
    notes.push_back(absl::StrCat(
        report_.micro_batches.size(),
        " micro-batches: while one is at the FFN, attention computes another, so the spans add up "
        "to more than the step."));
  }
  if (attention().shape.window > 0 && report_.rows() > report_.micro_batches.size())
    notes.emplace_back(
        "In windowed layers all rows of a micro-batch are taken to have equal contexts.");
  if (report_.candidates.empty())
    notes.emplace_back("This backend draws its token without a distribution: no candidates.");
  if (report_.spans_lost > 0)
    notes.push_back(absl::StrCat(report_.spans_lost, " spans of other steps were lost."));
}

// The sequence's own row in the trace, as far as it can be told from others'.
absl::Status CheckPosition(const ExplainAnswer& answer, const StepSpans& spans) {
  const uint64_t context = answer.prompt_tokens + answer.tokens.size() - 1;
  uint64_t rows = 0, attended = 0;
  for (const LayerSpans& each : spans.layers.front()) {
    rows += each.attention.rows;
    attended += each.attention.context_tokens;
  }
  if (rows == 1 ? attended == context : attended >= context) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("step ", answer.decode_step, " of ", answer.attention_worker, " attends to ",
                   attended, " positions with ", rows, " rows, the token to ", context));
}

}  // namespace

absl::StatusOr<ExplainReport> MakeExplainReport(const ExplainInput& input,
                                                const model::Catalog& catalog,
                                                const std::string& chip) {
  std::vector<WorkerModel> models;
  uint32_t attention = kNoWorker;
  for (uint32_t i = 0; i < input.workers.size(); i++) {
    ASSIGN_OR_RETURN(WorkerModel model, ModelOf(input.workers[i], catalog, chip));
    models.push_back(std::move(model));
    if (input.traces[i].worker == input.answer.attention_worker) attention = i;
  }
  if (attention == kNoWorker) {
    return absl::NotFoundError(absl::StrCat("attention worker ", input.answer.attention_worker,
                                            " is not among the workers that were traced"));
  }
  const std::vector<Handoff> handoffs = MatchHandoffs(input.traces);
  const std::vector<WorkerClock> clocks = AlignClocks(input.traces.size(), handoffs);
  ASSIGN_OR_RETURN(const StepSpans spans,
                   PickStep(input.traces, clocks, handoffs, attention, input.answer.decode_step,
                            static_cast<uint32_t>(models[attention].shape.layers)));
  RETURN_IF_ERROR(CheckPosition(input.answer, spans));
  return Builder(input, spans, std::move(models)).Build();
}

}  // namespace tandem::ctl
