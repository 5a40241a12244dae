#include "services/runtime/proto_words.h"

#include <absl/strings/str_cat.h>

#include <utility>

#include "services/runtime/utf8.h"

namespace tandem {
namespace {

constexpr size_t kCutCharacterBytes = 9;  // what becomes of a character that is cut, at most

constexpr std::pair<Stage, v1::Stage> kStages[] = {
    {Stage::kPrefill, v1::STAGE_PREFILL},
    {Stage::kAttention, v1::STAGE_ATTENTION},
    {Stage::kFfn, v1::STAGE_FFN},
};

constexpr std::pair<EndReason, v1::EndReason> kReasons[] = {
    {EndReason::kEos, v1::END_REASON_EOS},
    {EndReason::kStopToken, v1::END_REASON_STOP_TOKEN},
    {EndReason::kLength, v1::END_REASON_LENGTH},
    {EndReason::kStopped, v1::END_REASON_STOPPED},
    {EndReason::kCancelled, v1::END_REASON_CANCELLED},
    {EndReason::kPreempted, v1::END_REASON_PREEMPTED},
    {EndReason::kSuperseded, v1::END_REASON_SUPERSEDED},
    {EndReason::kFailed, v1::END_REASON_FAILED},
};

}  // namespace

v1::Stage ToProto(Stage stage) {
  for (const auto& [ours, theirs] : kStages) {
    if (ours == stage) return theirs;
  }
  return v1::STAGE_UNSPECIFIED;
}

absl::StatusOr<Stage> ToStage(int stage) {
  for (const auto& [ours, theirs] : kStages) {
    if (theirs == stage) return ours;
  }
  return absl::InvalidArgumentError(absl::StrCat("unknown stage ", stage));
}

v1::EndReason ToProto(EndReason reason) {
  for (const auto& [ours, theirs] : kReasons) {
    if (ours == reason) return theirs;
  }
  return v1::END_REASON_UNSPECIFIED;
}

absl::StatusOr<EndReason> ToEndReason(v1::EndReason reason) {
  for (const auto& [ours, theirs] : kReasons) {
    if (theirs == reason) return ours;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("end reason: ", static_cast<int>(reason), " is unknown"));
}

void ToProto(const FfnShard& shard, v1::FfnShard* out) {
  out->set_first_layer(shard.first_layer);
  out->set_last_layer(shard.last_layer);
  out->set_column(shard.column);
  out->set_columns(shard.columns);
}

FfnShard ToShard(const v1::FfnShard& shard) {
  return {shard.first_layer(), shard.last_layer(), shard.column(), shard.columns()};
}

absl::StatusOr<model::Figure> ToFigure(absl::string_view field, const v1::Figure& figure) {
  if (figure.source().size() > kMaxSourceBytes) {
    return absl::InvalidArgumentError(absl::StrCat(field, ".source has ", figure.source().size(),
                                                   " bytes; at most ", kMaxSourceBytes,
                                                   " are taken"));
  }
  model::Figure known{0, model::Mark::kUnknown, figure.source()};
  if (!figure.has_value()) return known;
  known.value = figure.value();
  if (!(known.value >= 0 && known.value <= kMostFigure)) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ".value is ", known.value, "; 0 to ", kMostFigure, " is taken"));
  }
  using enum model::Mark;
  for (const model::Mark mark : {kMeasured, kFitted, kAssumed, kStated}) {
    if (model::MarkName(mark) == figure.mark()) known.mark = mark;
  }
  if (!known.known())
    return absl::InvalidArgumentError(absl::StrCat(
        field, ".mark: '", figure.mark(), "' is none of measured, fitted, assumed and stated"));
  return known;
}

void ToProto(const model::Figure& figure, v1::Figure* out) {
  out->set_source(ToValidUtf8(figure.source.substr(0, kMaxSourceBytes - kCutCharacterBytes)));
  if (!figure.known()) return;
  out->set_value(figure.value);
  out->set_mark(std::string(model::MarkName(figure.mark)));
}

double SecondsOfPeer(double seconds) {
  constexpr double kLongestSeconds = 1e9;
  return seconds >= 0 && seconds <= kLongestSeconds ? seconds : 0;
}

}  // namespace tandem
