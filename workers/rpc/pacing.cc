#include "workers/rpc/pacing.h"

#include <utility>

#include "scheduler/base/check.h"

namespace tandem {
namespace {

constexpr size_t kMaxFailing = 1024;  // addresses whose failures are remembered

}  // namespace

void Dialer::Dial(const std::string& address, absl::AnyInvocable<void()> dial) {
  const Instant now = time_.Now();
  Instant not_before = now;
  {
    MutexLock lock(mu_);
    if (const auto found = failing_.find(address); found != failing_.end())
      not_before = found->second.not_before;
  }
  if (not_before <= now) return dial();
  time_.CallAt(not_before, std::move(dial));
}

void Dialer::Failed(const std::string& address) {
  const Instant now = time_.Now();
  MutexLock lock(mu_);
  if (failing_.size() >= kMaxFailing && !failing_.contains(address))
    failing_.erase(failing_.begin());
  const uint64_t seed = random_.Next();
  Failing& failing =
      failing_.try_emplace(address, Failing{Backoff(limits_, Random(seed)), now}).first->second;
  failing.not_before = now + failing.backoff.Next();
}

void Dialer::Succeeded(const std::string& address) {
  MutexLock lock(mu_);
  failing_.erase(address);
}

std::shared_ptr<StallWatch> StallWatch::Make(TimeSource& time, StallLimits limits,
                                             absl::AnyInvocable<void(Duration)> on_stall) {
  return std::shared_ptr<StallWatch>(new StallWatch(time, limits, std::move(on_stall)));
}

void StallWatch::Begin(uint64_t bytes) {
  const Instant now = time_.Now();
  MutexLock lock(mu_);
  if (stopped_) return;
  if (pieces_++ == 0) progress_ = now;
  bytes_ += bytes;
  if (!armed_) Arm(Deadline());
}

void StallWatch::End(uint64_t bytes) {
  const Instant now = time_.Now();
  MutexLock lock(mu_);
  if (stopped_) return;
  TANDEM_CHECK(pieces_ > 0 && bytes_ >= bytes);
  --pieces_;
  bytes_ -= bytes;
  progress_ = now;  // the alarm stays: it looks again when it fires, so an answer costs no alarm
}

void StallWatch::Stop() {
  MutexLock lock(mu_);
  stopped_ = true;
  if (armed_) time_.Cancel(alarm_);
  armed_ = false;
}

Instant StallWatch::Deadline() const {
  return progress_ + limits_.base + limits_.per_piece * static_cast<int64_t>(pieces_) +
         Duration::FromSeconds(static_cast<double>(bytes_) /
                               static_cast<double>(limits_.bytes_per_second));
}

void StallWatch::Arm(Instant when) {
  armed_ = true;
  armed_for_ = when;
  alarm_ = time_.CallAt(when, [weak = weak_from_this()] {
    if (auto watch = weak.lock()) watch->OnAlarm();
  });
}

void StallWatch::OnAlarm() {
  const Instant now = time_.Now();
  absl::AnyInvocable<void(Duration)> stalled;
  Duration waited;
  {
    MutexLock lock(mu_);
    armed_ = false;
    if (stopped_ || pieces_ == 0) return;
    if (now - armed_for_ > limits_.base / 2) progress_ = now;
    if (now < Deadline()) return Arm(Deadline());
    stopped_ = true;
    waited = now - progress_;
    stalled = std::move(on_stall_);
  }
  stalled(waited);
}

}  // namespace tandem
