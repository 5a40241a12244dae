#include "workers/rpc/handoff_connector.h"

#include <absl/strings/str_cat.h>
#include <grpcpp/generic/generic_stub.h>

#include <optional>
#include <utility>

#include "scheduler/base/status.h"
#include "services/runtime/client_stream.h"
#include "services/runtime/grpc_server.h"
#include "services/runtime/status_map.h"
#include "services/runtime/stream_count.h"
#include "workers/rpc/convert.h"
#include "workers/rpc/handoff_codec.h"
#include "workers/rpc/listener_gate.h"

namespace tandem {
namespace {

using RawStub = grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer>;
constexpr char kExchange[] = "/tandem.v1.Handoff/Exchange";

uint64_t RowBytes(const std::vector<float>& rows) { return rows.size() * sizeof(float); }

}  // namespace

struct HandoffShared {
  HandoffShared(TimeSource& time, Random random, LinkLimits limits, LinkSecurity security)
      : time(time),
        limits(limits),
        security(std::move(security)),
        dialer(time, limits.backoff, random) {}
  TimeSource& time;
  const LinkLimits limits;
  const LinkSecurity security;
  Dialer dialer;
  StreamCount streams;
  std::atomic<uint64_t> mismatched{0};
};

namespace {

// One stream to one holder. Outstanding calls are known by id, so that a reply of the wrong size,
// or one that nobody asked for, never reaches the engine.
class HandoffClient final : public ClientStream<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  HandoffClient(std::shared_ptr<HandoffShared> shared, const FfnEndpoint& holder,
                const HandoffHello& hello, std::shared_ptr<FfnLinkListener> listener)
      : shared_(std::move(shared)),
        holder_(holder),
        listener_(std::move(listener)),
        stub_(MakeChannel(holder.address, shared_->security)) {
    Write(EncodeOpen(hello));
  }

  // Separate from the constructor: alarms hold this weakly.
  void Connect() {
    std::weak_ptr<HandoffClient> weak = Self();
    watch_ = StallWatch::Make(shared_->time, shared_->limits.stall, [weak](Duration waited) {
      if (auto self = weak.lock()) {
        self->Break(
            absl::UnavailableError(absl::StrCat("FFN worker ", self->holder_.worker.value(),
                                                ": no answer for ", waited.seconds(), " s")));
      }
    });
    shared_->dialer.Dial(holder_.address, [weak] {
      auto self = weak.lock();
      if (self == nullptr) return;
      self->watch_->Begin(0);  // ended by the grant
      self->Start([&self](grpc::ClientContext* context, auto* reactor) {
        self->stub_.PrepareBidiStreamingCall(context, kExchange, grpc::StubOptions(), reactor);
      });
    });
  }

  void Send(A2f call) {
    const uint64_t bytes = RowBytes(call.data);
    {
      MutexLock lock(mu_);
      TANDEM_CHECK(
          outstanding_.emplace(call.call, bytes).second);  // a call sent again has a higher attempt
    }
    watch_->Begin(bytes);
    Write(EncodeCall(std::move(call)));
  }

  void SetLive(bool live, Instant arrives_at) { Write(EncodeLive(live, arrives_at)); }

  // The link is gone: no listener call follows.
  void Shut() {
    ended_.store(true);
    listener_.Shut();
    watch_->Stop();
    Cancel();
  }

 private:
  std::shared_ptr<HandoffClient> Self() {
    return std::static_pointer_cast<HandoffClient>(shared_from_this());
  }

  bool OnMessage(grpc::ByteBuffer& message) override {
    absl::StatusOr<F2aFrame> frame = DecodeF2a(message);
    message.Clear();
    absl::Status status = frame.status();
    if (frame.ok())
      status = frame->grant ? OnGrant(*frame->grant) : OnReply(*std::move(frame->reply));
    if (!status.ok()) Break(status);
    return status.ok();
  }

  absl::Status OnGrant(const v1::HandoffGrant& message) {
    if (granted_)
      return absl::InternalError(
          absl::StrCat("FFN worker ", holder_.worker.value(), ": a second grant"));
    ASSIGN_OR_RETURN(const HandoffGrantInfo grant, ToGrant(message));
    granted_ = true;
    watch_->End(0);
    shared_->dialer.Succeeded(holder_.address);
    listener_.Call([&](FfnLinkListener& listener) { listener.OnGrant(grant); });
    return absl::OkStatus();
  }

  absl::Status OnReply(F2aFrame::Reply reply) {
    if (!granted_)
      return absl::InternalError(
          absl::StrCat("FFN worker ", holder_.worker.value(), ": a reply before the grant"));
    const step::CallId id = CallIdOf(reply.fields);
    uint64_t bytes = 0;
    {
      MutexLock lock(mu_);
      const auto found = outstanding_.find(id);
      if (found == outstanding_.end()) {
        shared_->mismatched.fetch_add(1);
        return absl::OkStatus();
      }
      bytes = found->second;
      outstanding_.erase(found);
    }
    watch_->End(bytes);
    F2a answer;
    answer.call = id;
    answer.data = std::move(reply.rows);
    answer.arrives_at = Instant::FromNanoseconds(reply.fields.arrives_at_nanoseconds());
    answer.queue_time = ToDuration(reply.fields.queue_seconds());
    answer.compute_time = ToDuration(reply.fields.compute_seconds());
    answer.merged_rows = reply.fields.merged_rows();
    answer.shared = reply.fields.shared();
    if (reply.fields.has_error()) {
      answer.status = FromProto(reply.fields.error());
      answer.data.clear();
    } else if (reply.data_bytes != bytes) {
      return absl::InternalError(absl::StrCat("FFN worker ", holder_.worker.value(), ": reply of ",
                                              reply.data_bytes, " bytes to a call of ", bytes));
    }
    listener_.Call([&](FfnLinkListener& listener) { listener.OnReply(std::move(answer)); });
    return absl::OkStatus();
  }

  void Break(const absl::Status& status) {
    if (ended_.exchange(true)) return;
    shared_->dialer.Failed(holder_.address);
    watch_->Stop();
    listener_.CallLast([&](FfnLinkListener& listener) { listener.OnBroken(status); });
    Cancel();
  }

  void OnClosed(const grpc::Status& status) override {
    Break(status.ok() ? absl::UnavailableError(absl::StrCat("FFN worker ", holder_.worker.value(),
                                                            " closed the stream"))
                      : absl::UnavailableError(absl::StrCat("FFN worker ", holder_.worker.value(),
                                                            " at ", holder_.address, ": ",
                                                            status.error_message())));
  }

  const std::shared_ptr<HandoffShared> shared_;
  const StreamCount::Place place_ = *shared_->streams.Take();
  const FfnEndpoint holder_;
  ListenerGate<FfnLinkListener> listener_;
  RawStub stub_;
  std::shared_ptr<StallWatch> watch_;
  std::atomic<bool> ended_{false};  // broken, or shut by its owner
  bool granted_ = false;            // reactions only
  Mutex mu_;
  std::map<step::CallId, uint64_t> outstanding_
      TANDEM_GUARDED_BY(mu_);  // bytes of rows, as many come back
};

class GrpcFfnLink final : public FfnLink {
 public:
  explicit GrpcFfnLink(std::shared_ptr<HandoffClient> client) : client_(std::move(client)) {}
  ~GrpcFfnLink() override { client_->Shut(); }
  void Send(A2f call) override { client_->Send(std::move(call)); }
  void SetLive(bool live, Instant arrives_at) override { client_->SetLive(live, arrives_at); }

 private:
  const std::shared_ptr<HandoffClient> client_;
};

}  // namespace

HandoffConnector::HandoffConnector(TimeSource& time, Random random, LinkLimits limits,
                                   LinkSecurity security)
    : shared_(std::make_shared<HandoffShared>(time, random, limits, std::move(security))) {}

HandoffConnector::~HandoffConnector() { shared_->streams.WaitForNone(); }

std::unique_ptr<FfnLink> HandoffConnector::Open(const FfnEndpoint& holder,
                                                const HandoffHello& hello,
                                                std::shared_ptr<FfnLinkListener> listener) {
  auto client = std::make_shared<HandoffClient>(shared_, holder, hello, std::move(listener));
  client->Connect();
  return std::make_unique<GrpcFfnLink>(std::move(client));
}

uint64_t HandoffConnector::mismatched_replies() const { return shared_->mismatched.load(); }

}  // namespace tandem
