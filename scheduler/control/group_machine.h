#pragma once

// Life of the FFN group of one attention worker.

#include "scheduler/base/transitions.h"

namespace tandem::control {

enum class GroupState {
  kEmpty,      // no holder: the attention worker waits
  kSwitching,  // SetGroup is sent and unanswered
  kActive,     // the attention worker uses it
  kRefused,    // the attention worker obeys another router's groups, or could not take this one
};
enum class GroupEvent {
  kAssign,       // the holders, or their order, changed
  kUnassign,     // none is left
  kAcknowledge,  // the newest SetGroup was answered OK
  kRefuse,       // or with an error
};

inline constexpr Transition<GroupState, GroupEvent> kGroupTransitions[] = {
    {GroupState::kEmpty, GroupEvent::kAssign, GroupState::kSwitching},
    {GroupState::kEmpty, GroupEvent::kAcknowledge, GroupState::kEmpty},
    {GroupState::kEmpty, GroupEvent::kRefuse, GroupState::kEmpty},
    {GroupState::kSwitching, GroupEvent::kAssign, GroupState::kSwitching},
    {GroupState::kSwitching, GroupEvent::kUnassign, GroupState::kEmpty},
    {GroupState::kSwitching, GroupEvent::kAcknowledge, GroupState::kActive},
    {GroupState::kSwitching, GroupEvent::kRefuse, GroupState::kRefused},
    {GroupState::kActive, GroupEvent::kAssign, GroupState::kSwitching},
    {GroupState::kActive, GroupEvent::kUnassign, GroupState::kEmpty},
    {GroupState::kRefused, GroupEvent::kAssign, GroupState::kSwitching},
    {GroupState::kRefused, GroupEvent::kUnassign, GroupState::kEmpty},
};

const char* ToString(GroupState state);
const char* ToString(GroupEvent event);

}  // namespace tandem::control
