#include "workers/rpc/handoff_service.h"

#include <optional>
#include <utility>

#include "services/runtime/log.h"
#include "services/runtime/server_stream.h"
#include "workers/connector/stale_shard.h"
#include "workers/rpc/handoff_codec.h"

namespace tandem {
namespace {

// Queued behind the write in flight. A sender that keeps to its credit never leaves so many unread:
// two of its largest calls, 256 rows each by default, cut into single rows.
constexpr size_t kMaxUnreadReplies = 1024;

ServerStreamOptions Bounded(ServerStreamOptions options) {
  options.max_queued_messages = kMaxUnreadReplies;
  return options;
}

// One attention worker's stream. The engine holds it as the sink of its replies and may outlive the
// call: then Reply does nothing.
class HandoffStream final : public ServerStream<grpc::ByteBuffer, grpc::ByteBuffer>,
                            public FfnReplySink {
 public:
  HandoffStream(ServerStreamOptions options, FfnDoor& door, std::atomic<uint64_t>& malformed_calls)
      : ServerStream(Bounded(std::move(options))), door_(door), malformed_calls_(malformed_calls) {}

  void Reply(F2a reply) override { Write(EncodeReply(std::move(reply), shard_epoch_.load())); }

 private:
  bool OnMessage(grpc::ByteBuffer& message) override {
    absl::StatusOr<A2fFrame> frame = DecodeA2f(message);
    message.Clear();
    if (!frame.ok()) return Fail(frame.status());
    if (frame->live) return OnLive(*frame->live);
    return frame->open ? OnOpen(*frame->open) : OnCall(*std::move(frame->call));
  }

  bool OnOpen(const v1::HandoffOpen& open) {
    if (hello_) return Fail(absl::InvalidArgumentError("hand-off: a second open"));
    absl::StatusOr<HandoffHello> hello = ToHello(open);
    if (!hello.ok()) {
      Refuse(hello.status());
      return false;
    }
    hello_ = *hello;
    auto self = std::static_pointer_cast<HandoffStream>(shared_from_this());
    door_.OpenStream(*hello_, self,
                     [self](absl::StatusOr<std::pair<step::StreamId, HandoffGrantInfo>> opened) {
                       self->OnOpened(std::move(opened));
                     });
    return true;
  }

  // Called by the engine.
  void OnOpened(absl::StatusOr<std::pair<step::StreamId, HandoffGrantInfo>> opened) {
    if (!opened.ok()) {
      if (const auto current = CurrentShardEpoch(opened.status())) shard_epoch_.store(*current);
      return Refuse(opened.status());
    }
    const HandoffGrantInfo& grant = opened->second;
    shard_epoch_.store(grant.shard_epoch);
    bool closed = false;
    {
      MutexLock lock(mu_);
      closed = closed_;
      if (!closed) stream_ = opened->first;
      max_rows_ = grant.max_rows;
    }
    if (closed)
      return door_.CloseStream(opened->first);  // the peer left before its stream was open
    LogInfo("handoff_opened",
            {{"attention_worker", hello_->attention_worker}, {"credit_bytes", grant.credit_bytes}});
    Write(EncodeGrant(grant));
  }

  // The granted stream and the rows of its largest call.
  std::pair<std::optional<step::StreamId>, uint32_t> Granted() {
    MutexLock lock(mu_);
    return {stream_, max_rows_};
  }

  bool OnLive(const v1::HandoffLive& live) {
    const auto [stream, max_rows] = Granted();
    if (!stream) return Fail(absl::InvalidArgumentError("hand-off: live before the grant"));
    door_.SetLive(*stream, live.live(), Instant::FromNanoseconds(live.arrives_at_nanoseconds()));
    return true;
  }

  bool OnCall(A2fFrame::Call call) {
    const auto [stream, max_rows] = Granted();
    if (!stream) return Fail(absl::InvalidArgumentError("hand-off: a call before the grant"));
    const step::CallId id = CallIdOf(call.fields);
    if (absl::Status status = CheckCall(call, *hello_, max_rows); !status.ok()) {
      malformed_calls_.fetch_add(1);
      F2a refusal;
      refusal.call = id;
      refusal.status = std::move(status);
      Reply(std::move(refusal));
      return true;
    }
    door_.Call(*stream,
               A2f{.call = id,
                   .rows = call.fields.rows(),
                   .shard_epoch = call.fields.shard_epoch(),
                   .data = std::move(call.rows),
                   .arrives_at = Instant::FromNanoseconds(call.fields.arrives_at_nanoseconds())});
    return true;
  }

  void OnClosed() override {
    std::optional<step::StreamId> stream;
    {
      MutexLock lock(mu_);
      closed_ = true;
      stream = std::exchange(stream_, std::nullopt);
    }
    if (stream) {
      LogInfo("handoff_closed", {{"attention_worker", hello_->attention_worker}});
      door_.CloseStream(*stream);
    }
  }

  void Refuse(const absl::Status& status) {
    LogWarn("handoff_refused", {{"reason", status.ToString()}});
    Write(EncodeRefusal(status, shard_epoch_.load()));
    End(absl::OkStatus());
  }
  bool Fail(const absl::Status& status) {
    LogWarn("handoff_broken", {{"reason", status.ToString()}});
    EndNow(status);
    return false;
  }
  FfnDoor& door_;
  std::atomic<uint64_t>& malformed_calls_;
  std::optional<HandoffHello>
      hello_;  // set by the first message, before the engine hears of the stream
  std::atomic<uint64_t> shard_epoch_{0};
  Mutex mu_;
  std::optional<step::StreamId> stream_ TANDEM_GUARDED_BY(mu_);  // granted and open
  uint32_t max_rows_ TANDEM_GUARDED_BY(mu_) = 0;
  bool closed_ TANDEM_GUARDED_BY(mu_) = false;
};

}  // namespace

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* HandoffService::Exchange(
    grpc::CallbackServerContext*) {
  return StartStream<HandoffStream, grpc::ByteBuffer, grpc::ByteBuffer>(streams_, door_,
                                                                        malformed_calls_);
}

}  // namespace tandem
