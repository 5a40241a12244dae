#pragma once

// tandem-worker microbench: times the device's calls and the hand-off, and writes them as JSON.
// What `tandemctl calibrate` runs.

#include <absl/status/statusor.h>
#include <boost/json/value.hpp>

#include <cstdint>
#include <string>

namespace tandem {

struct MicrobenchOptions {
  std::string model;    // GGUF file
  bool quick = false;   // fewer sizes and rounds: seconds instead of a minute
  uint32_t rounds = 0;  // 0: 5, quick 3
};

// Runs it; prints progress on stderr. The JSON: {model: {...}, machine: {...}, backend, numerics,
// threads, rounds, read_bytes_per_s, attention_bytes, ffn_bytes, head_bytes,
// calls: [{kind, rows, positions, pattern, seconds, spread}],
// handoffs: [{rows, bytes, pattern, seconds, spread}]}; patterns are time_calls.h's; a hand-off's
// seconds are of a round trip, its bytes those of one way.
absl::StatusOr<boost::json::value> RunMicrobench(const MicrobenchOptions& options);

// The command line after "tandem-worker microbench"; the exit code.
int MicrobenchMain(int argc, const char* const* argv);

}  // namespace tandem
