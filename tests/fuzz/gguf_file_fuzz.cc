// A model file, damaged or hostile: refused with a reason that names the file, or a model whose
// numbers are usable and whose tensors lie inside the file.
//
// Input: the file.

#include <absl/strings/match.h>

#include <cmath>

#include "ggml.h"
#include "tests/fuzz/fuzz_input.h"
#include "workers/backend/ggml/gguf_model.h"

namespace tandem::ggml_cpu {
namespace {

void Silent(ggml_log_level, const char*, void*) {}

void CheckShape(const LlamaShape& shape) {
  TANDEM_CHECK(shape.layers > 0 && shape.hidden > 0 && shape.ff > 0 && shape.context_tokens > 0);
  TANDEM_CHECK(shape.heads * shape.head_dim == shape.hidden);
  TANDEM_CHECK(shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0);
  TANDEM_CHECK(shape.rope_dims > 0 && shape.rope_dims <= shape.head_dim);
  TANDEM_CHECK(shape.rms_eps >= 0 && std::isfinite(shape.rms_eps));
  TANDEM_CHECK(shape.rope_base > 0 && std::isfinite(shape.rope_base));
}

void CheckModel(const GgufModel& model, uint64_t file_bytes) {
  CheckShape(model.shape());
  TANDEM_CHECK(model.vocabulary() > 0);
  TANDEM_CHECK(model.sha256().size() == 64);
  for (const uint32_t id : model.end_tokens()) TANDEM_CHECK(id < model.vocabulary());
  for (const TensorSpec& spec : model.tensors()) {
    const ggml_tensor* header = model.Header(spec.name);
    TANDEM_CHECK(header->ne[0] == spec.columns && header->ne[1] == spec.rows);
    TANDEM_CHECK(ggml_nbytes(header) <= file_bytes);
    std::vector<uint8_t> data(ggml_nbytes(header));
    TANDEM_CHECK(model.Read(spec.name, absl::MakeSpan(data)).ok());
  }
}

}  // namespace
}  // namespace tandem::ggml_cpu

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tandem;
  ggml_log_set(ggml_cpu::Silent, nullptr);
  const fuzz::MemoryFile file(fuzz::FuzzInput(data, size).Rest());
  const auto model = ggml_cpu::GgufModel::Open(file.path());
  if (!model.ok()) {
    fuzz::CheckRefusal(model.status());
    TANDEM_CHECK(absl::StrContains(model.status().message(), file.path()));
  } else {
    ggml_cpu::CheckModel(**model, size);
  }
  return 0;
}
