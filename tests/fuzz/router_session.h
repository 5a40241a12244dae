#pragma once

// A router's controller with one gateway, told what streams would tell it: each message is refused
// with a reason, or the controller acts on it, and every command that it then sends is one that its
// peer can read.

#include <cmath>
#include <optional>

#include "scheduler/control/controller.h"
#include "services/gateway/relay/grpc/convert.h"
#include "services/router/dispatch/convert.h"
#include "services/runtime/status_map.h"
#include "services/runtime/tco_words.h"
#include "tests/fuzz/fuzz_input.h"
#include "workers/rpc/convert.h"

namespace tandem::fuzz {

inline bool Good(const absl::Status& status) {
  if (!status.ok()) CheckRefusal(status);
  return status.ok();
}

class RouterSession {
 public:
  RouterSession() : controller_(Config()) { Tell(control::GatewayConnected{kGateway}); }

  void OnRegistration(const v1::Registration& proto) {
    const auto worker = router::ToWorker(proto);
    if (!Good(worker.status())) return;
    v1::Registration again;
    tandem::ToProto(*worker, &again);
    TANDEM_CHECK(router::ToWorker(again).ok());
    worker_ = worker->id;
    incarnation_ = worker->incarnation;
    history_.emplace(ledger::StageOf(worker->stages), worker->time_scale);
    Tell(control::WorkerRegistered{*worker});
  }

  void OnWorker(const v1::WorkerMessage& message) {
    if (message.has_registration()) return OnRegistration(message.registration());
    if (message.has_heartbeat()) {
      Tell(control::WorkerHeartbeat{worker_, incarnation_, router::ToLoad(message.heartbeat())});
      OnAccount(message.heartbeat());
    }
    if (message.has_sequence()) {
      const auto event = router::ToEvent(worker_, message.sequence());
      if (Good(event.status())) Tell(*event);
    }
    if (message.has_shard_lost())
      Tell(control::ShardLost{worker_, WorkerId(message.shard_lost().ffn_worker_id()), "lost"});
    if (message.has_result()) {
      const auto& result = message.result();
      Tell(control::CommandAnswered{
          worker_, incarnation_, control::CommandId{result.command_id()},
          result.has_error() ? FromProto(result.error()) : absl::OkStatus()});
    }
  }

  void OnGateway(const v1::GatewayMessage& message) {
    if (message.has_hello()) Good(router::ToGateway(message.hello()).status());
    if (message.has_generate() &&
        Good(router::CheckGenerate(message.generate(), router::GenerateLimits())))
      Tell(control::GenerateArrived{kGateway, router::ToSpec(message.generate())});
    if (message.has_abort() && Good(router::CheckAbort(message.abort()))) {
      Tell(control::AbortArrived{
          kGateway,
          RequestId(message.abort().request_id()),
          {message.abort().choices().begin(), message.abort().choices().end()}});
    }
  }

  void Pass(int64_t tenths) {
    now_ = now_ + Duration::Milliseconds(100 * tenths);
    if (controller_.NextDeadline() <= now_) Tell(control::TimePassed{});
  }

 private:
  const GatewayId kGateway = GatewayId("g");

  static control::ControllerConfig Config() {
    control::ControllerConfig config;
    config.model = std::string("m");
    return config;
  }

  // Refused with a reason, or a window whose times are times and sum to what elapsed.
  void OnAccount(const v1::Heartbeat& heartbeat) {
    const auto report = ToLedgerReport(heartbeat);
    if (!Good(report.status()) || !history_.has_value()) return;
    if (!Good(history_->Add(incarnation_, *report, now_))) return;
    const auto account = history_->Over(now_ - kMaxWindow, now_);
    if (!account.has_value()) return;
    ledger::DeviceAccount device;
    device.elapsed = account->elapsed;
    device.cells = account->cells;
    for (const ledger::LedgerCell& cell : account->cells) TANDEM_CHECK(cell.time > Duration());
    // The tolerance of both ends of the window.
    const double apart = std::abs(device.Seconds() - account->elapsed.seconds());
    TANDEM_CHECK(apart <= 2 * (ledger::kLedgerTolerance * report->ledger.elapsed.seconds() +
                               ledger::kLedgerSlack.seconds()));
  }

  void Tell(const control::Event& event) {
    for (const control::Command& command : controller_.Handle(event, now_))
      std::visit([this](const auto& c) { Check(c); }, command);
    controller_.Snapshot();
  }

  void Check(const control::AnswerRegistration& answer) {
    if (!answer.status.ok()) CheckRefusal(answer.status);
    router::ToProto(self_, answer);
  }
  void Check(const control::CloseWorker& close) { TANDEM_CHECK(!close.reason.empty()); }
  // Ranges of sampling are the gateway's to check, and the worker's again.
  void Check(const control::SendDecode& decode) {
    v1::RouterCommand command = router::ToProto(decode);
    command.mutable_decode()->clear_sampling();
    TANDEM_CHECK(Good(ToDecodeRequest(command.decode()).status()));
  }
  void Check(const control::SendPrefill& prefill) {
    TANDEM_CHECK(Good(ToPrefillOrder(router::ToProto(prefill).prefill()).status()));
  }
  void Check(const control::SendRelease& release) {
    TANDEM_CHECK(Good(ToReleaseOrder(router::ToProto(release).release()).status()));
  }
  void Check(const control::SendSetGroup& group) {
    TANDEM_CHECK(Good(ToHolders(router::ToProto(self_, group).set_group()).status()));
  }
  void Check(const control::SendDrain& drain) {
    TANDEM_CHECK(router::ToProto(self_, drain).has_drain());
  }
  void Check(const control::TellPlaced& placed) {
    TANDEM_CHECK(gateway::FromProto(router::ToProto(placed).placed()).sequence == placed.sequence);
  }
  void Check(const control::TellEnd& end) {
    const auto refused = gateway::FromProto(router::ToProto(end).end());
    TANDEM_CHECK(refused.sequence == end.sequence && refused.end.reason == end.end.reason);
    TANDEM_CHECK((refused.end.reason == EndReason::kFailed) == !refused.end.status.ok());
    TANDEM_CHECK(refused.retry_after_seconds >= 0 && std::isfinite(refused.retry_after_seconds));
  }
  void Check(const control::TellClusterState& state) {
    TANDEM_CHECK(state.ready || !state.reason.empty());
    gateway::FromProto(router::ToProto(state).state());
  }

  router::RouterIdentity self_;
  control::Controller controller_;
  Instant now_;
  WorkerId worker_;  // the last to register: whom worker messages come from
  uint64_t incarnation_ = 0;
  std::optional<ledger::DeviceHistory> history_;  // of that worker
};

}  // namespace tandem::fuzz
