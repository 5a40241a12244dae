#include "scheduler/cost/ops.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include <algorithm>
#include <utility>

namespace tandem::cost {
namespace {

using model::ModelShape;
using model::Precision;

constexpr uint64_t kLogitBytes = 4;
constexpr uint64_t kFlopsPerNormElement = 4;  // square, sum, scale, weight

double Activations(uint64_t rows, uint64_t width) {
  return static_cast<double>(rows * width * kActivationBytes);
}

// "[64, 8192]"
std::string Dimensions(uint64_t rows, uint64_t columns) {
  return absl::StrCat("[", rows, ", ", columns, "]");
}

Op NormOp(absl::string_view name, const ModelShape& shape, uint64_t rows) {
  Op op;
  op.name = std::string(name);
  op.shape = Dimensions(rows, shape.hidden);
  op.read_bytes = op.write_bytes = Activations(rows, shape.hidden);
  op.small_flops = static_cast<double>(kFlopsPerNormElement * rows * shape.hidden);
  return op;
}

Op MatrixOp(const model::Matrix& matrix, const Precision& precision, uint64_t rows) {
  const auto parameters = static_cast<double>(matrix.parameters());
  Op op;
  op.name = std::string(matrix.name);
  op.shape = absl::StrCat(Dimensions(rows, matrix.inputs), " x ",
                          Dimensions(matrix.inputs, matrix.outputs));
  op.work = MatrixWork(precision, parameters, parameters, rows);
  op.read_bytes = Activations(rows, matrix.inputs);
  op.write_bytes = Activations(rows, matrix.outputs);
  return op;
}

Op KvWriteOp(const ModelShape& shape, const Precision& precision, uint64_t rows) {
  Op op;
  op.name = "kv_write";
  op.shape = Dimensions(rows, shape.kv_elements());
  op.read_bytes = Activations(rows, shape.kv_elements());
  op.write_bytes = static_cast<double>(rows * shape.kv_elements() * precision.kv_element_bytes);
  return op;
}

// Elements of a head's query, and of what comes out: of the latent where MLA has absorbed K and V
// (decode), of the heads in full where not (prompts).
struct HeadWidth {
  uint64_t query = 0, output = 0;
};
HeadWidth DecodeHead(const ModelShape& shape) {
  if (!shape.latent.has_value()) return {shape.head_dim, shape.head_dim};
  return {shape.head_dim, shape.latent->kv_rank};
}
HeadWidth PromptHead(const ModelShape& shape) {
  if (!shape.latent.has_value()) return {shape.head_dim, shape.head_dim};
  return {shape.latent->nope_dim + shape.latent->rope_dim, shape.latent->value_dim};
}

// `context`: what the rows attend to, in words.
Op ScoresOp(const ModelShape& shape, const Work& work, uint64_t rows, HeadWidth head,
            const std::string& context) {
  Op op;
  op.name = "attention";
  op.shape = absl::StrCat(rows, " rows x ", shape.heads, " heads, ", context);
  op.work = work;
  op.read_bytes = Activations(rows, shape.heads * head.query);
  op.write_bytes = Activations(rows, shape.heads * head.output);
  return op;
}

// Gate, up and down of `count` experts, or of the dense FFN.
Op ThreeMatricesOp(absl::string_view name, const ModelShape& shape, const Work& work, uint64_t rows,
                   const std::string& count, uint64_t width) {
  Op op;
  op.name = std::string(name);
  op.shape = absl::StrCat(Dimensions(rows, shape.hidden), " x ", count, "3 x ",
                          Dimensions(shape.hidden, width));
  op.work = work;
  op.read_bytes = op.write_bytes = Activations(rows, shape.hidden);
  return op;
}

// The attention of a layer: its matrices but the last, new K and V, `scores`, output; and what
// stands before the FFN, which goes to the same device (work.h).
std::vector<Op> LayerAttention(const ModelShape& shape, Precision precision, uint64_t layer,
                               uint64_t rows, Op scores) {
  precision.weights = shape.AttentionDtype(precision.weights);
  const auto matrices = shape.attention_matrices();
  std::vector<Op> ops = {NormOp("attention_norm", shape, rows)};
  for (size_t i = 0; i + 1 < matrices.size(); i++)
    ops.push_back(MatrixOp(matrices[i], precision, rows));
  ops.push_back(KvWriteOp(shape, precision, rows));
  ops.push_back(std::move(scores));
  ops.push_back(MatrixOp(matrices.back(), precision, rows));
  ops.push_back(NormOp("ffn_norm", shape, rows));
  if (shape.HasExperts(layer))
    ops.push_back(MatrixOp({"router", shape.hidden, shape.experts}, precision, rows));
  return ops;
}

// Adds each op to its equal in `all`, or behind it.
void Merge(std::vector<Op> ops, Stage stage, std::vector<Op>& all) {
  for (Op& op : ops) {
    op.stage = stage;
    const auto equal = std::find_if(all.begin(), all.end(), [&](const Op& other) {
      return other.name == op.name && other.shape == op.shape && other.stage == stage;
    });
    if (equal == all.end()) {
      all.push_back(std::move(op));
    } else {
      equal->calls++;
    }
  }
}

Op EmbeddingOp(const ModelShape& shape, const Precision& precision, uint64_t rows) {
  Op op;
  op.name = "embedding";
  op.shape = absl::StrCat(rows, " of ", Dimensions(shape.vocabulary, shape.hidden));
  op.work = EmbedWork(shape, precision, rows);
  op.write_bytes = Activations(rows, shape.hidden);
  return op;
}

std::vector<Op> HeadOps(const ModelShape& shape, const Precision& precision, uint64_t rows) {
  Op head = MatrixOp({"head", shape.hidden, shape.vocabulary}, precision, rows);
  head.work = HeadWork(shape, precision, rows);
  head.write_bytes = static_cast<double>(rows * shape.vocabulary * kLogitBytes);
  Op sampling;
  sampling.name = "sampling";
  sampling.shape = Dimensions(rows, shape.vocabulary);
  sampling.read_bytes = head.write_bytes;
  sampling.small_flops = static_cast<double>(rows * shape.vocabulary);
  return {NormOp("final_norm", shape, rows), std::move(head), std::move(sampling)};
}

}  // namespace

std::vector<Op> AttentionOps(const ModelShape& shape, const Precision& precision, uint64_t layer,
                             const AttentionRows& rows) {
  if (rows.rows == 0) return {};
  const bool windowed = shape.IsWindowed(layer);
  const uint64_t positions = windowed ? rows.windowed_tokens : rows.context_tokens;
  const std::string context =
      absl::StrCat(positions, " cached positions", windowed ? " in the window" : "");
  return LayerAttention(shape, precision, layer, rows.rows,
                        ScoresOp(shape, DecodeScoresWork(shape, precision, layer, rows), rows.rows,
                                 DecodeHead(shape), context));
}

std::vector<Op> FfnOps(const ModelShape& shape, const Precision& precision, uint64_t layer,
                       uint64_t rows) {
  if (rows == 0) return {};
  const FfnShard whole;
  if (!shape.HasExperts(layer)) {
    return {ThreeMatricesOp("ffn", shape, DenseFfnWork(shape, precision, whole, layer, rows), rows,
                            "", shape.experts == 0 ? shape.ffn : shape.dense_ffn)};
  }
  const double touched = ExpectedExperts(shape.experts, shape.experts_per_token, rows);
  std::vector<Op> ops = {
      ThreeMatricesOp("experts", shape, RoutedExpertsWork(shape, precision, whole, layer, rows),
                      rows, absl::StrFormat("%.1f of %d x ", touched, shape.experts), shape.ffn)};
  if (shape.shared_experts > 0) {
    ops.push_back(ThreeMatricesOp("shared_experts", shape,
                                  SharedExpertsWork(shape, precision, whole, layer, rows), rows,
                                  absl::StrCat(shape.shared_experts, " x "), shape.ffn));
  }
  return ops;
}

std::vector<Op> DecodeStepOps(const ModelShape& shape, const Precision& precision,
                              const AttentionRows& rows) {
  if (rows.rows == 0) return {};
  std::vector<Op> ops;
  Merge({EmbeddingOp(shape, precision, rows.rows)}, Stage::kAttention, ops);
  for (uint64_t layer = 0; layer < shape.layers; layer++) {
    Merge(AttentionOps(shape, precision, layer, rows), Stage::kAttention, ops);
    Merge(FfnOps(shape, precision, layer, rows.rows), Stage::kFfn, ops);
  }
  Merge(HeadOps(shape, precision, rows.rows), Stage::kAttention, ops);
  return ops;
}

std::vector<Op> PromptOps(const ModelShape& shape, const Precision& precision, uint64_t rows) {
  if (rows == 0) return {};
  std::vector<Op> ops;
  Merge({EmbeddingOp(shape, precision, rows)}, Stage::kPrefill, ops);
  for (uint64_t layer = 0; layer < shape.layers; layer++) {
    const std::string context = shape.IsWindowed(layer) ? "causal in the window" : "causal";
    Merge(LayerAttention(
              shape, precision, layer, rows,
              ScoresOp(shape,
                       PrefillScoresWork(shape, precision, layer, PrefillRows::Of(shape, 0, rows)),
                       rows, PromptHead(shape), context)),
          Stage::kPrefill, ops);
    Merge(FfnOps(shape, precision, layer, rows), Stage::kPrefill, ops);
  }
  return ops;
}

Work TotalWork(const std::vector<Op>& ops) {
  Work total;
  for (const Op& op : ops) {
    const auto calls = static_cast<double>(op.calls);
    total += {calls * op.work.weight_bytes, calls * op.work.kv_bytes, calls * op.work.flops};
  }
  return total;
}

}  // namespace tandem::cost
