#include "scheduler/sim/sim_router.h"

#include <absl/strings/str_cat.h>

#include "scheduler/sim/sim_gateway.h"
#include "scheduler/sim/sim_worker.h"

namespace tandem::sim {

SimRouter::SimRouter(World& world) : world_(world) {}

void SimRouter::Start() {
  control::ControllerConfig config;
  config.model = world_.scenario.shape.name;
  config.max_queued_requests = world_.scenario.max_queued_requests;
  controller_ = std::make_unique<control::Controller>(config);
  life_++;
  armed_ = Instant::Never();
}

void SimRouter::Stop() {
  controller_.reset();
  for (auto& [id, end] : std::exchange(workers_, {})) end.stream->AnswererGone();
  for (auto& [id, end] : std::exchange(gateways_, {})) end.stream->AnswererGone();
}

void SimRouter::OnRegister(SimWorker& worker, const std::shared_ptr<Stream>& stream,
                           const WorkerDescription& description) {
  const auto old = workers_.find(description.id);
  if (old != workers_.end()) {
    const WorkerEnd end = old->second;
    workers_.erase(old);
    end.stream->AnswererGone();
    OnEvent(control::WorkerLost{description.id, end.incarnation, "a newer stream came"});
  }
  workers_[description.id] = {&worker, stream, description.incarnation};
  OnEvent(control::WorkerRegistered{description});
}

void SimRouter::OnHello(SimGateway& gateway, const std::shared_ptr<Stream>& stream) {
  gateways_[gateway.id()] = {&gateway, stream};
  OnEvent(control::GatewayConnected{gateway.id()});
}

void SimRouter::OnWorkerBroken(const WorkerId& worker, const Stream* stream) {
  const auto found = workers_.find(worker);
  if (found == workers_.end() || found->second.stream.get() != stream) return;
  const uint64_t incarnation = found->second.incarnation;
  workers_.erase(found);
  OnEvent(control::WorkerLost{worker, incarnation, "its stream broke"});
}

void SimRouter::OnGatewayBroken(const GatewayId& gateway, const Stream* stream) {
  const auto found = gateways_.find(gateway);
  if (found == gateways_.end() || found->second.stream.get() != stream) return;
  gateways_.erase(found);
  OnEvent(control::GatewayLost{gateway});
}

void SimRouter::OnEvent(const control::Event& event) {
  if (!up()) return;
  world_.Record(Describe(event));
  for (const control::Command& command : controller_->Handle(event, world_.Now())) {
    world_.Record(absl::StrCat("  -> ", Describe(command)));
    Carry(command);
  }
  Arm();
}

void SimRouter::Arm() {
  const Instant due = controller_->NextDeadline();
  if (due == Instant::Never() || (armed_ <= due && armed_ > world_.Now())) return;
  armed_ = due;
  world_.time.CallAt(due, [this, due, life = life_] {
    if (life != life_ || armed_ != due || !up()) return;
    armed_ = Instant::Never();
    if (controller_->NextDeadline() <= world_.Now()) return OnEvent(control::TimePassed{});
    Arm();
  });
}

void SimRouter::Carry(const control::Command& command) {
  if (const auto* close = std::get_if<control::CloseWorker>(&command)) {
    const auto found = workers_.find(close->worker);
    if (found == workers_.end() || found->second.incarnation != close->incarnation) return;
    const auto stream = found->second.stream;
    workers_.erase(found);
    stream->AnswererGone();
  } else if (const auto* answer = std::get_if<control::AnswerRegistration>(&command)) {
    if (!answer->status.ok())
      world_.Violation(absl::StrCat("registration refused: ", answer->status.ToString()));
    ToWorker(answer->worker, command, 64);
  } else if (const auto* decode = std::get_if<control::SendDecode>(&command)) {
    ToWorker(decode->worker, command, 256 + 4 * decode->prompt_ids.size());
  } else if (const auto* prefill = std::get_if<control::SendPrefill>(&command)) {
    ToWorker(prefill->worker, command, 256 + 4 * prefill->ids.size());
  } else if (const auto* release = std::get_if<control::SendRelease>(&command)) {
    ToWorker(release->worker, command, 128);
  } else if (const auto* group = std::get_if<control::SendSetGroup>(&command)) {
    ToWorker(group->worker, command, 128);
  } else if (const auto* drain = std::get_if<control::SendDrain>(&command)) {
    ToWorker(drain->worker, command, 64);
  } else if (const auto* placed = std::get_if<control::TellPlaced>(&command)) {
    ToGateway(placed->gateway, command);
  } else if (const auto* end = std::get_if<control::TellEnd>(&command)) {
    ToGateway(end->gateway, command);
  } else if (const auto* state = std::get_if<control::TellClusterState>(&command)) {
    for (const GatewayId& gateway : state->gateways) ToGateway(gateway, command);
  }
}

void SimRouter::ToWorker(const WorkerId& worker, const control::Command& command, uint64_t bytes) {
  const auto found = workers_.find(worker);
  if (found == workers_.end()) return;
  SimWorker* const to = found->second.worker;
  found->second.stream->ToDialler(bytes, [to, command] { to->OnCommand(command); });
}

void SimRouter::ToGateway(const GatewayId& gateway, const control::Command& command) {
  const auto found = gateways_.find(gateway);
  if (found == gateways_.end()) return;
  SimGateway* const to = found->second.gateway;
  found->second.stream->ToDialler(128, [to, command] { to->OnRouter(command); });
}

}  // namespace tandem::sim
