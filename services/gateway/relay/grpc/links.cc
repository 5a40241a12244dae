#include "services/gateway/relay/grpc/links.h"

#include <utility>

#include "services/gateway/relay/grpc/convert.h"
#include "services/gateway/relay/grpc/redialled_stream.h"
#include "services/runtime/grpc_server.h"
#include "services/runtime/proto_words.h"
#include "tandem/v1/router.grpc.pb.h"
#include "tandem/v1/step_tokens.grpc.pb.h"

namespace tandem::gateway {
namespace {

constexpr uint32_t kProtocolVersion = 1;

// What a stream's callbacks hold instead of their link, which a late one may outlive.
struct Ear {
  std::weak_ptr<Relay> relay;
  size_t router = 0;  // the relay's number; set before the first dial
  WorkerId worker;
};

void Hear(const Ear& ear, v1::RouterMessage& message) {
  const auto relay = ear.relay.lock();
  if (relay == nullptr) return;
  switch (message.message_case()) {
    case v1::RouterMessage::kWelcome:
      return relay->RouterUp(ear.router,
                             Duration::FromSeconds(message.welcome().gateway_lease_seconds()));
    case v1::RouterMessage::kState:
      return relay->ClusterChanged(ear.router, FromProto(message.state()));
    case v1::RouterMessage::kLoad:
      return relay->LoadChanged(ear.router, FromProto(message.load()));
    case v1::RouterMessage::kPlaced:
      return relay->Placed(FromProto(message.placed()));
    case v1::RouterMessage::kEnd:
      return relay->Refused(FromProto(message.end()));
    case v1::RouterMessage::MESSAGE_NOT_SET:
      return;
  }
}

v1::TokenControl TokenHello(const Ear& ear, const GatewayIdentity& identity) {
  v1::TokenControl control;
  control.mutable_hello()->set_gateway_id(identity.gateway_id);
  control.mutable_hello()->set_protocol_version(kProtocolVersion);
  const auto relay = ear.relay.lock();
  if (relay == nullptr) return control;
  for (const ResumePoint& point : relay->ResumePoints(ear.worker)) {
    v1::ResumePoint* resume = control.mutable_hello()->add_resume();
    ToProto(point.sequence, resume->mutable_sequence());
    resume->set_received(point.received);
  }
  return control;
}

// A channel and its stub, which live as long as the call.
template <typename Service>
struct Dialled {
  Dialled(const std::string& address, const LinkSecurity& security)
      : channel(MakeChannel(address, security)), stub(Service::NewStub(channel)) {}
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<typename Service::Stub> stub;
};

}  // namespace

class GrpcLinks::Router final : public RouterLink {
 public:
  using Stream = RedialledStream<v1::GatewayMessage, v1::RouterMessage>;

  Router(const GatewayIdentity& identity, const LinkSecurity& security, TimeSource& time,
         std::weak_ptr<Relay> relay)
      : ear_(std::make_shared<Ear>(Ear{std::move(relay), 0, WorkerId()})) {
    stream_ = std::make_shared<Stream>(
        time,
        Stream::Hooks{.dial = [security](const std::string& address, grpc::ClientContext* context,
                                         Stream::Reactor* reactor) -> std::shared_ptr<void> {
                        auto dialled = std::make_shared<Dialled<v1::Router>>(address, security);
                        dialled->stub->async()->Generate(context, reactor);
                        return dialled;
                      },
                      .hello =
                          [identity] {
                            v1::GatewayMessage message;
                            message.mutable_hello()->set_gateway_id(identity.gateway_id);
                            message.mutable_hello()->set_protocol_version(kProtocolVersion);
                            message.mutable_hello()->set_model(identity.model);
                            message.mutable_hello()->set_metrics_address(identity.metrics_address);
                            return message;
                          },
                      .opened = [] {},  // its welcome says so
                      .received = [ear = ear_](v1::RouterMessage& message) { Hear(*ear, message); },
                      .lost =
                          [ear = ear_](const absl::Status&) {
                            if (const auto relay = ear->relay.lock())
                              relay->RouterDown(ear->router);
                          }});
  }
  void set_number(size_t number) { ear_->router = number; }
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

 private:
  const std::shared_ptr<Ear> ear_;
  std::shared_ptr<Stream> stream_;
};

class GrpcLinks::Worker final : public WorkerLink {
 public:
  using Stream = RedialledStream<v1::TokenControl, v1::TokenStep>;

  Worker(const GatewayIdentity& identity, const LinkSecurity& security, WorkerId worker,
         TimeSource& time, std::weak_ptr<Relay> relay) {
    const auto ear = std::make_shared<const Ear>(Ear{std::move(relay), 0, std::move(worker)});
    stream_ = std::make_shared<Stream>(
        time,
        Stream::Hooks{.dial = [security](const std::string& address, grpc::ClientContext* context,
                                         Stream::Reactor* reactor) -> std::shared_ptr<void> {
                        auto dialled = std::make_shared<Dialled<v1::Tokens>>(address, security);
                        dialled->stub->async()->StepTokens(context, reactor);
                        return dialled;
                      },
                      .hello = [ear, identity] { return TokenHello(*ear, identity); },
                      .opened =
                          [ear] {
                            if (const auto relay = ear->relay.lock()) relay->WorkerUp(ear->worker);
                          },
                      .received =
                          [ear](v1::TokenStep& step) {
                            if (const auto relay = ear->relay.lock())
                              relay->Tokens(ear->worker, FromProto(step));
                          },
                      .lost =
                          [ear](const absl::Status& why) {
                            if (const auto relay = ear->relay.lock())
                              relay->WorkerDown(ear->worker, why);
                          }});
  }
  void Stop(const SequenceKey& sequence, uint32_t position, EndReason reason) override {
    v1::TokenControl control;
    ToProto(sequence, control.mutable_stop()->mutable_sequence());
    control.mutable_stop()->set_position(position);
    control.mutable_stop()->set_reason(tandem::ToProto(reason));
    stream_->Write(std::move(control));
  }
  void Acknowledge(uint64_t step) override {
    v1::TokenControl control;
    control.mutable_ack()->set_step(step);
    stream_->Write(std::move(control));
  }
  void Dial(const std::string& address) override { stream_->Dial(address); }
  void Park() { stream_->Park(); }

 private:
  std::shared_ptr<Stream> stream_;
};

GrpcLinks::GrpcLinks(GatewayIdentity identity, TimeSource& time, LinkSecurity security)
    : identity_(std::move(identity)), time_(time), security_(std::move(security)) {}

GrpcLinks::~GrpcLinks() { Stop(); }

void GrpcLinks::Start(const std::shared_ptr<Relay>& relay,
                      const std::vector<std::string>& routers) {
  {
    MutexLock lock(mu_);
    relay_ = relay;
  }
  for (const std::string& address : routers) {
    routers_.push_back(std::make_unique<Router>(identity_, security_, time_, relay));
    routers_.back()->set_number(relay->AddRouter(*routers_.back()));
    routers_.back()->Dial(address);
  }
}

void GrpcLinks::Stop() {
  std::shared_ptr<Relay> relay;
  {
    MutexLock lock(mu_);
    relay = relay_.lock();
  }
  if (relay != nullptr) relay->Shut();  // not under mu_: the relay's calls come here with its lock
  for (auto& router : routers_) router->Dial("");
  MutexLock lock(mu_);
  for (auto& [id, worker] : workers_) worker->Park();
}

WorkerLink* GrpcLinks::Link(const WorkerId& worker) {
  MutexLock lock(mu_);
  std::unique_ptr<Worker>& link = workers_[worker];
  if (link == nullptr) link = std::make_unique<Worker>(identity_, security_, worker, time_, relay_);
  return link.get();
}

void GrpcLinks::Forget(const WorkerId& worker) {
  std::unique_ptr<Worker> link;
  {
    MutexLock lock(mu_);
    const auto found = workers_.find(worker);
    if (found == workers_.end()) return;
    link = std::move(found->second);
    workers_.erase(found);
  }
  link->Park();
}

}  // namespace tandem::gateway
