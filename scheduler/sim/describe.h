#pragma once

// Events and commands as one line of text each: what the digest hashes and a trace prints.

#include <absl/strings/string_view.h>

#include <cstdint>
#include <string>

#include "scheduler/base/random.h"
#include "scheduler/control/events.h"

namespace tandem::sim {

std::string Describe(const control::Event& event);
std::string Describe(const control::Command& command);

// Order-dependent hash of everything that happened.
class Digest {
 public:
  void Add(uint64_t number) { value_ = Mix64(value_ ^ number) + 1; }
  // FNV-1a, folded in as one number.
  void Add(absl::string_view text) {
    uint64_t hash = 0xcbf29ce484222325ULL;
    for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3ULL;
    Add(hash);
  }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0;
};

}  // namespace tandem::sim
