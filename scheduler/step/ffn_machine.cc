#include "scheduler/step/ffn_machine.h"

#include <absl/strings/str_cat.h>

#include <algorithm>

#include "scheduler/base/check.h"
#include "scheduler/policy/merge_wait.h"

namespace tandem::step {
namespace {

// Of one sender. No attention worker has so many micro-batches in flight; one that claims it is not
// waited for.
constexpr size_t kMaxMicroBatchesBetween = 64;

}  // namespace

FfnMachine::FfnMachine(const FfnConfig& config) : config_(config) {
  TANDEM_CHECK(config.layers >= 1 && config.max_rows >= 1 && config.hidden_bytes >= 1);
}

absl::StatusOr<uint64_t> FfnMachine::OpenStream(StreamId stream, uint32_t max_rows) {
  if (max_rows == 0)
    return absl::InvalidArgumentError("a hand-off stream of calls of at most 0 rows");
  if (credit_.contains(stream)) {
    return absl::AlreadyExistsError(
        absl::StrCat("hand-off stream ", static_cast<uint64_t>(stream), " is open"));
  }
  const uint64_t grant =
      2 * static_cast<uint64_t>(std::min(max_rows, config_.max_rows)) * config_.hidden_bytes;
  if (granted_bytes_ + grant > config_.max_queued_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat("a hand-off stream needs ", grant,
                                                     " B of credit; ", granted_bytes_, " of ",
                                                     config_.max_queued_bytes, " B are granted"));
  }
  granted_bytes_ += grant;
  credit_[stream] = Credit{grant, 0};
  return grant;
}

absl::Status FfnMachine::Enqueue(const QueuedCall& call) {
  const auto credit = credit_.find(call.stream);
  if (credit == credit_.end()) {
    return absl::NotFoundError(
        absl::StrCat("no hand-off stream ", static_cast<uint64_t>(call.stream)));
  }
  if (call.call.layer >= config_.layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer ", call.call.layer, " of ", config_.layers));
  }
  if (!config_.shard.HoldsLayer(call.call.layer)) {
    return absl::NotFoundError(absl::StrCat("layer ", call.call.layer, ": this worker holds ",
                                            ToString(config_.shard, config_.layers)));
  }
  if (call.rows > config_.max_rows) {
    return absl::InvalidArgumentError(
        absl::StrCat(call.rows, " rows exceed the ", config_.max_rows, " of one call"));
  }
  const uint64_t bytes = call.rows * config_.hidden_bytes;
  Credit& account = credit->second;
  if (bytes > account.granted_bytes - account.outstanding_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "a call of ", bytes, " B exceeds the stream's credit: ", account.outstanding_bytes, " of ",
        account.granted_bytes, " B are outstanding"));
  }
  if (queue_.size() >= config_.max_queued_calls) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the FFN queue holds ", config_.max_queued_calls, " calls"));
  }
  account.outstanding_bytes += bytes;
  queued_bytes_ += bytes;
  TANDEM_CHECK(queued_bytes_ <= config_.max_queued_bytes);  // grants sum to at most that
  const auto other = [&](StreamId stream) { return stream != call.stream; };
  const bool behind = std::any_of(computing_.begin(), computing_.end(), other) ||
                      std::any_of(queue_.begin(), queue_.end(),
                                  [&](const QueuedCall& queued) { return other(queued.stream); });
  queue_.push_back(call);
  queue_.back().behind_others = behind;
  NoteCall(call);
  return absl::OkStatus();
}

void FfnMachine::CloseStream(StreamId stream) {
  const auto credit = credit_.find(stream);
  if (credit == credit_.end()) return;
  granted_bytes_ -= credit->second.granted_bytes;
  credit_.erase(credit);
  senders_.erase(stream);
  std::erase_if(queue_, [&](const QueuedCall& call) {
    if (call.stream != stream) return false;
    queued_bytes_ -= call.rows * config_.hidden_bytes;
    return true;
  });
}

bool FfnTask::Shared(const QueuedCall& call) const {
  return call.behind_others ||
         std::any_of(calls.begin(), calls.end(),
                     [&](const QueuedCall& other) { return other.stream != call.stream; });
}

void FfnMachine::NoteCall(const QueuedCall& call) {
  Sender& sender = senders_[call.stream];
  const auto between = sender.between.find(call.call.micro_batch);
  if (between == sender.between.end()) return;
  if (between->second.layer == call.call.layer) {
    const Duration gap = call.arrival - between->second.since;
    sender.gap = sender.gap_known ? sender.gap + (gap - sender.gap) / 8 : gap;
    sender.gap_known = true;
  }
  sender.between.erase(between);
}

void FfnMachine::NoteAnswer(const QueuedCall& call, Instant now) {
  Sender& sender = senders_[call.stream];
  if (call.call.layer + 1 >= config_.layers || sender.between.size() >= kMaxMicroBatchesBetween) {
    sender.between.erase(call.call.micro_batch);
  } else {
    sender.between[call.call.micro_batch] = {call.call.layer + 1, now};
  }
}

Instant FfnMachine::ReadyAt() const {
  if (queue_.empty()) return Instant::Never();
  const QueuedCall& oldest = queue_.front();
  policy::MergeView view{oldest.call.layer,
                         oldest.rows,
                         oldest.arrival,
                         queued_bytes_ > oldest.rows * config_.hidden_bytes,
                         {}};
  if (config_.max_merge_wait <= Duration()) return oldest.arrival;
  std::vector<policy::ExpectedCall> expected;
  for (const auto& [stream, sender] : senders_) {
    if (stream == oldest.stream) continue;
    for (const auto& [micro_batch, between] : sender.between)
      expected.push_back({between.layer, between.since + sender.gap});
  }
  view.expected = expected;
  return policy::MergeUntil(view, config_.max_merge_wait);
}

std::optional<FfnTask> FfnMachine::NextTask(Instant now) {
  if (queue_.empty() || now < ReadyAt()) return std::nullopt;
  FfnTask task;
  task.layer = queue_.front().call.layer;
  std::erase_if(queue_, [&](const QueuedCall& call) {
    if (call.call.layer != task.layer || call.rows > config_.max_rows - task.rows) return false;
    task.rows += call.rows;
    queued_bytes_ -= call.rows * config_.hidden_bytes;
    task.calls.push_back(call);
    computing_.insert(call.stream);
    return true;
  });
  return task;
}

void FfnMachine::OnTaskDone(const FfnTask& task, Instant now) {
  computing_.clear();
  for (const QueuedCall& call : task.calls) {
    const auto credit = credit_.find(call.stream);
    if (credit == credit_.end()) continue;  // closed meanwhile
    const uint64_t bytes = call.rows * config_.hidden_bytes;
    TANDEM_CHECK(credit->second.outstanding_bytes >= bytes);
    credit->second.outstanding_bytes -= bytes;
    NoteAnswer(call, now);
  }
}

uint64_t FfnMachine::queued_rows() const { return queued_bytes_ / config_.hidden_bytes; }

}  // namespace tandem::step
