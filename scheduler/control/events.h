#pragma once

// What the router's controller is told, and what it wants done. The shell (services/router, or
// scheduler/sim) turns streams into events and commands into messages;
// proto/tandem/v1/{router,registry}.proto has the twins.

#include <absl/status/status.h>

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "scheduler/base/ids.h"
#include "scheduler/base/time.h"
#include "scheduler/view/request.h"
#include "scheduler/view/worker.h"

namespace tandem::control {

enum class CommandId : uint64_t {};  // one per command to a worker; its answer carries it

// ---- Events.

// `incarnation` tells a worker's processes apart, not its streams: when a worker dials again before
// its old stream has ended, the shell ends the old one and reports WorkerLost before the new
// WorkerRegistered. From an older stream nothing else is reported.

struct GatewayConnected {
  GatewayId gateway;
};
struct GatewayLost {
  GatewayId gateway;
};
struct GenerateArrived {
  GatewayId gateway;
  GenerateSpec spec;
};
struct AbortArrived {
  GatewayId gateway;
  RequestId request;
  std::vector<uint32_t> choices;
};  // empty: all choices

struct WorkerRegistered {
  WorkerDescription worker;
};
struct WorkerHeartbeat {
  WorkerId worker;
  uint64_t incarnation = 0;
  WorkerLoad load;
};
struct WorkerLost {
  WorkerId worker;
  uint64_t incarnation = 0;
  std::string reason;
};  // its stream ended
struct CommandAnswered {
  WorkerId worker;
  uint64_t incarnation = 0;
  CommandId command{};
  absl::Status status;
};
struct SequencePrefilled {
  WorkerId worker;
  SequenceKey sequence;
};
struct SequenceEnded {
  WorkerId worker;
  SequenceKey sequence;
  SequenceEnd end;
};
struct ShardLost {
  WorkerId worker;
  WorkerId ffn_worker;
  std::string message;
};
struct DrainRequested {
  WorkerId worker;
};
struct TimePassed {};  // NextDeadline() is due

using Event = std::variant<GatewayConnected, GatewayLost, GenerateArrived, AbortArrived,
                           WorkerRegistered, WorkerHeartbeat, WorkerLost, CommandAnswered,
                           SequencePrefilled, SequenceEnded, ShardLost, DrainRequested, TimePassed>;

// ---- Commands.

// Answers WorkerRegistered. A refusal ends the worker's stream.
struct AnswerRegistration {
  WorkerId worker;
  uint64_t incarnation = 0;
  absl::Status status;
};
// The stream of an older incarnation, or of a worker whose lease ran out, is to be closed.
struct CloseWorker {
  WorkerId worker;
  uint64_t incarnation = 0;
  std::string reason;
};

struct SendDecode {
  WorkerId worker;
  CommandId command{};
  ReservationId reservation;
  GatewayId gateway;
  RequestId request;
  std::vector<ChoiceStart> choices;
  std::vector<TokenId> prompt_ids;
  Sampling sampling;
  StopRules stop;
  bool local_prefill = false;
  Duration reservation_lease = Duration::Infinite();
};
struct SendPrefill {
  WorkerId worker;
  CommandId command{};
  ReservationId reservation;
  SequenceKey sequence;
  std::vector<TokenId> ids;  // prompt and emitted ids
  WorkerId attention_worker;
  std::string attention_address;
};
// kSuperseded: the sequences go on elsewhere. A gateway that gets that end for its current attempt
// calls Generate again, with the emitted ids and attempt + 1, as after kPreempted.
struct SendRelease {
  WorkerId worker;
  CommandId command{};
  ReservationId reservation;           // may be empty
  std::vector<SequenceKey> sequences;  // may be empty
  EndReason reason = EndReason::kCancelled;
};
struct FfnHolder {
  WorkerId worker;
  std::string address;
  uint64_t shard_epoch = 0;
  FfnShard shard{};
};
struct SendSetGroup {
  WorkerId worker;
  CommandId command{};
  uint64_t group_version = 0;
  std::vector<FfnHolder> holders;  // best first: policy::AssignFfnGroups; empty: wait
};
struct SendDrain {
  WorkerId worker;
  CommandId command{};
};

// A choice was admitted by `attention_worker`.
struct TellPlaced {
  GatewayId gateway;
  SequenceKey sequence;
  std::string topology;
  WorkerId prefill_worker;
  WorkerId attention_worker;
  std::string attention_address;
};
struct TellEnd {
  GatewayId gateway;
  SequenceKey sequence;
  SequenceEnd end;
  Duration retry_after;  // with kResourceExhausted and kUnavailable
};
// What every gateway should know of the cluster; sent on a change, and to a gateway that connects.
struct TellClusterState {
  std::vector<GatewayId> gateways;
  bool ready = false;
  std::string reason;
  uint32_t context_tokens = 0;
  double time_scale = 0;  // of emulated workers; 0: real time
  std::vector<std::pair<WorkerId, std::string>> attention_workers;  // id, address; ascending
};

using Command = std::variant<AnswerRegistration, CloseWorker, SendDecode, SendPrefill, SendRelease,
                             SendSetGroup, SendDrain, TellPlaced, TellEnd, TellClusterState>;

}  // namespace tandem::control
