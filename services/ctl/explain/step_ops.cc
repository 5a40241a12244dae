#include "services/ctl/explain/step_ops.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

#include <algorithm>
#include <optional>

#include "services/ctl/explain/op_titles.h"

namespace tandem::ctl {
namespace {

// "[4, 576]", "2 x ([4, 576])", "[4, 576]; [3, 576]".
std::string JoinShapes(const std::vector<std::string>& shapes) {
  const bool equal = std::all_of(shapes.begin(), shapes.end(),
                                 [&](const std::string& shape) { return shape == shapes[0]; });
  if (shapes.size() == 1 || shapes[0].empty()) return shapes[0];
  return equal ? absl::StrCat(shapes.size(), " x (", shapes[0], ")") : absl::StrJoin(shapes, "; ");
}

double Seconds(const cost::CostTable& table, const cost::CallParts& parts) {
  return table.TimeOf(parts).seconds();
}

// A call's time without t0 and all-reduce, divided among its operations.
std::vector<double> ShareTime(const cost::CostTable& table, const ModelledCall& call) {
  std::vector<double> shares;
  double sum = 0;
  for (const cost::Op& op : call.ops) {
    shares.push_back(Seconds(table, table.PartsOf(op.work)));
    sum += shares.back();
  }
  const double all = Seconds(table, {.memory = call.parts.memory, .compute = call.parts.compute});
  for (double& share : shares) share = sum > 0 ? share / sum * all : 0;
  return shares;
}

ExplainedOp Named(const std::string& name) {
  ExplainedOp op;
  op.name = name;
  op.title = std::string(OpTitle(name));
  return op;
}

void AddOp(const cost::Op& from, double weight_scale, ExplainedOp& to) {
  to.weight_bytes += from.work.weight_bytes * weight_scale;
  to.kv_bytes += from.work.kv_bytes;
  to.read_bytes += from.read_bytes;
  to.write_bytes += from.write_bytes;
  to.flops += from.flops();
}

// What every call takes beside its operations.
void AddFixed(const WorkerModel& worker, absl::Span<const ModelledCall> calls,
              std::vector<ExplainedOp>& ops) {
  ExplainedOp fixed = Named("fixed"), all_reduce = Named("all_reduce");
  double fixed_seconds = 0, all_reduce_seconds = 0;
  for (const ModelledCall& call : calls) {
    fixed_seconds += call.model_share * call.parts.fixed;
    all_reduce_seconds +=
        call.model_share * (call.parts.all_reduce_latency + call.parts.all_reduce_bytes);
  }
  if (all_reduce_seconds > 0) {
    all_reduce.shape = absl::StrCat(worker.table->device().tp, " chips");
    all_reduce.model_seconds = all_reduce_seconds;
    ops.push_back(std::move(all_reduce));
  }
  if (fixed_seconds > 0) {
    fixed.model_seconds = fixed_seconds;
    ops.push_back(std::move(fixed));
  }
}

ExplainedOp Transfer(const char* name, const WorkerModel& from, const WorkerModel& to,
                     absl::Span<const uint32_t> rows, uint32_t pieces,
                     const std::vector<uint64_t>& bytes) {
  ExplainedOp op = Named(name);
  std::vector<std::string> shapes;
  for (const uint32_t count : rows)
    shapes.push_back(absl::StrCat("[", count, ", ", from.shape.hidden, "]"));
  op.shape = JoinShapes(shapes);
  if (pieces > 1) absl::StrAppend(&op.shape, " with ", pieces, " workers");
  for (const uint64_t each : bytes) op.link_bytes += static_cast<double>(each) * pieces;
  if (from.table.has_value() && to.table.has_value()) {
    const cost::LinkSpeed link = from.table->link().With(to.table->link());
    double seconds = 0;
    for (const uint64_t each : bytes) seconds += link.Transfer(each).seconds();
    op.model_seconds = seconds;
  }
  return op;
}

}  // namespace

std::vector<ExplainedOp> ExplainCalls(const WorkerModel& worker,
                                      absl::Span<const ModelledCall> calls, double weight_scale) {
  std::vector<ExplainedOp> ops;
  std::vector<std::vector<std::string>> shapes;
  for (const ModelledCall& call : calls) {
    ops.resize(std::max(ops.size(), call.ops.size()));
    shapes.resize(ops.size());
    const std::vector<double> seconds =
        worker.table.has_value() ? ShareTime(*worker.table, call) : std::vector<double>();
    for (size_t i = 0; i < call.ops.size(); i++) {
      if (ops[i].name.empty()) ops[i] = Named(call.ops[i].name);
      AddOp(call.ops[i], weight_scale, ops[i]);
      shapes[i].push_back(call.ops[i].shape);
      if (!seconds.empty())
        ops[i].model_seconds = ops[i].model_seconds.value_or(0) + call.model_share * seconds[i];
    }
  }
  for (size_t i = 0; i < ops.size(); i++) ops[i].shape = JoinShapes(shapes[i]);
  if (worker.table.has_value()) AddFixed(worker, calls, ops);
  return ops;
}

ExplainedOp ExplainA2f(const WorkerModel& attention, const WorkerModel& ffn, uint32_t layer,
                       absl::Span<const uint32_t> rows, uint32_t pieces) {
  std::vector<uint64_t> bytes;
  for (const uint32_t count : rows)
    bytes.push_back(cost::A2fBytes(attention.shape, attention.precision, layer, count));
  return Transfer("a2f", attention, ffn, rows, pieces, bytes);
}

ExplainedOp ExplainF2a(const WorkerModel& attention, const WorkerModel& ffn,
                       absl::Span<const uint32_t> rows, uint32_t pieces) {
  std::vector<uint64_t> bytes;
  for (const uint32_t count : rows)
    bytes.push_back(cost::F2aBytes(ffn.shape, ffn.precision, count));
  return Transfer("f2a", attention, ffn, rows, pieces, bytes);
}

}  // namespace tandem::ctl
