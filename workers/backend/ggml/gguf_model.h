#pragma once

// A GGUF file opened and judged: shape, tensors, digest and end tokens. Weights are read from it
// later, by stage.

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/types/span.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ggml-cpp.h"
#include "workers/backend/ggml/llama_shape.h"

namespace tandem::ggml_cpu {

// Immutable once open; any thread may read.
class GgufModel {
 public:
  // kNotFound: no such file. kInvalidArgument: not a GGUF, truncated (names the tensor, the byte it
  // ends at and the bytes there are), a tensor missing or of another shape. kUnimplemented: see
  // ReadLlamaShape; a tensor that a dense llama has not (biases, RoPE factors): its bits would be
  // wrong without it. Reads the whole file once, for the digest.
  static absl::StatusOr<std::unique_ptr<GgufModel>> Open(const std::string& path);
  ~GgufModel();

  const std::string& path() const { return path_; }
  const std::string& name() const { return name_; }      // general.name; may be empty
  const std::string& sha256() const { return sha256_; }  // of the file, hex
  const LlamaShape& shape() const { return shape_; }
  uint32_t vocabulary() const { return vocabulary_; }
  const std::vector<uint32_t>& end_tokens() const { return end_tokens_; }
  const std::vector<TensorSpec>& tensors() const { return tensors_; }

  // Type and dimensions; without data. The name is one of tensors().
  const ggml_tensor* Header(const std::string& tensor) const;
  // The tensor's bytes; `out` has exactly its size. kInvalidArgument when the file got shorter
  // meanwhile.
  absl::Status Read(const std::string& tensor, absl::Span<uint8_t> out) const;

 private:
  explicit GgufModel(std::string path) : path_(std::move(path)) {}
  absl::Status OpenFile();
  absl::Status ReadHeader();
  absl::Status CheckTensors() const;
  absl::Status CheckNotTruncated() const;
  absl::Status ReadEndTokens(const GgufMetadata& metadata);
  absl::Status Digest();
  absl::Status ReadAt(uint64_t offset, absl::Span<uint8_t> out) const;

  std::string path_;
  std::string name_;
  std::string sha256_;
  int file_ = -1;
  uint64_t file_bytes_ = 0;
  gguf_context_ptr gguf_;
  ggml_context_ptr headers_;  // tensors without data
  LlamaShape shape_;
  uint32_t vocabulary_ = 0;
  std::vector<uint32_t> end_tokens_;
  std::vector<TensorSpec> tensors_;
};

}  // namespace tandem::ggml_cpu
