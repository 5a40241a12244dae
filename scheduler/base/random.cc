#include "scheduler/base/random.h"

#include <cmath>

namespace tandem {

double Random::Exponential(double mean) { return -mean * std::log1p(-Uniform()); }

Random Random::Child(absl::string_view name) const {
  uint64_t seed = Mix64(state_);
  for (const char c : name) seed = Mix64(seed ^ static_cast<unsigned char>(c));
  return Random(seed);
}

}  // namespace tandem
