#include "services/router/router_log.h"

#include <type_traits>
#include <variant>

#include "services/runtime/log.h"

namespace tandem::router {
namespace {

void LogEnd(absl::string_view event, const SequenceKey& key, absl::string_view peer,
            const std::string& peer_id, const SequenceEnd& end) {
  const bool failed = end.reason == EndReason::kFailed;
  LogEvent(failed ? spdlog::level::warn : spdlog::level::info, event,
           {{"request_id", key.request.value()},
            {"choice", key.choice},
            {"attempt", key.attempt},
            {peer, peer_id},
            {"reason", ToString(end.reason)},
            {"code", absl::StatusCodeToString(end.status.code())},
            {"message", end.status.message()}});
}

void Log(const control::Command& command) {
  if (const auto* placed = std::get_if<control::TellPlaced>(&command)) {
    LogInfo("sequence_placed", {{"request_id", placed->sequence.request.value()},
                                {"choice", placed->sequence.choice},
                                {"attempt", placed->sequence.attempt},
                                {"topology", placed->topology},
                                {"prefill_worker", placed->prefill_worker.value()},
                                {"attention_worker", placed->attention_worker.value()},
                                {"gateway", placed->gateway.value()}});
  } else if (const auto* end = std::get_if<control::TellEnd>(&command)) {
    LogEnd("sequence_not_placed", end->sequence, "gateway", end->gateway.value(), end->end);
  } else if (const auto* answer = std::get_if<control::AnswerRegistration>(&command)) {
    if (answer->status.ok())
      LogInfo("worker_registered",
              {{"worker", answer->worker.value()}, {"incarnation", answer->incarnation}});
  } else if (const auto* close = std::get_if<control::CloseWorker>(&command)) {
    LogWarn("worker_closed", {{"worker", close->worker.value()}, {"reason", close->reason}});
  } else if (const auto* group = std::get_if<control::SendSetGroup>(&command)) {
    LogInfo("group_set", {{"worker", group->worker.value()},
                          {"version", group->group_version},
                          {"holders", uint64_t{group->holders.size()}}});
  } else if (const auto* state = std::get_if<control::TellClusterState>(&command)) {
    LogInfo("cluster_state", {{"ready", state->ready}, {"reason", state->reason}});
  }
}

}  // namespace

void RouterLog::Handled(const control::Event& event, const std::vector<control::Command>& commands,
                        Instant) {
  if (const auto* ended = std::get_if<control::SequenceEnded>(&event)) {
    LogEnd("sequence_ended", ended->sequence, "worker", ended->worker.value(), ended->end);
  } else if (const auto* lost = std::get_if<control::WorkerLost>(&event)) {
    LogWarn("worker_lost", {{"worker", lost->worker.value()}, {"reason", lost->reason}});
  } else if (const auto* shard = std::get_if<control::ShardLost>(&event)) {
    LogWarn("shard_lost", {{"worker", shard->worker.value()},
                           {"ffn_worker", shard->ffn_worker.value()},
                           {"message", shard->message}});
  } else if (const auto* connected = std::get_if<control::GatewayConnected>(&event)) {
    LogInfo("gateway_connected", {{"gateway", connected->gateway.value()}});
  } else if (const auto* gone = std::get_if<control::GatewayLost>(&event)) {
    LogInfo("gateway_lost", {{"gateway", gone->gateway.value()}});
  } else if (const auto* answered = std::get_if<control::CommandAnswered>(&event)) {
    if (!answered->status.ok()) {
      LogInfo("command_refused", {{"worker", answered->worker.value()},
                                  {"command", static_cast<uint64_t>(answered->command)},
                                  {"code", absl::StatusCodeToString(answered->status.code())},
                                  {"message", answered->status.message()}});
    }
  }
  for (const control::Command& command : commands) Log(command);
}

}  // namespace tandem::router
