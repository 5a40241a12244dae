#pragma once

// Life of one incarnation of a worker at the router.

#include "scheduler/base/transitions.h"

namespace tandem::control {

enum class WorkerState {
  kAbsent,           // not registered
  kReady,            // takes work
  kWaitingForGroup,  // attention without FFN weights of its own, and no FFN group yet
  kDraining,         // no new work; what it holds finishes
  kLost,
};
enum class WorkerEvent {
  kRegister,  // with every stage that it needs
  kRegisterNeedsGroup,
  kGroupReady,  // it acknowledged a group that covers every layer
  kGroupGone,   // no FFN worker is left that takes new work
  kDrain,       // asked for by the operator, or announced by the worker
  kLose,  // stream ended, lease ran out, a command stayed unanswered, or a newer incarnation came
};

inline constexpr Transition<WorkerState, WorkerEvent> kWorkerTransitions[] = {
    {WorkerState::kAbsent, WorkerEvent::kRegister, WorkerState::kReady},
    {WorkerState::kAbsent, WorkerEvent::kRegisterNeedsGroup, WorkerState::kWaitingForGroup},
    {WorkerState::kWaitingForGroup, WorkerEvent::kGroupReady, WorkerState::kReady},
    {WorkerState::kWaitingForGroup, WorkerEvent::kDrain, WorkerState::kDraining},
    {WorkerState::kWaitingForGroup, WorkerEvent::kLose, WorkerState::kLost},
    {WorkerState::kReady, WorkerEvent::kGroupGone, WorkerState::kWaitingForGroup},
    {WorkerState::kReady, WorkerEvent::kDrain, WorkerState::kDraining},
    {WorkerState::kReady, WorkerEvent::kLose, WorkerState::kLost},
    {WorkerState::kDraining, WorkerEvent::kLose, WorkerState::kLost},
};

const char* ToString(
    WorkerState state);  // "ready", "waiting_for_group": the words of tandemctl status
const char* ToString(WorkerEvent event);

}  // namespace tandem::control
