#include "scheduler/step/ffn_machine.h"

#include <absl/strings/str_cat.h>

#include <algorithm>

#include "scheduler/base/check.h"

namespace tandem::step {

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
  queue_.push_back(call);
  return absl::OkStatus();
}

void FfnMachine::CloseStream(StreamId stream) {
  const auto credit = credit_.find(stream);
  if (credit == credit_.end()) return;
  granted_bytes_ -= credit->second.granted_bytes;
  credit_.erase(credit);
  std::erase_if(queue_, [&](const QueuedCall& call) {
    if (call.stream != stream) return false;
    queued_bytes_ -= call.rows * config_.hidden_bytes;
    return true;
  });
}

std::optional<FfnTask> FfnMachine::NextTask(Instant) {
  if (queue_.empty()) return std::nullopt;
  FfnTask task;
  task.layer = queue_.front().call.layer;
  std::erase_if(queue_, [&](const QueuedCall& call) {
    if (call.call.layer != task.layer || call.rows > config_.max_rows - task.rows) return false;
    task.rows += call.rows;
    queued_bytes_ -= call.rows * config_.hidden_bytes;
    task.calls.push_back(call);
    return true;
  });
  return task;
}

void FfnMachine::OnTaskDone(const FfnTask& task) {
  for (const QueuedCall& call : task.calls) {
    const auto credit = credit_.find(call.stream);
    if (credit == credit_.end()) continue;  // closed meanwhile
    const uint64_t bytes = call.rows * config_.hidden_bytes;
    TANDEM_CHECK(credit->second.outstanding_bytes >= bytes);
    credit->second.outstanding_bytes -= bytes;
  }
}

uint64_t FfnMachine::queued_rows() const { return queued_bytes_ / config_.hidden_bytes; }

}  // namespace tandem::step
