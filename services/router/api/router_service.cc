#include "services/router/api/router_service.h"

#include <absl/strings/str_cat.h>

#include <atomic>
#include <utility>
#include <variant>

#include "scheduler/base/check.h"
#include "services/router/dispatch/hello_alarm.h"
#include "services/runtime/log.h"
#include "services/runtime/server_stream.h"

namespace tandem::router {
namespace {

using Stream = ServerStream<v1::GatewayMessage, v1::RouterMessage>;

class GatewayStream final : public Stream, public GatewayLink {
 public:
  GatewayStream(ServerStreamOptions options, const RouterServiceLimits& limits,
                const RouterIdentity& self, RouterCore& core)
      : Stream(std::move(options)), limits_(limits.generate), self_(self), core_(core) {}

  const GatewayId& gateway() const override { return gateway_; }
  HelloAlarm& hello() { return hello_; }

  void Send(const control::Command& command) override {
    if (const auto* placed = std::get_if<control::TellPlaced>(&command)) {
      Write(ToProto(*placed));
    } else if (const auto* end = std::get_if<control::TellEnd>(&command)) {
      Write(ToProto(*end));
    } else {
      const auto* state = std::get_if<control::TellClusterState>(&command);
      TANDEM_CHECK(state != nullptr);  // the core sends a gateway's commands to gateways only
      Write(ToProto(*state));
    }
  }
  void Send(const ClusterLoad& load) override { Write(ToProto(load)); }
  // One that a newer stream replaces has a peer that reads; any other may be stuck.
  void Close(const absl::Status& why) override { EndNow(why, !absl::IsAborted(why)); }

 private:
  // The next one is read when the core has taken this one.
  bool OnMessage(v1::GatewayMessage& message) override {
    Handle(message);
    return false;
  }

  void Handle(const v1::GatewayMessage& message) {
    if (!greeted_) return OnHello(message);
    switch (message.message_case()) {
      case v1::GatewayMessage::kGenerate:
        return OnGenerate(message.generate());
      case v1::GatewayMessage::kAbort:
        return OnAbort(message.abort());
      case v1::GatewayMessage::kHello:
        return EndMalformed(absl::InvalidArgumentError("a second hello on one stream"));
      default:
        return EndMalformed(absl::InvalidArgumentError("a message of unknown kind"));
    }
  }

  void OnHello(const v1::GatewayMessage& message) {
    hello_.Cancel();
    if (!message.has_hello()) {
      return EndMalformed(
          absl::InvalidArgumentError("the first message of a Generate stream is its hello"));
    }
    const absl::StatusOr<GatewayId> gateway = ToGateway(message.hello());
    if (!gateway.ok()) return EndMalformed(gateway.status());
    if (message.hello().model() != self_.model) {
      return EndMalformed(absl::NotFoundError(
          absl::StrCat("gateway ", gateway->value(), " serves model '", message.hello().model(),
                       "', this router '", self_.model, "'")));
    }
    gateway_ = *gateway;
    greeted_ = true;
    Write(ToWelcome(self_));
    core_.GatewayConnected(Link(), Taken());
  }

  // A request that cannot be taken ends by itself; the stream goes on. One that cannot be answered
  // ends the stream.
  void OnGenerate(const v1::GenerateRequest& request) {
    const absl::Status valid = CheckGenerate(request, limits_);
    if (valid.ok())
      return core_.GatewaySaid(Link(), control::GenerateArrived{gateway_, ToSpec(request)},
                               Taken());
    const bool can_be_answered =
        !request.request_id().empty() && request.request_id().size() <= kMaxIdBytes &&
        !request.choices().empty() && request.choices_size() <= kMaxChoices;
    if (!can_be_answered) return EndMalformed(valid);
    LogWarn("generate_invalid",
            {{"request_id", request.request_id()}, {"reason", valid.message()}});
    for (const v1::ChoiceStart& choice : request.choices()) {
      Write(ToProto(
          control::TellEnd{gateway_,
                           {RequestId(request.request_id()), choice.choice(), choice.attempt()},
                           {EndReason::kFailed, valid},
                           Duration()}));
    }
    ReadNext();
  }

  void OnAbort(const v1::AbortRequest& abort) {
    if (absl::Status valid = CheckAbort(abort); !valid.ok()) return EndMalformed(valid);
    core_.GatewaySaid(Link(),
                      control::AbortArrived{gateway_,
                                            RequestId(abort.request_id()),
                                            {abort.choices().begin(), abort.choices().end()}},
                      Taken());
  }

  void EndMalformed(const absl::Status& why) {
    LogWarn("gateway_refused", {{"gateway", gateway_.value()}, {"reason", why.message()}});
    End(why);
  }

  void OnGone(const std::string&) override {
    hello_.Cancel();
    if (!greeted_) return;
    core_.GatewayDisconnected(Link());
  }

  std::shared_ptr<GatewayLink> Link() {
    return std::static_pointer_cast<GatewayStream>(shared_from_this());
  }
  RouterCore::Taken Taken() {
    return [self = shared_from_this()] { self->ReadNext(); };
  }

  const GenerateLimits limits_;
  const RouterIdentity& self_;
  RouterCore& core_;
  HelloAlarm hello_;
  GatewayId gateway_;  // set with the hello, before anyone else knows the link
  std::atomic<bool> greeted_ = false;
};

}  // namespace

RouterService::RouterService(const RouterIdentity& self, const RouterServiceLimits& limits,
                             RouterCore& core, TimeSource& time)
    : self_(self), limits_(limits), core_(core), time_(time), streams_(limits.max_streams) {}

grpc::ServerBidiReactor<v1::GatewayMessage, v1::RouterMessage>* RouterService::Generate(
    grpc::CallbackServerContext* context) {
  std::optional<StreamCount::Place> place = streams_.Take();
  if (!place.has_value()) {
    return new RefusedStream<v1::GatewayMessage, v1::RouterMessage>(absl::ResourceExhaustedError(
        absl::StrCat("max_streams: ", streams_.max_streams(), " gateway streams are open")));
  }
  auto stream = std::make_shared<GatewayStream>(
      ServerStreamOptions{.place = *std::move(place),
                          .context = context,
                          .max_queued_messages = limits_.max_queued_answers,
                          .open_at_once = false},
      limits_, self_, core_);
  stream->hello().Arm(time_, limits_.hello_timeout, std::weak_ptr<Stream>(stream));
  stream->Start();
  return stream.get();
}

}  // namespace tandem::router
