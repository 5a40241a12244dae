#pragma once

// The sequences that one attention worker holds, and which attempts it takes.

#include <absl/status/status.h>

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/step/decode_machine.h"

namespace tandem::step {

// One sequence, from its admission to its end.
struct Sequence {
  SequenceKey key;
  uint64_t admitted = 0;  // rises with each admission: the order of everything
  std::shared_ptr<const DecodeRequest> request;  // shared by the choices
  uint64_t seed = 0;
  std::vector<TokenId> emitted_ids;  // of all attempts
  uint32_t first_output = 0;         // emitted_ids.size() at admission
  SequenceState state = SequenceState::kReserved;
  BlockTable blocks;  // empty while reserved
  Instant running_since;
  // Row of the running step:
  bool in_step = false;
  std::vector<uint32_t> ffn_columns;  // by layer: into so many pieces its FFN was cut; 0: none yet
  uint32_t micro_batch = 0;
  std::optional<SampledToken> drawn;  // the head's, until the step ends
  // Ends with the running step, in which it has a row; output tokens from `keep_tokens` on are
  // dropped.
  std::optional<SequenceEnd> leaving;
  SequenceEventKind leaving_event = SequenceEventKind::kStop;
  uint32_t keep_tokens = 0;

  uint64_t length() const {
    return request->prompt_ids.size() + emitted_ids.size();
  }  // prompt and output so far
  // The row that the next step feeds: the last id, at its position.
  TokenId last_id() const {
    return emitted_ids.empty() ? request->prompt_ids.back() : emitted_ids.back();
  }
  uint32_t last_position() const { return static_cast<uint32_t>(length() - 1); }
};

// Ended sequences whose attempt numbers are remembered; the oldest is forgotten first. A lower
// attempt that comes after that was delayed by thousands of sequences, and its gateway's Stop ends
// it.
inline constexpr size_t kMaxFences = 4096;

// Ordered by admission; pointers to sequences hold until Erase.
class SequenceTable {
 public:
  using Map = std::map<uint64_t, std::unique_ptr<Sequence>>;  // by Sequence::admitted

  // May this attempt come in? kAlreadyExists: it is or was here; kFailedPrecondition: a higher one
  // is or was.
  absl::Status CheckAttempt(const SequenceKey& key) const;
  Sequence& Add(const SequenceKey& key, std::shared_ptr<const DecodeRequest> request,
                const ChoiceStart& start);
  Sequence* Find(const SequenceKey& key) const;  // null: not held
  // Held attempts of the same request and choice that are lower.
  std::vector<Sequence*> LowerAttempts(const SequenceKey& key) const;
  // Forgets the sequence. `again`: the same attempt may come back, as when a reservation was given
  // back before it started.
  void Erase(Sequence& sequence, bool again);

  const Map& all() const { return sequences_; }
  size_t size() const { return sequences_.size(); }
  std::vector<SequenceKey> Keys() const;  // ascending

 private:
  using ChoiceName = std::pair<RequestId, uint32_t>;
  struct Fence {
    uint32_t lowest_attempt = 0;  // that may still come in
    std::list<ChoiceName>::iterator age;
  };
  void SetFence(const ChoiceName& name, uint32_t lowest_attempt);

  Map sequences_;
  std::map<SequenceKey, Sequence*> by_key_;
  uint64_t next_admitted_ = 1;
  std::map<ChoiceName, Fence> fences_;
  std::list<ChoiceName> fence_ages_;  // oldest first
};

}  // namespace tandem::step
