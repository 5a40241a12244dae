#include "scheduler/sim/describe.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

namespace tandem::sim {
namespace {

using absl::StrCat;
using namespace control;  // NOLINT: every name below is one of its events or commands

std::string Keys(const std::vector<SequenceKey>& keys) {
  return absl::StrJoin(keys, ",", [](std::string* out, const SequenceKey& key) {
    absl::StrAppend(out, ToString(key));
  });
}

std::string Choices(const RequestId& request, const std::vector<ChoiceStart>& choices) {
  return absl::StrJoin(choices, ",", [&](std::string* out, const ChoiceStart& choice) {
    absl::StrAppend(out, ToString(SequenceKey{request, choice.choice, choice.attempt}), "+",
                    choice.emitted_ids.size());
  });
}

std::string End(const SequenceEnd& end) {
  return StrCat(ToString(end.reason), " ", end.status.ToString());
}

struct EventText {
  std::string operator()(const GatewayConnected& e) const {
    return StrCat("gateway_connected ", e.gateway.value());
  }
  std::string operator()(const GatewayLost& e) const {
    return StrCat("gateway_lost ", e.gateway.value());
  }
  std::string operator()(const GenerateArrived& e) const {
    return StrCat("generate ", e.gateway.value(), " ", Choices(e.spec.request, e.spec.choices),
                  " prompt ", e.spec.prompt_ids.size(), e.spec.resume ? " resume" : "");
  }
  std::string operator()(const AbortArrived& e) const {
    return StrCat("abort ", e.request.value(), " ", absl::StrJoin(e.choices, ","));
  }
  std::string operator()(const WorkerRegistered& e) const {
    return StrCat("registered ", e.worker.id.value(), " ", e.worker.incarnation, " live ",
                  Keys(e.worker.live));
  }
  std::string operator()(const WorkerHeartbeat& e) const {
    return StrCat("heartbeat ", e.worker.value(), " free ", e.load.kv_blocks_free, " sequences ",
                  e.load.sequences);
  }
  std::string operator()(const WorkerLost& e) const {
    return StrCat("worker_lost ", e.worker.value(), " ", e.incarnation);
  }
  std::string operator()(const CommandAnswered& e) const {
    return StrCat("answered ", e.worker.value(), " ", static_cast<uint64_t>(e.command), " ",
                  e.status.ToString());
  }
  std::string operator()(const SequencePrefilled& e) const {
    return StrCat("prefilled ", e.worker.value(), " ", ToString(e.sequence));
  }
  std::string operator()(const SequenceEnded& e) const {
    return StrCat("ended ", e.worker.value(), " ", ToString(e.sequence), " ", End(e.end));
  }
  std::string operator()(const ShardLost& e) const {
    return StrCat("shard_lost ", e.worker.value(), " ", e.ffn_worker.value());
  }
  std::string operator()(const DrainRequested& e) const {
    return StrCat("drain_requested ", e.worker.value());
  }
  std::string operator()(const TimePassed&) const { return "time_passed"; }
};

struct CommandText {
  std::string operator()(const AnswerRegistration& c) const {
    return StrCat("answer_registration ", c.worker.value(), " ", c.status.ToString());
  }
  std::string operator()(const CloseWorker& c) const {
    return StrCat("close ", c.worker.value(), " ", c.reason);
  }
  std::string operator()(const SendDecode& c) const {
    return StrCat("decode ", c.worker.value(), " ", c.reservation.value(), " ",
                  Choices(c.request, c.choices));
  }
  std::string operator()(const SendPrefill& c) const {
    return StrCat("prefill ", c.worker.value(), " ", c.reservation.value(), " ids ", c.ids.size(),
                  " for ", c.attention_worker.value());
  }
  std::string operator()(const SendRelease& c) const {
    return StrCat("release ", c.worker.value(), " ", c.reservation.value(), " ", Keys(c.sequences),
                  " ", ToString(c.reason));
  }
  std::string operator()(const SendSetGroup& c) const {
    std::string text = StrCat("set_group ", c.worker.value(), " version ", c.group_version);
    for (const FfnHolder& holder : c.holders) absl::StrAppend(&text, " ", holder.worker.value());
    return text;
  }
  std::string operator()(const SendDrain& c) const { return StrCat("drain ", c.worker.value()); }
  std::string operator()(const TellPlaced& c) const {
    return StrCat("placed ", ToString(c.sequence), " ", c.topology, " ", c.prefill_worker.value(),
                  " ", c.attention_worker.value());
  }
  std::string operator()(const TellEnd& c) const {
    return StrCat("end ", ToString(c.sequence), " ", End(c.end));
  }
  std::string operator()(const TellClusterState& c) const {
    return StrCat("cluster ", c.ready, " ", c.reason, " ", c.context_tokens, " to ",
                  c.gateways.size());
  }
};

}  // namespace

std::string Describe(const Event& event) { return std::visit(EventText(), event); }
std::string Describe(const Command& command) { return std::visit(CommandText(), command); }

}  // namespace tandem::sim
