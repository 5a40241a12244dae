// The words of the four machines, as ARCHITECTURE.md and tandemctl spell them.

#include "scheduler/control/group_machine.h"
#include "scheduler/control/request_machine.h"
#include "scheduler/control/sequence_machine.h"
#include "scheduler/control/worker_machine.h"

namespace tandem::control {

const char* ToString(RequestState state) {
  switch (state) {
    case RequestState::kQueued:
      return "queued";
    case RequestState::kReserving:
      return "reserving";
    case RequestState::kPrefilling:
      return "prefilling";
    case RequestState::kPlaced:
      return "placed";
    case RequestState::kEnded:
      return "ended";
  }
  return "?";
}

const char* ToString(RequestEvent event) {
  switch (event) {
    case RequestEvent::kReserve:
      return "reserve";
    case RequestEvent::kAdmitted:
      return "admitted";
    case RequestEvent::kNoRoom:
      return "no_room";
    case RequestEvent::kPrefilled:
      return "prefilled";
    case RequestEvent::kFinish:
      return "finish";
  }
  return "?";
}

const char* ToString(SequenceState state) {
  switch (state) {
    case SequenceState::kWaiting:
      return "waiting";
    case SequenceState::kAdmitted:
      return "admitted";
    case SequenceState::kDecoding:
      return "decoding";
    case SequenceState::kEnded:
      return "ended";
  }
  return "?";
}

const char* ToString(SequenceEvent event) {
  switch (event) {
    case SequenceEvent::kAdmit:
      return "admit";
    case SequenceEvent::kRestore:
      return "restore";
    case SequenceEvent::kPrefilled:
      return "prefilled";
    case SequenceEvent::kEnd:
      return "end";
    case SequenceEvent::kRelease:
      return "release";
    case SequenceEvent::kLost:
      return "lost";
  }
  return "?";
}

const char* ToString(WorkerState state) {
  switch (state) {
    case WorkerState::kAbsent:
      return "absent";
    case WorkerState::kReady:
      return "ready";
    case WorkerState::kWaitingForGroup:
      return "waiting_for_group";
    case WorkerState::kDraining:
      return "draining";
    case WorkerState::kLost:
      return "lost";
  }
  return "?";
}

const char* ToString(WorkerEvent event) {
  switch (event) {
    case WorkerEvent::kRegister:
      return "register";
    case WorkerEvent::kRegisterNeedsGroup:
      return "register_needs_group";
    case WorkerEvent::kGroupReady:
      return "group_ready";
    case WorkerEvent::kGroupGone:
      return "group_gone";
    case WorkerEvent::kDrain:
      return "drain";
    case WorkerEvent::kLose:
      return "lose";
  }
  return "?";
}

const char* ToString(GroupState state) {
  switch (state) {
    case GroupState::kEmpty:
      return "empty";
    case GroupState::kSwitching:
      return "switching";
    case GroupState::kActive:
      return "active";
    case GroupState::kRefused:
      return "refused";
  }
  return "?";
}

const char* ToString(GroupEvent event) {
  switch (event) {
    case GroupEvent::kAssign:
      return "assign";
    case GroupEvent::kUnassign:
      return "unassign";
    case GroupEvent::kAcknowledge:
      return "acknowledge";
    case GroupEvent::kRefuse:
      return "refuse";
  }
  return "?";
}

}  // namespace tandem::control
