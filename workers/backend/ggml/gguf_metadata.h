#pragma once

// Typed reading of a GGUF's key-value section. gguf.h aborts on a wrong type; these answer with an
// error that names file and key.

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ggml-cpp.h"

namespace tandem::ggml_cpu {

// A view of an open gguf_context; both it and `path` outlive the view.
class GgufMetadata {
 public:
  GgufMetadata(const gguf_context* gguf, const std::string& path) : gguf_(gguf), path_(path) {}

  bool Has(const char* key) const { return gguf_find_key(gguf_, key) >= 0; }
  // Integers of any width, never negative, below 2^32. No value: `otherwise`, or an error that the
  // key is missing.
  absl::StatusOr<uint32_t> Unsigned(const char* key, std::optional<uint32_t> otherwise = {}) const;
  absl::StatusOr<float> Float(const char* key, std::optional<float> otherwise = {}) const;
  absl::StatusOr<std::string> String(const char* key,
                                     std::optional<std::string> otherwise = {}) const;
  // An array of strings; empty when the key is missing.
  absl::StatusOr<std::vector<std::string>> Strings(const char* key) const;

 private:
  absl::Status WrongType(const char* key, int64_t index, absl::string_view wanted) const;
  absl::Status Missing(const char* key) const;

  const gguf_context* gguf_;
  const std::string& path_;
};

}  // namespace tandem::ggml_cpu
