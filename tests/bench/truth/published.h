#pragma once

// The published single-system figures of facts/published.md: predicted, or why not.

#include <absl/status/statusor.h>
#include <absl/types/span.h>

#include <cstdint>
#include <string>

#include "scheduler/model/catalog.h"

namespace tandem::truth {

// What was served while a figure was measured.
struct PublishedLoad {
  enum class Kind {
    kServer,   // a closed loop of InferenceX's client
    kBurst,    // one request of each client, all sent at once
    kOffline,  // as many at once as fit: nobody states how many ran
    kOneUser,  // one, at kOneUserContext
  };
  Kind kind;
  uint64_t clients = 0, prompt = 0, output = 0;  // 0: not stated
};
inline constexpr uint64_t kOneUserContext = 512;

// Those that a row has; the others are 0.
struct Figures {
  double ttft_ms = 0, tpot_ms = 0;
  double tokens_per_s = 0;  // output, of all users together
};

struct PublishedRow {
  const char *id, *device, *shape;
  model::Dtype weights;
  const char* engine;   // "none": one that nobody fitted, which adds no time of its own
  const char* version;  // of the engine, as the catalog's factors have it; "": not recorded
  PublishedLoad load;
  Figures published;
};

// Every row that can be predicted, in the order of facts/published.md. An id may stand in several.
absl::Span<const PublishedRow> PublishedRows();

struct PublishedPrediction {
  Figures figures;
  double steady_tpot_ms = 0;  // of kServer and kBurst: TPOT without the simulation of the client
  uint64_t batch = 0;         // of kOffline: the sequences that fit
};

// kNotFound, naming it: the catalog lacks device, model or engine. kFailedPrecondition: the model
// does not fit.
absl::StatusOr<PublishedPrediction> Predict(const model::Catalog& catalog, const PublishedRow& row);

// All of them, and what is not predicted.
absl::StatusOr<std::string> PublishedTable(const model::Catalog& catalog);

}  // namespace tandem::truth
