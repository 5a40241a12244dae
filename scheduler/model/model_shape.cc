#include "scheduler/model/model_shape.h"

#include <absl/strings/str_cat.h>

#include "scheduler/base/status.h"
#include "scheduler/model/yaml_fields.h"

namespace tandem::model {

uint64_t ModelShape::attention_parameters() const {
  return hidden * heads * head_dim + 2 * hidden * kv_heads * head_dim + heads * head_dim * hidden;
}

uint64_t ModelShape::ffn_parameters() const { return 3 * hidden * ffn; }

uint64_t ModelShape::kv_bytes_per_token() const {
  return 2 * layers * kv_heads * head_dim * kv_bytes;
}

absl::StatusOr<ModelShape> ReadModelShape(absl::string_view yaml, absl::string_view where) {
  YamlFields fields(yaml, where);
  constexpr uint64_t kNone = 0;
  ModelShape shape;
  shape.name = fields.Text("name");
  shape.source = fields.Text("source");
  shape.layers = fields.Integer("layers", 1, 1000);
  shape.hidden = fields.Integer("hidden", 1, 1 << 20);
  shape.heads = fields.Integer("heads", 1, 1 << 16);
  shape.kv_heads = fields.Integer("kv_heads", 1, 1 << 16);
  shape.head_dim = fields.Integer("head_dim", 1, 1 << 16);
  shape.ffn = fields.Integer("ffn", 1, 1 << 24);
  shape.vocabulary = fields.Integer("vocabulary", 1, 1 << 24);
  shape.context_tokens = fields.Integer("context_tokens", 1, 1 << 30);
  shape.experts = fields.Integer("experts", 0, 1 << 16, &kNone);
  shape.experts_per_token = fields.Integer("experts_per_token", 0, 1 << 16, &kNone);
  shape.weight_bits = fields.Integer("weight_bits", 1, 64);
  shape.kv_bytes = fields.Integer("kv_bytes", 1, 8);
  RETURN_IF_ERROR(fields.Finish());
  if (shape.experts_per_token > shape.experts ||
      (shape.experts > 0 && shape.experts_per_token == 0)) {
    return absl::InvalidArgumentError(absl::StrCat(where,
                                                   ": experts_per_token: ", shape.experts_per_token,
                                                   " of ", shape.experts, " experts"));
  }
  return shape;
}

}  // namespace tandem::model
