#pragma once

// A random two-layer llama as a GGUF file: loads and runs in milliseconds, and can be damaged to
// order.

#include <cstdint>
#include <string>

#include "ggml.h"

namespace tandem::exact {

struct TinyModel {
  uint32_t layers = 2, hidden = 64, ff = 128, heads = 2, kv_heads = 1, vocabulary = 96;
  uint64_t seed = 1;
  ggml_type type = GGML_TYPE_Q8_0;  // of the matrices
  bool output_matrix = false;       // of its own, else the token embedding is it

  // Damage.
  std::string architecture = "llama";
  uint32_t experts = 0;       // claimed in the metadata
  std::string rope_scaling;   // claimed in the metadata
  std::string leave_out;      // this tensor
  std::string misshape;       // this tensor: half its rows
  std::string add;            // a tensor of this name, [hidden]
  std::string leave_out_key;  // this key
};

// Writes it to `path`; false when that fails. Equal arguments give equal bytes.
bool WriteTinyModel(const TinyModel& model, const std::string& path);

// The tensor whose data comes last in the file.
inline constexpr char kTinyModelLastTensor[] = "blk.1.ffn_down.weight";

}  // namespace tandem::exact
