// The life of sequences: admission, start, end.
#include <absl/strings/str_cat.h>

#include <algorithm>
#include <set>

#include "scheduler/base/check.h"
#include "scheduler/base/status.h"
#include "scheduler/step/decode_state.h"

namespace tandem::step {

const char* ToString(SequenceState state) {
  switch (state) {
    case SequenceState::kReserved:
      return "kReserved";
    case SequenceState::kRunning:
      return "kRunning";
    case SequenceState::kEnded:
      return "kEnded";
  }
  return "unknown";
}

const char* ToString(SequenceEventKind event) {
  switch (event) {
    case SequenceEventKind::kKvComplete:
      return "kKvComplete";
    case SequenceEventKind::kLastToken:
      return "kLastToken";
    case SequenceEventKind::kStop:
      return "kStop";
    case SequenceEventKind::kPreempt:
      return "kPreempt";
    case SequenceEventKind::kSupersede:
      return "kSupersede";
    case SequenceEventKind::kRelease:
      return "kRelease";
    case SequenceEventKind::kLeaseExpired:
      return "kLeaseExpired";
    case SequenceEventKind::kFailed:
      return "kFailed";
  }
  return "unknown";
}

absl::Status DecodeMachine::State::CheckRequest(const DecodeRequest& request) const {
  const std::string& name = request.request.value();
  if (request.prompt_ids.empty())
    return absl::InvalidArgumentError(absl::StrCat("request ", name, ": no prompt ids"));
  if (request.choices.empty())
    return absl::InvalidArgumentError(absl::StrCat("request ", name, ": no choices"));
  if (request.stop.max_tokens == 0)
    return absl::InvalidArgumentError(absl::StrCat("request ", name, ": max_tokens is 0"));
  std::set<uint32_t> choices;
  for (const ChoiceStart& start : request.choices) {
    if (!choices.insert(start.choice).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("request ", name, ": choice ", start.choice, " comes twice"));
    }
    if (request.choices.size() > 1 && !start.emitted_ids.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("request ", name, ": choice ", start.choice,
                       " has emitted; it resumes alone, not with others"));
    }
    if (start.emitted_ids.size() >= request.stop.max_tokens) {
      return absl::InvalidArgumentError(
          absl::StrCat("request ", name, ": ", start.emitted_ids.size(),
                       " emitted ids leave none of max_tokens ", request.stop.max_tokens));
    }
  }
  return reservations.CheckFits(request);
}

absl::Status DecodeMachine::State::Admit(DecodeRequest asked, Instant now) {
  RETURN_IF_ERROR(CheckRequest(asked));
  if (reservations.Holds(asked.reservation)) {
    return absl::AlreadyExistsError(
        absl::StrCat("reservation ", asked.reservation.value(), " is here"));
  }
  for (const ChoiceStart& start : asked.choices) {
    RETURN_IF_ERROR(sequences.CheckAttempt({asked.request, start.choice, start.attempt}));
  }
  // From here on the older attempts are history, whether or not there is room for the new ones.
  for (const ChoiceStart& start : asked.choices) {
    for (Sequence* lower : sequences.LowerAttempts({asked.request, start.choice, start.attempt})) {
      End(*lower, SequenceEventKind::kSupersede, {EndReason::kSuperseded, absl::OkStatus()});
    }
  }
  if (sequences.size() + asked.choices.size() > config.max_sequences) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "request ", asked.request.value(), ": ", asked.choices.size(), " more sequences than the ",
        sequences.size(), " here exceed ", config.max_sequences));
  }
  const auto request = std::make_shared<const DecodeRequest>(std::move(asked));
  ASSIGN_OR_RETURN(Reservation* const reservation, reservations.Reserve(request, now));
  for (const ChoiceStart& start : request->choices) {
    sequences.Add({request->request, start.choice, start.attempt}, request, start);
  }
  if (reservation->prompt_rows == 0) {
    StartSequences(*reservation, now);
  } else if (request->local_prefill) {
    const ChoiceStart& first = request->choices.front();
    StartLocalPrefill start{request->reservation,
                            {request->request, first.choice, first.attempt},
                            request->prompt_ids,
                            &reservation->blocks};
    start.ids.insert(start.ids.end(), first.emitted_ids.begin(), first.emitted_ids.end());
    reservation->prefill_started = true;
    effects.push_back(std::move(start));
  }
  return absl::OkStatus();
}

std::vector<Sequence*> DecodeMachine::State::Choices(const ReservationId& reservation) const {
  std::vector<Sequence*> choices;
  for (const auto& [admitted, sequence] : sequences.all()) {
    if (sequence->request->reservation == reservation) choices.push_back(sequence.get());
  }
  return choices;
}

void DecodeMachine::State::StartSequences(Reservation& reservation, Instant now) {
  SequencesStarted started{reservation.request->reservation, {}};
  const std::vector<Sequence*> choices = Choices(started.reservation);
  CopyBlocks copy;
  std::vector<BlockTable> tables = reservations.Split(reservation, choices.size(), copy.copies);
  for (size_t i = 0; i < choices.size(); i++) {
    Sequence& sequence = *choices[i];
    sequence.state = MustNext(kSequenceTransitions, sequence.state, SequenceEventKind::kKvComplete);
    sequence.blocks = std::move(tables[i]);
    sequence.running_since = now;
    running++;
    started.sequences.push_back(sequence.key);
  }
  if (!copy.copies.empty()) effects.push_back(std::move(copy));
  effects.push_back(std::move(started));
}

void DecodeMachine::State::End(Sequence& sequence, SequenceEventKind event, SequenceEnd end,
                               uint32_t keep_tokens) {
  if (sequence.leaving.has_value()) return;  // the first word counts
  if (sequence.in_step) {
    sequence.leaving = std::move(end);
    sequence.leaving_event = event;
    sequence.keep_tokens = keep_tokens;
    FailIfAbandoned(*batches.all()[sequence.micro_batch]);
    return;
  }
  Finish(sequence, event, std::move(end), std::nullopt);
}

void DecodeMachine::State::EndEach(const std::vector<SequenceKey>& keys, SequenceEventKind event,
                                   const SequenceEnd& end) {
  for (const SequenceKey& key : keys) {
    if (Sequence* sequence = sequences.Find(key)) End(*sequence, event, end);
  }
}

void DecodeMachine::State::FailChoices(const ReservationId& reservation, SequenceEventKind event,
                                       const absl::Status& status) {
  for (Sequence* sequence : Choices(reservation))
    End(*sequence, event, {EndReason::kFailed, status});
}

void DecodeMachine::State::Finish(Sequence& sequence, SequenceEventKind event, SequenceEnd end,
                                  std::optional<SampledToken> token) {
  const bool was_reserved = sequence.state == SequenceState::kReserved;
  sequence.state = MustNext(kSequenceTransitions, sequence.state, event);
  const uint32_t position =
      static_cast<uint32_t>(sequence.emitted_ids.size() - (token.has_value() ? 1 : 0));
  effects.push_back(
      Emit{sequence.request->gateway, sequence.key, position, std::move(token), std::move(end)});
  if (was_reserved) {
    Reservation* const reservation = reservations.Find(sequence.request->reservation);
    TANDEM_CHECK(reservation != nullptr);
    if (!reservation->spares.empty()) {
      reservations.DropSpare(*reservation);
    } else {
      if (!reservation->prefill_failed) {
        effects.push_back(
            ReservationFreed{sequence.request->reservation, reservation->prefill_started});
      }
      reservations.Free(*reservation);
    }
  } else {
    running--;
    book.Release(sequence.blocks);
  }
  sequences.Erase(sequence, was_reserved && event == SequenceEventKind::kRelease);
}

}  // namespace tandem::step
