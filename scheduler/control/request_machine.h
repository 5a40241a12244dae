#pragma once

// Life of a request at the router. A request here is one Generate: choices that are placed
// together. It is forgotten once it is placed or ended; its sequences live on in their own machine.

#include "scheduler/base/transitions.h"

namespace tandem::control {

enum class RequestState {
  kQueued,      // waits for a worker
  kReserving,   // Decode is sent to an attention worker
  kPrefilling,  // KV is reserved; a prefill worker, or the attention worker itself, is at the
                // prompt
  kPlaced,      // the prompt's KV is complete: it is the attention worker's alone
  kEnded,       // every choice has ended, or is somebody else's to end
};
enum class RequestEvent {
  kReserve,    // an attention worker with room, and a prefill slot, were found
  kAdmitted,   // the attention worker reserved the KV
  kNoRoom,     // it refused, or was lost before it answered
  kPrefilled,  // every row of the prompt is in KV
  kFinish,  // refused for good, aborted, timed out, given back for want of a prefill worker, or its
            // peer is gone
};

inline constexpr Transition<RequestState, RequestEvent> kRequestTransitions[] = {
    {RequestState::kQueued, RequestEvent::kReserve, RequestState::kReserving},
    {RequestState::kQueued, RequestEvent::kFinish, RequestState::kEnded},
    {RequestState::kReserving, RequestEvent::kAdmitted, RequestState::kPrefilling},
    {RequestState::kReserving, RequestEvent::kNoRoom, RequestState::kQueued},
    {RequestState::kReserving, RequestEvent::kFinish, RequestState::kEnded},
    {RequestState::kPrefilling, RequestEvent::kPrefilled, RequestState::kPlaced},
    {RequestState::kPrefilling, RequestEvent::kFinish, RequestState::kEnded},
};

const char* ToString(RequestState state);
const char* ToString(RequestEvent event);

}  // namespace tandem::control
