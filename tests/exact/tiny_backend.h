#pragma once

// Backends of the tiny model, on any device of ggml's.

#include <absl/status/statusor.h>
#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <set>
#include <stdexcept>
#include <string>

#include "tests/exact/backend_conformance.h"
#include "tests/exact/tiny_model.h"
#include "workers/backend/ggml/ggml_backend.h"

namespace tandem::exact {

// `spec` says all but the file, which goes as soon as it is loaded.
inline absl::StatusOr<std::unique_ptr<StageBackend>> LoadTiny(const TinyModel& model,
                                                              ShardSpec spec) {
  spec.model_path = absl::StrCat(testing::TempDir(), "/tandem_tiny_", getpid(), ".gguf");
  if (!WriteTinyModel(model, spec.model_path)) return absl::UnknownError("no file");
  auto backend = MakeGgmlBackend(spec);
  unlink(spec.model_path.c_str());
  return backend;
}

inline std::unique_ptr<StageBackend> MakeTiny(const TinyModel& model, std::set<Stage> stages,
                                              uint32_t kv_blocks, uint32_t block_tokens,
                                              const std::string& device = "") {
  const bool needs_kv = stages != std::set<Stage>{Stage::kFfn};
  auto backend = LoadTiny(
      model, {"", std::move(stages), needs_kv ? kv_blocks : 0, block_tokens, 1, {}, device});
  // A device that is not there fails the test that asks for it, and no other.
  if (!backend.ok()) throw std::runtime_error(backend.status().ToString());
  return *std::move(backend);
}

// `device` is asked for when the first backend is made: it may have to be started.
inline BackendCase TinyCase(
    const std::string& name, const TinyModel& model,
    std::function<std::string()> device = [] { return ""; }) {
  const auto all = std::set<Stage>{Stage::kPrefill, Stage::kAttention, Stage::kFfn};
  return {name,
          [=](std::set<Stage> stages, uint32_t kv_blocks, uint32_t block_tokens) {
            return MakeTiny(model, std::move(stages), kv_blocks, block_tokens, device());
          },
          [=](const ShardRequest& shard) {
            return LoadTiny(model, {"", {Stage::kFfn}, 0, 16, 1, shard, device()});
          },
          [=](uint32_t kv_blocks, uint32_t block_tokens) {
            return MakeTiny(model, all, kv_blocks, block_tokens);
          }};
}

inline TinyModel TinyWithOutputMatrix() {
  TinyModel model;
  model.output_matrix = true;
  model.type = GGML_TYPE_Q4_1;
  return model;
}

}  // namespace tandem::exact
