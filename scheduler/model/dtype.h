#pragma once

// Number formats of weights. Chosen at use: a model's shape has none, a chip has figures for each.

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <array>
#include <cstdint>

namespace tandem::model {

enum class Dtype { kBf16, kFp8, kInt8, kInt4, kNvfp4, kMxfp4 };
inline constexpr std::array<Dtype, 6> kAllDtypes = {Dtype::kBf16, Dtype::kFp8,   Dtype::kInt8,
                                                    Dtype::kInt4, Dtype::kNvfp4, Dtype::kMxfp4};

absl::string_view DtypeName(Dtype dtype);  // "bf16", which stands for fp16 too
absl::StatusOr<Dtype> ParseDtype(absl::string_view name);

// With its scales: int4 4.5 (16 bits for 32 weights), nvfp4 4.5 (8 for 16), mxfp4 4.25 (8 for 32).
// Source: facts/models.md, which applies them to all weights of a model, embeddings included.
double BitsPerWeight(Dtype dtype);

// The formats of one use of a model.
struct Precision {
  Dtype weights = Dtype::kBf16;
  uint32_t kv_element_bytes = 2;       // of K and V
  uint32_t handoff_element_bytes = 4;  // of A2F and F2A rows: raw F32 (PROTOCOL section 6)
};

}  // namespace tandem::model
