#pragma once

// A sender's side of one hand-off stream, message by message, for a holder that nobody knows yet:
// every wait has an end.

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/sync_stream.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "scheduler/base/time.h"
#include "services/runtime/mutex.h"
#include "tandem/v1/handoff.grpc.pb.h"

namespace tandem::conformance {

// What came: a message, the stream's end, or nothing in time.
struct Heard {
  std::optional<v1::F2aMessage> message;
  std::optional<grpc::Status> end;  // both unset: nothing came

  bool silent() const { return !message.has_value() && !end.has_value(); }
};

// One stream over `channel`. Used by one thread. Its destructor cancels what is left.
class FfnPeer {
 public:
  // `patience`: how long a wait lasts. A stream lives for kLives of them at most, so that even a
  // write to a holder that reads nothing ends.
  static constexpr int kLives = 20;
  FfnPeer(const std::shared_ptr<grpc::Channel>& channel, Duration patience);
  ~FfnPeer();
  FfnPeer(const FfnPeer&) = delete;
  FfnPeer& operator=(const FfnPeer&) = delete;

  // False: the stream is over; Await says how.
  bool Send(const v1::A2fMessage& message) { return stream_->Write(message); }
  void HalfClose() { stream_->WritesDone(); }
  // The next message or the end.
  Heard Await() TANDEM_EXCLUDES(mu_);
  // Takes that many messages more and then reads no further: what the holder sends stays with gRPC,
  // which takes some 64 KiB and then lets it wait.
  void StopReadingAfter(uint64_t messages) TANDEM_EXCLUDES(mu_);
  void ReadOn() { StopReadingAfter(kAll); }
  void Cancel() { context_.TryCancel(); }

 private:
  static constexpr uint64_t kAll = ~uint64_t{0};
  void ReadAll() TANDEM_EXCLUDES(mu_);

  const Duration patience_;
  grpc::ClientContext context_;
  std::unique_ptr<v1::Handoff::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::A2fMessage, v1::F2aMessage>> stream_;
  Mutex mu_;
  CondVar changed_;
  uint64_t to_read_ TANDEM_GUARDED_BY(mu_) = kAll;  // with the one that is being read
  bool closing_ TANDEM_GUARDED_BY(mu_) = false;
  std::deque<v1::F2aMessage> messages_ TANDEM_GUARDED_BY(mu_);
  std::optional<grpc::Status> end_ TANDEM_GUARDED_BY(mu_);
  std::thread reader_;  // last: it uses the others
};

}  // namespace tandem::conformance
