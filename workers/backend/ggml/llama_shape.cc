#include "workers/backend/ggml/llama_shape.h"

#include <absl/strings/str_cat.h>

#include <cmath>

#include "scheduler/base/status.h"
#include "workers/backend/ggml/paged_attention.h"

namespace tandem::ggml_cpu {
namespace {

// Larger numbers are a damaged file; they also bound what is allocated from it.
constexpr uint32_t kMaxLayers = 1024;
constexpr uint32_t kMaxWidth = 1u << 20;

absl::Status CheckSupported(const GgufMetadata& metadata, const std::string& path) {
  ASSIGN_OR_RETURN(const std::string architecture, metadata.String("general.architecture"));
  if (architecture != "llama") {
    return absl::UnimplementedError(
        absl::StrCat(path, ": architecture '", architecture,
                     "' is not supported; this backend runs 'llama' (dense)"));
  }
  ASSIGN_OR_RETURN(const uint32_t experts, metadata.Unsigned("llama.expert_count", 0));
  if (experts > 0) {
    return absl::UnimplementedError(absl::StrCat(
        path, ": a mixture of ", experts,
        " experts (llama.expert_count) is not supported; this backend runs dense models"));
  }
  ASSIGN_OR_RETURN(const std::string scaling, metadata.String("llama.rope.scaling.type", "none"));
  ASSIGN_OR_RETURN(const float scale, metadata.Float("llama.rope.scale_linear", 1.0f));
  if (scaling != "none" || scale != 1.0f) {
    return absl::UnimplementedError(absl::StrCat(path, ": scaled RoPE (type '", scaling,
                                                 "', linear scale ", scale, ") is not supported"));
  }
  return absl::OkStatus();
}

absl::Status CheckNumbers(const LlamaShape& shape, const std::string& path) {
  const auto bad = [&](auto... parts) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", parts...));
  };
  if (shape.layers == 0 || shape.layers > kMaxLayers) {
    return bad("llama.block_count is ", shape.layers, ", not 1 to ", kMaxLayers);
  }
  if (shape.hidden == 0 || shape.hidden > kMaxWidth || shape.ff == 0 || shape.ff > kMaxWidth) {
    return bad("llama.embedding_length ", shape.hidden, " or llama.feed_forward_length ", shape.ff,
               " is not 1 to ", kMaxWidth);
  }
  if (shape.heads == 0 || shape.hidden % shape.heads != 0) {
    return bad(shape.heads, " attention heads do not divide llama.embedding_length ", shape.hidden);
  }
  if (shape.kv_heads == 0 || shape.heads % shape.kv_heads != 0) {
    return bad(shape.kv_heads, " KV heads do not divide ", shape.heads, " attention heads");
  }
  if (shape.rope_dims == 0 || shape.rope_dims % 2 != 0 ||
      shape.rope_dims > shape.hidden / shape.heads) {
    return bad("llama.rope.dimension_count ", shape.rope_dims, " does not fit heads of ",
               shape.hidden / shape.heads);
  }
  if (shape.context_tokens == 0) return bad("llama.context_length is 0");
  if (!(shape.rms_eps >= 0 && std::isfinite(shape.rms_eps))) {
    return bad("llama.attention.layer_norm_rms_epsilon is ", shape.rms_eps);
  }
  if (!(shape.rope_base > 0 && std::isfinite(shape.rope_base))) {
    return bad("llama.rope.freq_base is ", shape.rope_base);
  }
  return absl::OkStatus();
}

// Models may give heads another size than hidden / heads; this backend does not take them.
absl::Status CheckHeadSize(const GgufMetadata& metadata, const LlamaShape& shape,
                           const std::string& path) {
  for (const char* key : {"llama.attention.key_length", "llama.attention.value_length"}) {
    ASSIGN_OR_RETURN(const uint32_t length, metadata.Unsigned(key, shape.head_dim));
    if (length != shape.head_dim) {
      return absl::UnimplementedError(
          absl::StrCat(path, ": ", key, " ", length,
                       " differs from embedding length / heads = ", shape.head_dim));
    }
  }
  if (shape.head_dim % 8 != 0 || shape.head_dim > kMaxHeadDim) {
    return absl::UnimplementedError(absl::StrCat(path, ": heads of ", shape.head_dim,
                                                 " are not supported; a multiple of 8 up to ",
                                                 kMaxHeadDim, " is"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LlamaShape> ReadLlamaShape(const GgufMetadata& metadata, const std::string& path) {
  RETURN_IF_ERROR(CheckSupported(metadata, path));
  LlamaShape shape;
  ASSIGN_OR_RETURN(shape.layers, metadata.Unsigned("llama.block_count"));
  ASSIGN_OR_RETURN(shape.hidden, metadata.Unsigned("llama.embedding_length"));
  ASSIGN_OR_RETURN(shape.ff, metadata.Unsigned("llama.feed_forward_length"));
  ASSIGN_OR_RETURN(shape.heads, metadata.Unsigned("llama.attention.head_count"));
  ASSIGN_OR_RETURN(shape.kv_heads, metadata.Unsigned("llama.attention.head_count_kv", shape.heads));
  ASSIGN_OR_RETURN(shape.context_tokens, metadata.Unsigned("llama.context_length"));
  ASSIGN_OR_RETURN(shape.rms_eps, metadata.Float("llama.attention.layer_norm_rms_epsilon"));
  ASSIGN_OR_RETURN(shape.rope_base, metadata.Float("llama.rope.freq_base", 10000.0f));
  const uint32_t head_dim = shape.heads == 0 ? 0 : shape.hidden / shape.heads;
  ASSIGN_OR_RETURN(shape.rope_dims, metadata.Unsigned("llama.rope.dimension_count", head_dim));
  RETURN_IF_ERROR(CheckNumbers(shape, path));
  shape.head_dim = head_dim;
  RETURN_IF_ERROR(CheckHeadSize(metadata, shape, path));
  return shape;
}

std::vector<TensorSpec> LlamaTensors(const LlamaShape& shape, uint32_t vocabulary,
                                     bool output_matrix) {
  using enum TensorGroup;
  const int64_t hidden = shape.hidden, ff = shape.ff, kv_dim = shape.kv_dim();
  std::vector<TensorSpec> specs;
  specs.push_back({"token_embd.weight", kHead, hidden, vocabulary});
  specs.push_back({"output_norm.weight", kHead, hidden, 1, true});
  if (output_matrix) specs.push_back({"output.weight", kHead, hidden, vocabulary});
  for (uint32_t layer = 0; layer < shape.layers; ++layer) {
    const auto name = [&](const char* part) {
      return absl::StrCat("blk.", layer, ".", part, ".weight");
    };
    specs.push_back({name("attn_norm"), kAttention, hidden, 1, true});
    specs.push_back({name("attn_q"), kAttention, hidden, hidden});
    specs.push_back({name("attn_k"), kAttention, hidden, kv_dim});
    specs.push_back({name("attn_v"), kAttention, hidden, kv_dim});
    specs.push_back({name("attn_output"), kAttention, hidden, hidden});
    specs.push_back({name("ffn_norm"), kFfn, hidden, 1, true});
    specs.push_back({name("ffn_gate"), kFfn, hidden, ff});
    specs.push_back({name("ffn_up"), kFfn, hidden, ff});
    specs.push_back({name("ffn_down"), kFfn, ff, hidden});
  }
  return specs;
}

}  // namespace tandem::ggml_cpu
