#pragma once

// Life of a sequence as the router sees it: a few events, no token.

#include "scheduler/base/transitions.h"

namespace tandem::control {

enum class SequenceState {
  kWaiting,   // its request is queued or reserving: only the router can end it
  kAdmitted,  // an attention worker holds KV for it: that worker ends it
  kDecoding,  // the prompt's KV is complete
  kEnded,
};
enum class SequenceEvent {
  kAdmit,    // the attention worker answered OK
  kRestore,  // a registering attention worker lists it: this router has restarted, or the worker's
             // stream had broken
  kPrefilled,
  kEnd,      // the attention worker's word, or the router's while it waits
  kRelease,  // aborted, superseded, given back, or its gateway is gone: the worker is told to free
             // it
  kLost,     // its attention worker is gone: the gateway sees that itself
};

inline constexpr Transition<SequenceState, SequenceEvent> kSequenceTransitions[] = {
    {SequenceState::kWaiting, SequenceEvent::kAdmit, SequenceState::kAdmitted},
    {SequenceState::kWaiting, SequenceEvent::kRestore, SequenceState::kDecoding},
    {SequenceState::kWaiting, SequenceEvent::kEnd, SequenceState::kEnded},
    {SequenceState::kWaiting, SequenceEvent::kRelease, SequenceState::kEnded},
    {SequenceState::kAdmitted, SequenceEvent::kPrefilled, SequenceState::kDecoding},
    {SequenceState::kAdmitted, SequenceEvent::kEnd, SequenceState::kEnded},
    {SequenceState::kAdmitted, SequenceEvent::kRelease, SequenceState::kEnded},
    {SequenceState::kAdmitted, SequenceEvent::kLost, SequenceState::kEnded},
    {SequenceState::kDecoding, SequenceEvent::kEnd, SequenceState::kEnded},
    {SequenceState::kDecoding, SequenceEvent::kRelease, SequenceState::kEnded},
    {SequenceState::kDecoding, SequenceEvent::kLost, SequenceState::kEnded},
};

const char* ToString(SequenceState state);
const char* ToString(SequenceEvent event);

}  // namespace tandem::control
