#pragma once

// One kind of call that a device computes, as somebody timed it: what a chip's figures are fitted
// to, and which formula of cost_table.h forecasts it.

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <array>
#include <cstdint>

#include "scheduler/cost/cost_table.h"

namespace tandem::cost {

// One layer of a decode step's attention or FFN; a step's head; one layer, attention and FFN, of a
// prompt's chunk.
enum class CallKind { kAttention, kFfn, kHead, kPrefill };
inline constexpr std::array<CallKind, 4> kAllCallKinds = {CallKind::kAttention, CallKind::kFfn,
                                                          CallKind::kHead, CallKind::kPrefill};

absl::string_view CallKindName(CallKind kind);  // "attention"
// kInvalidArgument lists the names.
absl::StatusOr<CallKind> ParseCallKind(absl::string_view name);

struct CallShape {
  CallKind kind = CallKind::kAttention;
  uint64_t rows = 0;
  // Attention: positions that each row attends to, itself included. Prefill: positions of the
  // prompt before the chunk. Otherwise 0.
  uint64_t positions = 0;
  auto operator<=>(const CallShape&) const = default;
};

struct TimedCall {
  CallShape shape;
  double seconds = 0;
};

// What the table says that the call is made of: TimeOf of it is the call's time. Layer 0 stands for
// all: the model is uniform.
CallParts PartsOf(const CostTable& table, const CallShape& shape);

// Floating-point operations of the call.
double FlopsOf(const model::ModelShape& model, const model::Precision& precision,
               const CallShape& shape);

}  // namespace tandem::cost
