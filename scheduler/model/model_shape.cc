#include "scheduler/model/model_shape.h"

#include <absl/strings/str_cat.h>
#include <yaml-cpp/yaml.h>

#include "scheduler/base/status.h"
#include "scheduler/model/figure.h"
#include "scheduler/model/yaml_reader.h"

namespace tandem::model {
namespace {

constexpr int64_t kMaxLayers = 1000;
constexpr int64_t kMaxHeads = 1 << 16;
constexpr int64_t kMaxWidth = 1 << 24;
constexpr double kMaxParameters = 1e15;  // so that no product of widths overflows

absl::Status ReadLatent(YamlReader reader, ModelShape& shape) {
  LatentAttention latent;
  reader.Get("q_rank", latent.q_rank, 0, kMaxWidth);
  reader.Require("kv_rank", latent.kv_rank, 1, kMaxWidth);
  reader.Require("rope_dim", latent.rope_dim, 0, kMaxWidth);
  reader.Require("nope_dim", latent.nope_dim, 1, kMaxWidth);
  reader.Require("value_dim", latent.value_dim, 1, kMaxWidth);
  shape.kv_heads = 1;
  shape.head_dim = latent.kv_rank + latent.rope_dim;
  shape.latent = latent;
  return reader.Finish();
}

// {nvfp4: bf16}
absl::Status ReadAttentionDtypes(YamlReader reader, ModelShape& shape) {
  for (const Dtype dtype : kAllDtypes) {
    const std::string key(DtypeName(dtype));
    std::string name;
    reader.Get(key, name);
    if (name.empty()) continue;
    const absl::StatusOr<Dtype> kept = ParseDtype(name);
    if (kept.ok()) {
      shape.attention_dtypes[dtype] = *kept;
    } else {
      reader.Refuse(key, std::string(kept.status().message()));
    }
  }
  return reader.Finish();
}

void ReadAttention(YamlReader& reader, ModelShape& shape) {
  reader.Require("heads", shape.heads, 1, kMaxHeads);
  if (reader.Has("mla")) {
    reader.GetMapping("mla", [&](const YAML::Node& node) {
      return ReadLatent(reader.Below(node, "mla"), shape);
    });
  } else {
    reader.Require("kv_heads", shape.kv_heads, 1, kMaxHeads);
    reader.Require("head_dim", shape.head_dim, 1, kMaxHeads);
    if (shape.kv_heads > 0 && shape.heads % shape.kv_heads != 0)
      reader.Refuse("kv_heads", absl::StrCat(shape.kv_heads, " does not divide ", shape.heads));
  }
  reader.GetMapping("attention_weights", [&](const YAML::Node& node) {
    return ReadAttentionDtypes(reader.Below(node, "attention_weights"), shape);
  });
  reader.Get("window", shape.window, 1, 1 << 30);
  reader.Get("full_attention_every", shape.full_attention_every, 1, kMaxLayers);
  if (shape.full_attention_every > 0 && shape.window == 0)
    reader.Refuse("full_attention_every", "needs a window");
}

void ReadFfn(YamlReader& reader, ModelShape& shape) {
  reader.Require("ffn", shape.ffn, 1, kMaxWidth);
  if (!reader.Has("experts")) return;  // then the rest are unknown keys
  reader.Get("experts", shape.experts, 1, 1 << 16);
  reader.Require("experts_per_token", shape.experts_per_token, 1, 1 << 16);
  reader.Get("shared_experts", shape.shared_experts, 0, 1 << 10);
  reader.Get("dense_layers", shape.dense_layers, 0, kMaxLayers);
  if (shape.dense_layers > 0) reader.Require("dense_ffn", shape.dense_ffn, 1, kMaxWidth);
  if (shape.experts_per_token > shape.experts) {
    reader.Refuse("experts_per_token",
                  absl::StrCat(shape.experts_per_token, " of ", shape.experts, " experts"));
  }
  if (shape.dense_layers > shape.layers) {
    reader.Refuse("dense_layers", absl::StrCat(shape.dense_layers, " of ", shape.layers));
  }
}

// An upper bound of the shape's parameters, in doubles: the integers may overflow before it is
// known.
double RoughParameters(const ModelShape& shape) {
  const auto d = [](uint64_t n) { return static_cast<double>(n); };
  const double projections =
      d(shape.hidden) + (shape.latent ? d(shape.latent->q_rank) : 0) + d(shape.head_dim);
  const double head = shape.latent ? d(shape.latent->nope_dim) + d(shape.latent->rope_dim) +
                                         d(shape.latent->value_dim)
                                   : d(shape.head_dim);
  const double attention =
      4 * projections *
      (d(shape.heads) * head + (shape.latent ? d(shape.latent->q_rank) + d(shape.head_dim) : 0));
  const double ffn =
      3 * d(shape.hidden) *
      (d(shape.ffn) * (d(shape.experts) + d(shape.shared_experts) + 1) + d(shape.dense_ffn));
  return d(shape.layers) * (attention + ffn) + 2 * d(shape.vocabulary) * d(shape.hidden);
}

}  // namespace

Dtype ModelShape::AttentionDtype(Dtype weights) const {
  const auto kept = attention_dtypes.find(weights);
  return kept == attention_dtypes.end() ? weights : kept->second;
}

bool ModelShape::IsWindowed(uint64_t layer) const {
  return window > 0 && (full_attention_every == 0 || (layer + 1) % full_attention_every != 0);
}

uint64_t ModelShape::windowed_layers() const {
  if (window == 0) return 0;
  return full_attention_every == 0 ? layers : layers - layers / full_attention_every;
}

absl::InlinedVector<Matrix, 5> ModelShape::attention_matrices() const {
  if (!latent.has_value()) {
    return {{"q_proj", hidden, heads * head_dim},
            {"k_proj", hidden, kv_heads * head_dim},
            {"v_proj", hidden, kv_heads * head_dim},
            {"o_proj", heads * head_dim, hidden}};
  }
  const uint64_t query = heads * (latent->nope_dim + latent->rope_dim);
  absl::InlinedVector<Matrix, 5> matrices;
  if (latent->q_rank == 0) {
    matrices = {{"q_proj", hidden, query}};
  } else {
    matrices = {{"q_a_proj", hidden, latent->q_rank}, {"q_b_proj", latent->q_rank, query}};
  }
  matrices.push_back({"kv_a_proj", hidden, latent->kv_rank + latent->rope_dim});
  matrices.push_back(
      {"kv_b_proj", latent->kv_rank, heads * (latent->nope_dim + latent->value_dim)});
  matrices.push_back({"o_proj", heads * latent->value_dim, hidden});
  return matrices;
}

// The sum of attention_matrices(), without making them: it is asked for at every call.
uint64_t ModelShape::attention_parameters() const {
  if (!latent.has_value()) return 2 * hidden * head_dim * (heads + kv_heads);
  const uint64_t query = heads * (latent->nope_dim + latent->rope_dim);
  const uint64_t query_parameters =
      latent->q_rank == 0 ? hidden * query : latent->q_rank * (hidden + query);
  return query_parameters + hidden * (latent->kv_rank + latent->rope_dim) +
         latent->kv_rank * heads * (latent->nope_dim + latent->value_dim) +
         heads * latent->value_dim * hidden;
}

uint64_t ModelShape::router_parameters(uint64_t layer) const {
  return HasExperts(layer) ? hidden * experts : 0;
}

uint64_t ModelShape::ffn_parameters(uint64_t layer) const {
  if (HasExperts(layer)) return (experts + shared_experts) * expert_parameters();
  return 3 * hidden * (experts > 0 ? dense_ffn : ffn);
}

uint64_t ModelShape::parameters() const {
  uint64_t total = head_parameters() * (tied_embeddings ? 1 : 2);
  for (uint64_t layer = 0; layer < layers; layer++)
    total += attention_parameters() + router_parameters(layer) + ffn_parameters(layer);
  return total;
}

uint64_t ModelShape::active_parameters() const {
  const uint64_t idle_experts = experts - experts_per_token;
  return parameters() - (layers - dense_layers) * idle_experts * expert_parameters();
}

uint64_t ModelShape::kv_elements() const { return latent ? head_dim : 2 * kv_heads * head_dim; }

absl::StatusOr<ModelShape> ReadModelShape(absl::string_view yaml, absl::string_view where) {
  const std::string file(where);
  ASSIGN_OR_RETURN(const YAML::Node root, ParseYaml(yaml, file));
  YamlReader reader(root, file);
  ModelShape shape;
  RequireText(reader, "name", shape.name);
  RequireText(reader, "source", shape.source);
  reader.Require("layers", shape.layers, 1, kMaxLayers);
  reader.Require("hidden", shape.hidden, 1, kMaxWidth);
  reader.Require("vocabulary", shape.vocabulary, 1, kMaxWidth);
  reader.Require("context_tokens", shape.context_tokens, 1, 1 << 30);
  reader.Get("tied_embeddings", shape.tied_embeddings);
  ReadAttention(reader, shape);
  ReadFfn(reader, shape);
  RETURN_IF_ERROR(reader.Finish());
  if (const double parameters = RoughParameters(shape); parameters > kMaxParameters) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": about ", parameters, " parameters; at most ", kMaxParameters));
  }
  return shape;
}

}  // namespace tandem::model
