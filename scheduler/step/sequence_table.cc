#include "scheduler/step/sequence_table.h"

#include <absl/strings/str_cat.h>

#include <algorithm>

#include "scheduler/base/check.h"

namespace tandem::step {

absl::Status SequenceTable::CheckAttempt(const SequenceKey& key) const {
  uint32_t lowest = 0;
  if (const auto fence = fences_.find({key.request, key.choice}); fence != fences_.end()) {
    lowest = fence->second.lowest_attempt;
  }
  for (auto it = by_key_.lower_bound({key.request, key.choice, 0});
       it != by_key_.end() && it->first.request == key.request && it->first.choice == key.choice;
       ++it) {
    lowest = std::max(lowest, it->first.attempt + 1);
  }
  if (key.attempt >= lowest) return absl::OkStatus();
  const std::string name = ToString(key);
  if (key.attempt + 1 == lowest)
    return absl::AlreadyExistsError(absl::StrCat("sequence ", name, " is or was here"));
  return absl::FailedPreconditionError(
      absl::StrCat("sequence ", name, ": attempt ", lowest - 1, " is or was here"));
}

Sequence& SequenceTable::Add(const SequenceKey& key, std::shared_ptr<const DecodeRequest> request,
                             const ChoiceStart& start) {
  auto sequence = std::make_unique<Sequence>();
  sequence->key = key;
  sequence->admitted = next_admitted_++;
  sequence->request = std::move(request);
  sequence->seed = start.seed;
  sequence->emitted_ids = start.emitted_ids;
  sequence->first_output = static_cast<uint32_t>(start.emitted_ids.size());
  Sequence& added = *sequence;
  TANDEM_CHECK(by_key_.emplace(key, &added).second);
  sequences_.emplace(added.admitted, std::move(sequence));
  return added;
}

Sequence* SequenceTable::Find(const SequenceKey& key) const {
  const auto it = by_key_.find(key);
  return it == by_key_.end() ? nullptr : it->second;
}

std::vector<Sequence*> SequenceTable::LowerAttempts(const SequenceKey& key) const {
  std::vector<Sequence*> lower;
  const auto end = by_key_.lower_bound(key);
  for (auto it = by_key_.lower_bound({key.request, key.choice, 0}); it != end; ++it)
    lower.push_back(it->second);
  return lower;
}

void SequenceTable::Erase(Sequence& sequence, bool again) {
  SetFence({sequence.key.request, sequence.key.choice}, sequence.key.attempt + (again ? 0 : 1));
  by_key_.erase(sequence.key);
  sequences_.erase(sequence.admitted);
}

void SequenceTable::SetFence(const ChoiceName& name, uint32_t lowest_attempt) {
  if (const auto it = fences_.find(name); it != fences_.end()) {
    it->second.lowest_attempt = std::max(it->second.lowest_attempt, lowest_attempt);
    fence_ages_.splice(fence_ages_.end(), fence_ages_, it->second.age);
    return;
  }
  if (fences_.size() >= kMaxFences) {
    fences_.erase(fence_ages_.front());
    fence_ages_.pop_front();
  }
  fence_ages_.push_back(name);
  fences_.emplace(name, Fence{lowest_attempt, std::prev(fence_ages_.end())});
}

std::vector<SequenceKey> SequenceTable::Keys() const {
  std::vector<SequenceKey> keys;
  keys.reserve(by_key_.size());
  for (const auto& [key, sequence] : by_key_) keys.push_back(key);
  return keys;
}

}  // namespace tandem::step
