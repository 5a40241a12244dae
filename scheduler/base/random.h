#pragma once

// Chance as an argument: one seed, the same numbers on every machine and compiler.

#include <absl/strings/string_view.h>

#include <cstdint>

namespace tandem {

// A 64-bit finaliser: every input bit changes about half of the output bits.
// Source: SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA
// 2014).
constexpr uint64_t Mix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// Seed of choice i of a request with that seed.
constexpr uint64_t ChoiceSeed(uint64_t seed, uint32_t choice) {
  return Mix64(seed ^ Mix64(choice));
}

// Uniform in [0, 1), 53 bits, a function of (seed, position) alone: a sequence resumed elsewhere
// draws the same numbers.
constexpr double CounterUniform(uint64_t seed, uint64_t position) {
  return static_cast<double>(Mix64(seed ^ Mix64(position + 1)) >> 11) * 0x1.0p-53;
}

// A stream of numbers from one seed (SplitMix64's sequence).
class Random {
 public:
  explicit constexpr Random(uint64_t seed) : state_(seed) {}

  constexpr uint64_t Next() {
    const uint64_t value = Mix64(state_);
    state_ += 0x9e3779b97f4a7c15ULL;
    return value;
  }
  // Uniform in [0, bound); bound >= 1. The bias of the multiply-shift is below bound / 2^64.
  constexpr uint64_t Below(uint64_t bound) {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(Next()) * bound) >> 64);
  }
  constexpr double Uniform() { return static_cast<double>(Next() >> 11) * 0x1.0p-53; }  // [0, 1)
  // Exponential with the given mean, > 0.
  double Exponential(double mean);

  // A generator for one component: adding a draw in one leaves the others alone.
  Random Child(absl::string_view name) const;

 private:
  uint64_t state_;
};

}  // namespace tandem
