#include "scheduler/cost/timed_call.h"

#include <absl/strings/str_cat.h>

namespace tandem::cost {
namespace {

constexpr uint64_t kLayer = 0;

AttentionRows RowsOf(const model::ModelShape& model, const CallShape& shape) {
  return AttentionRows::Even(model, shape.rows, shape.rows * shape.positions);
}

PrefillRows ChunkOf(const model::ModelShape& model, const CallShape& shape) {
  return PrefillRows::Of(model, shape.positions, shape.rows);
}

}  // namespace

absl::string_view CallKindName(CallKind kind) {
  switch (kind) {
    case CallKind::kAttention:
      return "attention";
    case CallKind::kFfn:
      return "ffn";
    case CallKind::kHead:
      return "head";
    case CallKind::kPrefill:
      return "prefill";
  }
  return "unknown";
}

absl::StatusOr<CallKind> ParseCallKind(absl::string_view name) {
  for (const CallKind kind : kAllCallKinds) {
    if (CallKindName(kind) == name) return kind;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("call '", name, "' is none of attention, ffn, head, prefill"));
}

CallParts PartsOf(const CostTable& table, const CallShape& shape) {
  switch (shape.kind) {
    case CallKind::kAttention:
      return table.AttentionParts(kLayer, RowsOf(table.shape(), shape));
    case CallKind::kFfn:
      return table.FfnParts(FfnShard(), kLayer, shape.rows);
    case CallKind::kHead:
      return table.HeadParts(shape.rows);
    case CallKind::kPrefill:
      return table.PrefillParts(kLayer, ChunkOf(table.shape(), shape));
  }
  return {};
}

double FlopsOf(const model::ModelShape& model, const model::Precision& precision,
               const CallShape& shape) {
  switch (shape.kind) {
    case CallKind::kAttention:
      return AttentionWork(model, precision, kLayer, RowsOf(model, shape)).flops;
    case CallKind::kFfn:
      return FfnWork(model, precision, FfnShard(), kLayer, shape.rows).flops;
    case CallKind::kHead:
      return HeadWork(model, precision, shape.rows).flops;
    case CallKind::kPrefill:
      return PrefillWork(model, precision, kLayer, ChunkOf(model, shape)).flops;
  }
  return 0;
}

}  // namespace tandem::cost
