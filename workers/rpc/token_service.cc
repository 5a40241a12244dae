#include "workers/rpc/token_service.h"

#include <absl/strings/str_cat.h>

#include <optional>
#include <utility>

#include "scheduler/base/status.h"
#include "services/runtime/log.h"
#include "services/runtime/server_stream.h"
#include "workers/rpc/convert.h"

namespace tandem {
namespace {

// One gateway's stream. The engine holds it as the sink of its tokens and may outlive the call:
// then Send does nothing.
class TokenStream final : public ServerStream<v1::TokenControl, v1::TokenStep>, public TokenSink {
 public:
  TokenStream(ServerStreamOptions options, TokenDoor& door)
      : ServerStream(std::move(options)), door_(door) {}

  void Send(const step::OutboxMessage& message, const std::vector<SequenceCost>& costs) override {
    v1::TokenStep out;
    ToProto(message, costs, &out);
    Write(std::move(out));
  }
  // A worker that stops says its last first. Otherwise what waits is not written: a newer stream
  // gets it again, or it is the overload.
  void Close(const absl::Status& status) override {
    const bool stops = absl::IsUnavailable(status) && !IsGatewayOverloaded(status);
    stops ? End(status) : EndNow(status);
  }

 private:
  bool OnMessage(v1::TokenControl& message) override {
    const absl::Status status = Handle(message);
    if (status.ok()) return true;
    LogWarn("token_stream_broken",
            {{"gateway", gateway_ ? gateway_->value() : ""}, {"reason", status.ToString()}});
    EndNow(status);
    return false;
  }

  absl::Status Handle(const v1::TokenControl& message) {
    switch (message.message_case()) {
      case v1::TokenControl::kHello:
        return OnHello(message.hello());
      case v1::TokenControl::kAck:
        if (!gateway_) break;
        door_.Acknowledge(*gateway_, message.ack().step());
        return absl::OkStatus();
      case v1::TokenControl::kStop: {
        if (!gateway_) break;
        ASSIGN_OR_RETURN(const SequenceKey sequence, ToSequenceKey(message.stop().sequence()));
        ASSIGN_OR_RETURN(const EndReason reason, ToEndReason(message.stop().reason()));
        if (reason != EndReason::kStopped && reason != EndReason::kCancelled) {
          return absl::InvalidArgumentError(absl::StrCat(
              "stop of ", ToString(sequence), ": reason ",
              static_cast<int>(message.stop().reason()), " is neither stopped nor cancelled"));
        }
        door_.Stop(sequence, message.stop().position(), reason);
        return absl::OkStatus();
      }
      case v1::TokenControl::MESSAGE_NOT_SET:
        return absl::InvalidArgumentError("a TokenControl without hello, ack or stop");
    }
    return absl::InvalidArgumentError("the first message of a token stream must be hello");
  }

  absl::Status OnHello(const v1::TokenHello& message) {
    if (gateway_)
      return absl::InvalidArgumentError(
          absl::StrCat("gateway ", gateway_->value(), ": a second hello"));
    ASSIGN_OR_RETURN(GatewayHello hello, ToGatewayHello(message));
    gateway_ = hello.gateway;
    LogInfo("gateway_attached", {{"gateway", gateway_->value()},
                                 {"resumed", static_cast<uint64_t>(hello.resume.size())}});
    door_.Attach(*gateway_, std::move(hello.resume),
                 std::static_pointer_cast<TokenStream>(shared_from_this()));
    return absl::OkStatus();
  }

  void OnClosed() override {
    if (gateway_) {
      LogInfo("gateway_detached", {{"gateway", gateway_->value()}});
      door_.Detach(*gateway_, this);
    }
  }

  TokenDoor& door_;
  std::optional<GatewayId> gateway_;  // reactions only
};

}  // namespace

grpc::ServerBidiReactor<v1::TokenControl, v1::TokenStep>* TokenService::StepTokens(
    grpc::CallbackServerContext*) {
  return StartStream<TokenStream, v1::TokenControl, v1::TokenStep>(streams_, door_);
}

}  // namespace tandem
