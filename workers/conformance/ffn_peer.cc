#include "workers/conformance/ffn_peer.h"

#include <grpc/support/time.h>

#include <chrono>
#include <utility>

namespace tandem::conformance {

FfnPeer::FfnPeer(const std::shared_ptr<grpc::Channel>& channel, Duration patience)
    : patience_(patience), stub_(v1::Handoff::NewStub(channel)) {
  context_.set_wait_for_ready(false);
  context_.set_deadline(gpr_time_from_nanos((patience * kLives).nanoseconds(), GPR_TIMESPAN));
  stream_ = stub_->Exchange(&context_);
  reader_ = std::thread([this] { ReadAll(); });
}

FfnPeer::~FfnPeer() {
  {
    MutexLock lock(mu_);
    closing_ = true;
    changed_.NotifyAll();
  }
  context_.TryCancel();
  reader_.join();
}

void FfnPeer::ReadAll() {
  for (;;) {
    {
      MutexLock lock(mu_);
      while (to_read_ == 0 && !closing_) changed_.Wait(lock);
    }
    v1::F2aMessage message;
    if (!stream_->Read(&message)) break;
    MutexLock lock(mu_);
    messages_.push_back(std::move(message));
    if (to_read_ != kAll && to_read_ > 0) to_read_--;
    changed_.NotifyAll();
  }
  grpc::Status status = stream_->Finish();
  MutexLock lock(mu_);
  end_ = std::move(status);
  changed_.NotifyAll();
}

Heard FfnPeer::Await() {
  MutexLock lock(mu_);
  const std::chrono::nanoseconds patience(patience_.nanoseconds());
  while (messages_.empty() && !end_.has_value()) {
    if (!changed_.WaitFor(lock, patience)) break;
  }
  Heard heard;
  if (!messages_.empty()) {
    heard.message = std::move(messages_.front());
    messages_.pop_front();
  } else {
    heard.end = end_;
  }
  return heard;
}

void FfnPeer::StopReadingAfter(uint64_t messages) {
  MutexLock lock(mu_);
  to_read_ = messages;
  changed_.NotifyAll();
}

}  // namespace tandem::conformance
