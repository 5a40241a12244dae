#include "workers/engine/device_books.h"

#include <algorithm>

namespace tandem {

using ledger::Cause;
using ledger::LedgerStage;
using ledger::LedgerState;

DeviceBooks::DeviceBooks(LedgerStage own_stage, const TimeSource& time, const DeviceTimeline& line,
                         TraceLog& trace)
    : time_(time),
      line_(line),
      trace_(trace),
      opened_(line.Now()),
      ledger_(own_stage, opened_),
      state_(LedgerState::kIdle, Cause::kStarting),
      since_(opened_),
      busy_stage_(own_stage) {}

Instant DeviceBooks::OfDevice(Instant machine) const {
  return opened_ + line_.DeviceTime(machine - opened_);
}

Instant DeviceBooks::DeviceNow() const { return OfDevice(line_.Now()); }

Instant DeviceBooks::Now() const { return OfDevice(time_.Now()); }

void DeviceBooks::EnterBusy(LedgerStage stage) {
  MutexLock lock(mu_);
  if (state_.first == LedgerState::kBusy && busy_stage_ == stage) return;
  Enter(stage, LedgerState::kBusy, Cause::kNone);
  busy_stage_ = stage;
}

void DeviceBooks::EnterWait(LedgerState state, Cause cause) {
  MutexLock lock(mu_);
  if (state_ == std::pair(state, cause)) return;
  Enter(LedgerStage::kShared, state, cause);
}

void DeviceBooks::Enter(LedgerStage stage, LedgerState state, Cause cause) {
  const Instant now = line_.Now();
  ledger_.Enter(stage, state, cause, OfDevice(now));
  if (const std::optional<Span> wait = WaitUntil(now)) trace_.Add(*wait);
  state_ = {state, cause};
  since_ = now;
}

std::optional<Span> DeviceBooks::WaitUntil(Instant end) const {
  if (state_.first == LedgerState::kBusy) return std::nullopt;
  Span wait;
  wait.kind = SpanKind::kWait;
  wait.cause = state_.second;
  wait.begin = since_;
  wait.end = std::max(since_, end);
  return wait;
}

std::optional<Span> DeviceBooks::OpenWait() const {
  MutexLock lock(mu_);
  return WaitUntil(time_.Now());
}

void DeviceBooks::OnReply(const ledger::CallTimes& call) {
  MutexLock lock(mu_);
  if (state_ == std::pair(LedgerState::kStall, Cause::kHandoff))
    ledger_.BookExposedWait(call, DeviceNow());
}

void DeviceBooks::Publish(WorkerReport report) {
  MutexLock lock(mu_);
  report.live = std::move(report_.live);
  report_ = std::move(report);
}

void DeviceBooks::PublishLive(std::vector<SequenceKey> live) {
  MutexLock lock(mu_);
  report_.live = std::move(live);
}

WorkerReport DeviceBooks::Report() const {
  MutexLock lock(mu_);
  WorkerReport report = report_;
  report.ledger = ledger_.Snapshot(Now());
  return report;
}

}  // namespace tandem
