#pragma once

// The life of one choice at the gateway. ARCHITECTURE.md has the same table.

#include "scheduler/base/transitions.h"

namespace tandem::gateway {

enum class RelayState {
  kUnplaced,   // no router has it: at the start, after a loss, or while no router is connected
  kPlacing,    // a router has it; no attention worker that we know of
  kStreaming,  // an attention worker has it
  kEnded,      // the connection has its last event, or wants none
};

enum class RelayEvent {
  kSent,        // Generate went to a router
  kRouterLost,  // the stream to that router broke
  kPlaced,      // the router named the attention worker
  kTokens,      // tokens or the end came from an attention worker
  kPreempted,   // who had it says: not here, ask again (no KV, no prefill worker, not held)
  kWorkerLost,  // its stream broke and did not come back within the lease
  kEnded,
};

inline constexpr Transition<RelayState, RelayEvent> kRelayTransitions[] = {
    {RelayState::kUnplaced, RelayEvent::kSent, RelayState::kPlacing},
    {RelayState::kUnplaced, RelayEvent::kEnded, RelayState::kEnded},
    {RelayState::kPlacing, RelayEvent::kRouterLost, RelayState::kUnplaced},
    {RelayState::kPlacing, RelayEvent::kPreempted, RelayState::kUnplaced},
    {RelayState::kPlacing, RelayEvent::kPlaced, RelayState::kStreaming},
    {RelayState::kPlacing, RelayEvent::kTokens, RelayState::kStreaming},
    {RelayState::kPlacing, RelayEvent::kEnded, RelayState::kEnded},
    {RelayState::kStreaming, RelayEvent::kPlaced, RelayState::kStreaming},
    {RelayState::kStreaming, RelayEvent::kTokens, RelayState::kStreaming},
    {RelayState::kStreaming, RelayEvent::kPreempted, RelayState::kUnplaced},
    {RelayState::kStreaming, RelayEvent::kWorkerLost, RelayState::kUnplaced},
    {RelayState::kStreaming, RelayEvent::kEnded, RelayState::kEnded},
};

// The words of ARCHITECTURE.md.
inline const char* ToString(RelayState value) {
  switch (value) {
    case RelayState::kUnplaced:
      return "kUnplaced";
    case RelayState::kPlacing:
      return "kPlacing";
    case RelayState::kStreaming:
      return "kStreaming";
    case RelayState::kEnded:
      return "kEnded";
  }
  return "";
}
inline const char* ToString(RelayEvent value) {
  switch (value) {
    case RelayEvent::kSent:
      return "kSent";
    case RelayEvent::kRouterLost:
      return "kRouterLost";
    case RelayEvent::kPlaced:
      return "kPlaced";
    case RelayEvent::kTokens:
      return "kTokens";
    case RelayEvent::kPreempted:
      return "kPreempted";
    case RelayEvent::kWorkerLost:
      return "kWorkerLost";
    case RelayEvent::kEnded:
      return "kEnded";
  }
  return "";
}

}  // namespace tandem::gateway
