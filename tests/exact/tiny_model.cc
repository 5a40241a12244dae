#include "tests/exact/tiny_model.h"

#include <absl/strings/str_cat.h>

#include <vector>

#include "ggml-cpp.h"
#include "scheduler/base/random.h"

namespace tandem::exact {
namespace {

class Writer {
 public:
  explicit Writer(const TinyModel& model)
      : model_(model),
        random_(model.seed),
        gguf_(gguf_init_empty()),
        context_(ggml_init({size_t{16} << 20, nullptr, /*no_alloc=*/false})) {}

  void Metadata() {
    gguf_set_val_str(gguf_.get(), "general.architecture", model_.architecture.c_str());
    gguf_set_val_str(gguf_.get(), "general.name", "tiny");
    Number("llama.block_count", model_.layers);
    Number("llama.context_length", 256);
    Number("llama.embedding_length", model_.hidden);
    Number("llama.feed_forward_length", model_.ff);
    Number("llama.attention.head_count", model_.heads);
    Number("llama.attention.head_count_kv", model_.kv_heads);
    if (model_.experts > 0) Number("llama.expert_count", model_.experts);
    if (!model_.rope_scaling.empty()) {
      gguf_set_val_str(gguf_.get(), "llama.rope.scaling.type", model_.rope_scaling.c_str());
    }
    gguf_set_val_f32(gguf_.get(), "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    gguf_set_val_f32(gguf_.get(), "llama.rope.freq_base", 10000.0f);
    std::vector<std::string> texts(model_.vocabulary);
    std::vector<const char*> pointers(model_.vocabulary);
    for (uint32_t id = 0; id < model_.vocabulary; ++id) {
      texts[id] = id == 1 ? "<|endoftext|>" : absl::StrCat("t", id);
      pointers[id] = texts[id].c_str();
    }
    gguf_set_arr_str(gguf_.get(), "tokenizer.ggml.tokens", pointers.data(), pointers.size());
    Number("tokenizer.ggml.eos_token_id", 2);
    if (!model_.leave_out_key.empty()) gguf_remove_key(gguf_.get(), model_.leave_out_key.c_str());
  }

  void Tensors() {
    const int64_t hidden = model_.hidden, ff = model_.ff;
    const int64_t kv_dim = hidden / model_.heads * model_.kv_heads;
    Matrix("token_embd", hidden, model_.vocabulary);
    Vector("output_norm", hidden);
    if (model_.output_matrix) Matrix("output", hidden, model_.vocabulary);
    if (!model_.add.empty()) AddVector(model_.add, hidden);
    for (uint32_t layer = 0; layer < model_.layers; ++layer) {
      const std::string prefix = absl::StrCat("blk.", layer, ".");
      Vector(prefix + "attn_norm", hidden);
      Matrix(prefix + "attn_q", hidden, hidden);
      Matrix(prefix + "attn_k", hidden, kv_dim);
      Matrix(prefix + "attn_v", hidden, kv_dim);
      Matrix(prefix + "attn_output", hidden, hidden);
      Vector(prefix + "ffn_norm", hidden);
      Matrix(prefix + "ffn_gate", hidden, ff);
      Matrix(prefix + "ffn_up", hidden, ff);
      Matrix(prefix + "ffn_down", ff, hidden);
    }
  }

  bool Write(const std::string& path) {
    return gguf_write_to_file(gguf_.get(), path.c_str(), /*only_meta=*/false);
  }

 private:
  void Number(const char* key, uint32_t value) { gguf_set_val_u32(gguf_.get(), key, value); }

  void Matrix(const std::string& part, int64_t columns, int64_t rows) {
    const std::string name = part + ".weight";
    std::vector<float> values(static_cast<size_t>(columns * rows));
    for (float& value : values) value = static_cast<float>(random_.Uniform() - 0.5);
    if (name == model_.misshape) rows /= 2;
    ggml_tensor* tensor = ggml_new_tensor_2d(context_.get(), model_.type, columns, rows);
    ggml_quantize_chunk(model_.type, values.data(), tensor->data, 0, rows, columns, nullptr);
    Add(tensor, name);
  }
  void Vector(const std::string& part, int64_t columns) { AddVector(part + ".weight", columns); }
  void AddVector(const std::string& name, int64_t columns) {
    ggml_tensor* tensor = ggml_new_tensor_1d(context_.get(), GGML_TYPE_F32, columns);
    for (int64_t i = 0; i < columns; ++i) {
      static_cast<float*>(tensor->data)[i] = static_cast<float>(0.5 + random_.Uniform());
    }
    Add(tensor, name);
  }
  void Add(ggml_tensor* tensor, const std::string& name) {
    if (name == model_.leave_out) return;
    ggml_set_name(tensor, name.c_str());
    gguf_add_tensor(gguf_.get(), tensor);
  }

  const TinyModel& model_;
  Random random_;
  gguf_context_ptr gguf_;
  ggml_context_ptr context_;
};

}  // namespace

bool WriteTinyModel(const TinyModel& model, const std::string& path) {
  Writer writer(model);
  writer.Metadata();
  writer.Tensors();
  return writer.Write(path);
}

}  // namespace tandem::exact
