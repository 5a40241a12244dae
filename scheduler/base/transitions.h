#pragma once

// A state machine as a table: one constexpr array of (from, event, to), read by the code and held
// against the table in ARCHITECTURE.md by tests/unit/scheduler/base/transitions_doc_test.
//
//   enum class JobState { kQueued, kRunning };  enum class JobEvent { kStart };
//   inline constexpr Transition<JobState, JobEvent> kJobTransitions[] = {{JobState::kQueued,
//   JobEvent::kStart, JobState::kRunning}}; std::optional<JobState> next = Next(kJobTransitions,
//   state, event);   // nullopt: the event means nothing there

#include <optional>

#include "scheduler/base/check.h"

namespace tandem {

template <typename State, typename Event>
struct Transition {
  State from;
  Event event;
  State to;
};

template <typename State, typename Event, size_t N>
constexpr std::optional<State> Next(const Transition<State, Event> (&table)[N], State from,
                                    Event event) {
  for (const auto& row : table) {
    if (row.from == from && row.event == event) return row.to;
  }
  return std::nullopt;
}

// For an event that the caller knows to be legal; anything else is our bug.
template <typename State, typename Event, size_t N>
constexpr State MustNext(const Transition<State, Event> (&table)[N], State from, Event event) {
  const std::optional<State> to = Next(table, from, event);
  TANDEM_CHECK(to.has_value());
  return *to;
}

}  // namespace tandem
