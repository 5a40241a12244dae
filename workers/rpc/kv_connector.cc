#include "workers/rpc/kv_connector.h"

#include <absl/strings/str_cat.h>

#include <atomic>
#include <deque>
#include <optional>
#include <utility>

#include "services/runtime/client_stream.h"
#include "services/runtime/grpc_server.h"
#include "services/runtime/stream_count.h"
#include "tandem/v1/kv_transfer.grpc.pb.h"
#include "workers/rpc/convert.h"
#include "workers/rpc/listener_gate.h"

namespace tandem {

struct KvShared {
  KvShared(TimeSource& time, Random random, LinkLimits limits, LinkSecurity security)
      : time(time),
        limits(limits),
        security(std::move(security)),
        dialer(time, limits.backoff, random) {}
  TimeSource& time;
  const LinkLimits limits;
  const LinkSecurity security;
  Dialer dialer;
  StreamCount streams;
};

namespace {

// One stream to one attention worker. The holder answers each frame once and in order, so the
// outstanding ones are a queue of sizes.
class KvClient final : public ClientStream<v1::KvFrame, v1::KvAck> {
 public:
  KvClient(std::shared_ptr<KvShared> shared, const WorkerId& worker, const std::string& address,
           std::shared_ptr<KvLinkListener> listener)
      : shared_(std::move(shared)),
        worker_(worker),
        address_(address),
        listener_(std::move(listener)),
        stub_(v1::KvTransfer::NewStub(MakeChannel(address, shared_->security))) {}

  // Separate from the constructor: alarms hold this weakly.
  void Connect() {
    std::weak_ptr<KvClient> weak = std::static_pointer_cast<KvClient>(shared_from_this());
    watch_ = StallWatch::Make(shared_->time, shared_->limits.stall, [weak](Duration waited) {
      if (auto self = weak.lock()) {
        self->Break(absl::UnavailableError(absl::StrCat("attention worker ", self->worker_.value(),
                                                        ": no acknowledgement for ",
                                                        waited.seconds(), " s")));
      }
    });
    shared_->dialer.Dial(address_, [weak] {
      auto self = weak.lock();
      if (self == nullptr) return;
      self->Start([&self](grpc::ClientContext* context, auto* reactor) {
        self->stub_->async()->Push(context, reactor);
      });
    });
  }

  void Push(KvRows rows) {
    const uint64_t bytes = rows.rows.size();
    v1::KvFrame frame;
    ToProto(std::move(rows), &frame);
    watch_->Begin(bytes);
    MutexLock lock(mu_);  // sizes stand in the order of the frames
    outstanding_.push_back(bytes);
    Write(std::move(frame));
  }

  // The link is gone: no listener call follows.
  void Shut() {
    ended_.store(true);
    listener_.Shut();
    watch_->Stop();
    Cancel();
  }

 private:
  bool OnMessage(v1::KvAck& message) override {
    std::optional<uint64_t> bytes;
    {
      MutexLock lock(mu_);
      if (!outstanding_.empty()) {
        bytes = outstanding_.front();
        outstanding_.pop_front();
      }
    }
    absl::StatusOr<KvAckInfo> ack = ToKvAck(message);
    if (!bytes || !ack.ok()) {
      Break(absl::InternalError(
          absl::StrCat("attention worker ", worker_.value(), ": ",
                       bytes ? ack.status().message() : "an acknowledgement of no frame")));
      return false;
    }
    watch_->End(*bytes);
    shared_->dialer.Succeeded(address_);
    listener_.Call([&](KvLinkListener& listener) { listener.OnAck(*ack); });
    return true;
  }

  void Break(const absl::Status& status) {
    if (ended_.exchange(true)) return;
    shared_->dialer.Failed(address_);
    watch_->Stop();
    listener_.CallLast([&](KvLinkListener& listener) { listener.OnBroken(status); });
    Cancel();
  }

  void OnClosed(const grpc::Status& status) override {
    Break(absl::UnavailableError(
        absl::StrCat("attention worker ", worker_.value(), " at ", address_, ": ",
                     status.ok() ? "closed the stream" : status.error_message())));
  }

  const std::shared_ptr<KvShared> shared_;
  const StreamCount::Place place_ = *shared_->streams.Take();
  const WorkerId worker_;
  const std::string address_;
  ListenerGate<KvLinkListener> listener_;
  const std::unique_ptr<v1::KvTransfer::Stub> stub_;
  std::shared_ptr<StallWatch> watch_;
  std::atomic<bool> ended_{false};  // broken, or shut by its owner
  Mutex mu_;
  std::deque<uint64_t> outstanding_
      TANDEM_GUARDED_BY(mu_);  // bytes of each frame without an acknowledgement
};

class GrpcKvLink final : public KvLink {
 public:
  explicit GrpcKvLink(std::shared_ptr<KvClient> client) : client_(std::move(client)) {}
  ~GrpcKvLink() override { client_->Shut(); }
  void Push(KvRows frame) override { client_->Push(std::move(frame)); }

 private:
  const std::shared_ptr<KvClient> client_;
};

}  // namespace

GrpcKvConnector::GrpcKvConnector(TimeSource& time, Random random, LinkLimits limits,
                                 LinkSecurity security)
    : shared_(std::make_shared<KvShared>(time, random, limits, std::move(security))) {}

GrpcKvConnector::~GrpcKvConnector() { shared_->streams.WaitForNone(); }

std::unique_ptr<KvLink> GrpcKvConnector::Open(const WorkerId& attention_worker,
                                              const std::string& address,
                                              std::shared_ptr<KvLinkListener> listener) {
  auto client = std::make_shared<KvClient>(shared_, attention_worker, address, std::move(listener));
  client->Connect();
  return std::make_unique<GrpcKvLink>(std::move(client));
}

}  // namespace tandem
