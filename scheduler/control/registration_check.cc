#include "scheduler/control/registration_check.h"

#include <absl/strings/str_cat.h>

#include <set>
#include <string>

#include "scheduler/base/status.h"

namespace tandem::control {
namespace {

absl::Status Incomplete(const WorkerDescription& worker, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("worker ", worker.id.value(), ": ", what));
}

// A worker with other stages is its own only FFN holder, or prefills with these weights: it needs
// them whole. Its class must say the same as its shard.
absl::Status CheckShardOf(const WorkerDescription& worker) {
  const uint32_t layers = worker.dimensions.layers;
  if (layers == 0 || layers > kMaxShardLayers) {
    return Incomplete(worker, absl::StrCat("its model has ", layers, " layers; 1 to ",
                                           kMaxShardLayers, " are possible"));
  }
  if (absl::Status shard = CheckShard(worker.shard, layers); !shard.ok())
    return Incomplete(worker, absl::StrCat("its shard: ", shard.message()));
  if (worker.stages != std::set<Stage>{Stage::kFfn} && !worker.shard.IsWhole(layers)) {
    return Incomplete(worker, absl::StrCat("it holds ", ToString(worker.shard, layers),
                                           " of the FFN, but runs more than the ffn stage"));
  }
  const std::string& ffn = worker.numerics.ffn;
  const std::string geometry = ffn.substr(WithoutGeometry(ffn).size());
  if (!geometry.empty() && geometry != GeometryOf(worker.shard.columns)) {
    return Incomplete(worker,
                      absl::StrCat("its numerics class of ffn says '", geometry, "', its shard '",
                                   GeometryOf(worker.shard.columns), "'"));
  }
  return absl::OkStatus();
}

// What each stage must say of itself.
absl::Status CheckComplete(const WorkerDescription& worker) {
  if (worker.id.empty()) return absl::InvalidArgumentError("the worker's id is empty");
  if (worker.stages.empty()) return Incomplete(worker, "it runs no stage");
  if (worker.address.empty()) return Incomplete(worker, "its address is empty");
  const WorkerCapacity& capacity = worker.capacity;
  if (worker.Runs(Stage::kPrefill)) {
    if (worker.numerics.prefill.empty())
      return Incomplete(worker, "it runs prefill but its numerics class has no prefill part");
    if (capacity.prefill_slots == 0)
      return Incomplete(worker, "it runs prefill with 0 prefill_slots");
  }
  if (worker.Runs(Stage::kAttention)) {
    if (worker.numerics.attention.empty()) {
      return Incomplete(worker, "it runs attention but its numerics class has no attention part");
    }
    if (capacity.kv_blocks == 0 || capacity.block_tokens == 0 || capacity.max_sequences == 0) {
      return Incomplete(
          worker, absl::StrCat("it runs attention with ", capacity.kv_blocks, " kv_blocks of ",
                               capacity.block_tokens, " tokens and ", capacity.max_sequences,
                               " max_sequences; each must be at least 1"));
    }
    if (worker.dimensions.context_tokens == 0)
      return Incomplete(worker, "it runs attention with 0 context_tokens");
  }
  if (worker.Runs(Stage::kFfn) && worker.numerics.ffn.empty()) {
    return Incomplete(worker, "it runs ffn but its numerics class has no ffn part");
  }
  return CheckShardOf(worker);
}

absl::Status CheckPart(const WorkerDescription& worker, const WorkerDescription& member,
                       absl::string_view stage, const std::string& ours,
                       const std::string& theirs) {
  if (ours.empty() || theirs.empty() || ours == theirs) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("worker ", worker.id.value(), ": numerics class of ", stage, " is '", ours,
                   "', that of worker ", member.id.value(), " is '", theirs, "'"));
}

absl::Status CheckNumber(const WorkerDescription& worker, const WorkerDescription& member,
                         absl::string_view name, uint32_t ours, uint32_t theirs) {
  if (ours == theirs) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("worker ", worker.id.value(), ": the model has ", name, " ", ours,
                   ", that of worker ", member.id.value(), " has ", theirs));
}

absl::Status CheckAgainst(const WorkerDescription& worker, const WorkerDescription& member) {
  if (worker.time_scale != member.time_scale) {
    return absl::FailedPreconditionError(
        absl::StrCat("worker ", worker.id.value(), ": its time_scale is ", worker.time_scale,
                     ", that of worker ", member.id.value(), " ", member.time_scale,
                     " (0: real time); a cluster has one"));
  }
  const ModelDimensions& a = worker.dimensions;
  const ModelDimensions& b = member.dimensions;
  RETURN_IF_ERROR(CheckNumber(worker, member, "layers", a.layers, b.layers));
  RETURN_IF_ERROR(CheckNumber(worker, member, "hidden", a.hidden, b.hidden));
  RETURN_IF_ERROR(CheckNumber(worker, member, "kv_heads", a.kv_heads, b.kv_heads));
  RETURN_IF_ERROR(CheckNumber(worker, member, "head_dim", a.head_dim, b.head_dim));
  RETURN_IF_ERROR(CheckNumber(worker, member, "vocabulary", a.vocabulary, b.vocabulary));
  RETURN_IF_ERROR(
      CheckPart(worker, member, "prefill", worker.numerics.prefill, member.numerics.prefill));
  RETURN_IF_ERROR(
      CheckPart(worker, member, "attention", worker.numerics.attention, member.numerics.attention));
  // Cuts may differ: a group prefers one class, and a crossing to another is counted.
  if (WithoutGeometry(worker.numerics.ffn) == WithoutGeometry(member.numerics.ffn))
    return absl::OkStatus();
  return CheckPart(worker, member, "ffn", worker.numerics.ffn, member.numerics.ffn);
}

}  // namespace

absl::Status CheckRegistration(const WorkerDescription& worker, absl::string_view model,
                               absl::Span<const WorkerDescription* const> members) {
  RETURN_IF_ERROR(CheckComplete(worker));
  if (worker.model != model) {
    return absl::NotFoundError(absl::StrCat("worker ", worker.id.value(), " serves model '",
                                            worker.model, "', this router '", model, "'"));
  }
  for (const WorkerDescription* member : members) RETURN_IF_ERROR(CheckAgainst(worker, *member));
  return absl::OkStatus();
}

}  // namespace tandem::control
