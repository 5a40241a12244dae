#include "services/gateway/relay/grpc/links.h"

#include <utility>

#include "services/gateway/relay/grpc/client_stream.h"
#include "services/gateway/relay/grpc/convert.h"
#include "services/runtime/grpc_server.h"
#include "tandem/v1/router.grpc.pb.h"
#include "tandem/v1/step_tokens.grpc.pb.h"

namespace tandem::gateway {
namespace {

constexpr uint32_t kProtocolVersion = 1;

// A channel and its stub, which live as long as the call.
template <typename Service>
struct Dialled {
  explicit Dialled(const std::string& address)
      : channel(MakeChannel(address)), stub(Service::NewStub(channel)) {}
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<typename Service::Stub> stub;
};

}  // namespace

class GrpcLinks::Router final : public RouterLink {
 public:
  using Stream = ClientStream<v1::GatewayMessage, v1::RouterMessage>;

  Router(const GatewayIdentity& identity, TimeSource& time, std::weak_ptr<Relay> relay)
      : relay_(std::move(relay)) {
    stream_ = std::make_shared<Stream>(
        time, Stream::Hooks{.dial = [](const std::string& address, grpc::ClientContext* context,
                                       Stream::Reactor* reactor) -> std::shared_ptr<void> {
                              auto dialled = std::make_shared<Dialled<v1::Router>>(address);
                              dialled->stub->async()->Generate(context, reactor);
                              return dialled;
                            },
                            .hello =
                                [identity] {
                                  v1::GatewayMessage message;
                                  message.mutable_hello()->set_gateway_id(identity.gateway_id);
                                  message.mutable_hello()->set_protocol_version(kProtocolVersion);
                                  message.mutable_hello()->set_model(identity.model);
                                  return message;
                                },
                            .opened = [] {},  // its welcome says so
                            .received = [this](v1::RouterMessage& message) { Received(message); },
                            .lost =
                                [this](const absl::Status&) {
                                  if (const auto relay = relay_.lock()) relay->RouterDown(index);
                                }});
  }
  void Dial(const std::string& address) { stream_->Dial(address); }
  void Generate(const tandem::GenerateSpec& spec) override {
    v1::GatewayMessage message;
    ToProto(spec, message.mutable_generate());
    stream_->Write(std::move(message));
  }
  void Abort(const RequestId& request, const std::vector<uint32_t>& choices) override {
    v1::GatewayMessage message;
    message.mutable_abort()->set_request_id(request.value());
    message.mutable_abort()->mutable_choices()->Add(choices.begin(), choices.end());
    stream_->Write(std::move(message));
  }

  size_t index = 0;  // the relay's number; set before Dial

 private:
  void Received(v1::RouterMessage& message) {
    const auto relay = relay_.lock();
    if (relay == nullptr) return;
    switch (message.message_case()) {
      case v1::RouterMessage::kWelcome:
        return relay->RouterUp(index,
                               Duration::FromSeconds(message.welcome().gateway_lease_seconds()));
      case v1::RouterMessage::kState:
        return relay->ClusterChanged(index, FromProto(message.state()));
      case v1::RouterMessage::kPlaced:
        return relay->Placed(FromProto(message.placed()));
      case v1::RouterMessage::kEnd:
        return relay->Refused(FromProto(message.end()));
      case v1::RouterMessage::MESSAGE_NOT_SET:
        return;
    }
  }

  const std::weak_ptr<Relay> relay_;
  std::shared_ptr<Stream> stream_;
};

class GrpcLinks::Worker final : public WorkerLink {
 public:
  using Stream = ClientStream<v1::TokenControl, v1::TokenStep>;

  Worker(const GatewayIdentity& identity, WorkerId worker, TimeSource& time,
         std::weak_ptr<Relay> relay)
      : worker_(std::move(worker)), relay_(std::move(relay)) {
    stream_ = std::make_shared<Stream>(
        time, Stream::Hooks{.dial = [](const std::string& address, grpc::ClientContext* context,
                                       Stream::Reactor* reactor) -> std::shared_ptr<void> {
                              auto dialled = std::make_shared<Dialled<v1::Tokens>>(address);
                              dialled->stub->async()->StepTokens(context, reactor);
                              return dialled;
                            },
                            .hello = [this, identity] { return Hello(identity); },
                            .opened =
                                [this] {
                                  if (const auto relay = relay_.lock()) relay->WorkerUp(worker_);
                                },
                            .received =
                                [this](v1::TokenStep& step) {
                                  if (const auto relay = relay_.lock())
                                    relay->Tokens(worker_, FromProto(step));
                                },
                            .lost =
                                [this](const absl::Status& why) {
                                  if (const auto relay = relay_.lock())
                                    relay->WorkerDown(worker_, why);
                                }});
  }
  void Stop(const SequenceKey& sequence, uint32_t position, EndReason reason) override {
    v1::TokenControl control;
    ToProto(sequence, control.mutable_stop()->mutable_sequence());
    control.mutable_stop()->set_position(position);
    control.mutable_stop()->set_reason(ToProto(reason));
    stream_->Write(std::move(control));
  }
  void Acknowledge(uint64_t step) override {
    v1::TokenControl control;
    control.mutable_ack()->set_step(step);
    stream_->Write(std::move(control));
  }
  void Dial(const std::string& address) override { stream_->Dial(address); }
  void Park() override { stream_->Park(); }

 private:
  v1::TokenControl Hello(const GatewayIdentity& identity) {
    v1::TokenControl control;
    control.mutable_hello()->set_gateway_id(identity.gateway_id);
    control.mutable_hello()->set_protocol_version(kProtocolVersion);
    const auto relay = relay_.lock();
    if (relay == nullptr) return control;
    for (const ResumePoint& point : relay->ResumePoints(worker_)) {
      v1::ResumePoint* resume = control.mutable_hello()->add_resume();
      ToProto(point.sequence, resume->mutable_sequence());
      resume->set_received(point.received);
    }
    return control;
  }

  const WorkerId worker_;
  const std::weak_ptr<Relay> relay_;
  std::shared_ptr<Stream> stream_;
};

GrpcLinks::GrpcLinks(GatewayIdentity identity, TimeSource& time)
    : identity_(std::move(identity)), time_(time) {}

GrpcLinks::~GrpcLinks() { Stop(); }

void GrpcLinks::Start(const std::shared_ptr<Relay>& relay,
                      const std::vector<std::string>& routers) {
  {
    MutexLock lock(mu_);
    relay_ = relay;
  }
  for (const std::string& address : routers) {
    routers_.push_back(std::make_unique<Router>(identity_, time_, relay));
    routers_.back()->index = relay->AddRouter(*routers_.back());
    routers_.back()->Dial(address);
  }
}

void GrpcLinks::Stop() {
  for (auto& router : routers_) router->Dial("");
  MutexLock lock(mu_);
  for (auto& [id, worker] : workers_) worker->Park();
}

WorkerLink* GrpcLinks::Link(const WorkerId& worker) {
  MutexLock lock(mu_);
  std::unique_ptr<Worker>& link = workers_[worker];
  if (link == nullptr) link = std::make_unique<Worker>(identity_, worker, time_, relay_);
  return link.get();
}

}  // namespace tandem::gateway
