#pragma once

// A cluster's word of one decode step, made by hand: registrations, traces and the answer.

#include <absl/strings/str_cat.h>

#include <string>
#include <utility>

#include "services/ctl/explain/build.h"
#include "tests/unit/scheduler/model/shipped_catalog.h"

namespace tandem::ctl {

inline constexpr int64_t kStepBegin = 1'000'000'000'000;
inline constexpr uint64_t kExplainedStep = 7;

inline TracedSpan SpanOf(v1::SpanKind kind, int64_t begin_ns, int64_t length_ns, uint32_t layer = 0,
                         uint32_t micro_batch = 0, uint32_t rows = 1) {
  TracedSpan span;
  span.kind = kind;
  span.begin_ns = begin_ns;
  span.end_ns = begin_ns + length_ns;
  span.step = kExplainedStep;
  span.layer = layer;
  span.micro_batch = micro_batch;
  span.rows = rows;
  span.calls = 1;
  span.peer = 0;
  return span;
}

// An emulated worker of the catalog's model and device.
inline v1::Registration EmulatedWorker(const std::string& id, std::vector<v1::Stage> stages,
                                       const std::string& device, const std::string& shape,
                                       const std::string& weights) {
  v1::Registration worker;
  worker.set_worker_id(id);
  worker.set_pool(id.substr(0, id.find('-')));
  worker.set_model("emulated-model");
  for (const v1::Stage stage : stages) worker.add_stages(stage);
  worker.set_device(absl::StrCat("emulated/", device));
  worker.set_memory_class(v1::MEMORY_CLASS_HBM);
  worker.set_time_scale(4);
  worker.set_model_shape(shape);
  worker.set_weights(weights);
  worker.mutable_dimensions()->set_layers(
      static_cast<uint32_t>(model::Shipped().FindModel(shape)->layers));
  return worker;
}

// SmolLM2-135M as a CPU worker loads it: Q4_1 (5 bits) and Q8_0 (8.5) for the head.
inline v1::Registration RealWorker(const std::string& id, std::vector<v1::Stage> stages) {
  v1::Registration worker;
  worker.set_worker_id(id);
  worker.set_pool(id.substr(0, id.find('-')));
  worker.set_model("smollm2");
  for (const v1::Stage stage : stages) worker.add_stages(stage);
  worker.set_device("ggml-cpu");
  worker.set_memory_class(v1::MEMORY_CLASS_HBM);
  v1::ModelDimensions& dimensions = *worker.mutable_dimensions();
  dimensions.set_layers(30);
  dimensions.set_hidden(576);
  dimensions.set_kv_heads(3);
  dimensions.set_head_dim(64);
  dimensions.set_vocabulary(49152);
  dimensions.set_context_tokens(8192);
  v1::LoadedModel& loaded = *worker.mutable_loaded();
  loaded.set_heads(9);
  loaded.set_ffn(1536);
  loaded.set_tied_embeddings(true);
  loaded.set_attention_bytes(30ull * 884736 * 5 / 8);
  loaded.set_ffn_bytes(30ull * 3 * 576 * 1536 * 5 / 8);
  loaded.set_head_bytes(49152ull * 576 * 17 / 16);
  loaded.set_kv_row_bytes(2 * 3 * 64 * 2);
  return worker;
}

inline WorkerTrace TraceOf(const v1::Registration& worker, std::vector<std::string> peers) {
  WorkerTrace trace;
  trace.worker = worker.worker_id();
  trace.device = worker.device();
  for (const int stage : worker.stages()) {
    trace.stages.insert(stage == v1::STAGE_FFN         ? Stage::kFfn
                        : stage == v1::STAGE_ATTENTION ? Stage::kAttention
                                                       : Stage::kPrefill);
  }
  trace.emulated = worker.time_scale() > 0;
  trace.time_scale = trace.emulated ? worker.time_scale() : 1;
  trace.peers = std::move(peers);
  return trace;
}

// What each piece of a layer takes, nanoseconds of the trace; a layer's number is added to
// attention's, so that layers differ.
inline constexpr int64_t kEmbedNs = 400, kAttentionNs = 4000, kThereNs = 800, kQueueNs = 200,
                         kFfnNs = 6000, kBackNs = 1200, kHeadNs = 2000, kGapNs = 100;

// The spans of one step, of one micro-batch of `rows` rows; `ffn_skew_ns`: what the FFN worker's
// clock is ahead. Without an FFN worker of its own (`ffn` null) the attention worker computes it.
inline void AddStep(WorkerTrace& attention, WorkerTrace* ffn, uint32_t layers, uint32_t rows,
                    uint32_t context_tokens, int64_t ffn_skew_ns = 0) {
  int64_t now = kStepBegin;
  attention.spans.push_back(SpanOf(v1::SPAN_KIND_EMBED, now, kEmbedNs, 0, 0, rows));
  now += kEmbedNs;
  for (uint32_t layer = 0; layer < layers; layer++) {
    TracedSpan span = SpanOf(v1::SPAN_KIND_ATTENTION, now, kAttentionNs + layer, layer, 0, rows);
    span.context_tokens = context_tokens;
    attention.spans.push_back(span);
    now = span.end_ns + kGapNs;
    if (ffn == nullptr) {
      attention.spans.push_back(SpanOf(v1::SPAN_KIND_FFN, now, kFfnNs, layer, 0, rows));
      now += kFfnNs;
      continue;
    }
    const int64_t arrived = now + kThereNs + ffn_skew_ns, computed = arrived + kQueueNs;
    ffn->spans.push_back(SpanOf(v1::SPAN_KIND_FFN, computed, kFfnNs, layer, 0, rows));
    ffn->spans.push_back(SpanOf(v1::SPAN_KIND_SERVED, arrived, kQueueNs + kFfnNs, layer, 0, rows));
    attention.spans.push_back(
        SpanOf(v1::SPAN_KIND_A2F, now, kThereNs + kQueueNs + kFfnNs + kBackNs, layer, 0, rows));
    now = attention.spans.back().end_ns;
  }
  attention.spans.push_back(SpanOf(v1::SPAN_KIND_HEAD, now, kHeadNs, 0, 0, rows));
  attention.spans.push_back(
      SpanOf(v1::SPAN_KIND_STEP, kStepBegin, now + kHeadNs - kStepBegin, 0, 0, rows));
}

inline ExplainAnswer AnswerOf(const std::string& worker, uint32_t prompt_tokens) {
  ExplainAnswer answer;
  answer.topology = "afd";
  answer.attention_worker = worker;
  answer.prompt_tokens = prompt_tokens;
  answer.tokens = {{11, " one", -0.5}, {22, " two", -0.25}};
  answer.decode_step = kExplainedStep;
  answer.candidates = {{" two", -0.25, true}, {" three", -2.0, false}};
  return answer;
}

// One sequence alone: a prompt of 100 tokens, and the step of its second token.
inline constexpr uint32_t kPromptTokens = 100, kContext = kPromptTokens + 1;

inline ExplainInput AfdInput(const std::string& shape = "llama-3-8b",
                             const std::string& device = "h100-sxm", int64_t ffn_skew_ns = 0) {
  ExplainInput input;
  input.question.prompt = "count";
  input.workers = {
      EmulatedWorker("attention-0", {v1::STAGE_PREFILL, v1::STAGE_ATTENTION}, device, shape, "fp8"),
      EmulatedWorker("ffn-0", {v1::STAGE_FFN}, device, shape, "fp8")};
  input.traces = {TraceOf(input.workers[0], {"ffn-0"}), TraceOf(input.workers[1], {"attention-0"})};
  AddStep(input.traces[0], &input.traces[1], input.workers[0].dimensions().layers(), 1, kContext,
          ffn_skew_ns);
  input.answer = AnswerOf("attention-0", kPromptTokens);
  return input;
}

inline ExplainInput ColocatedInput() {
  ExplainInput input;
  input.question.prompt = "count";
  input.workers = {
      RealWorker("colocated-0", {v1::STAGE_PREFILL, v1::STAGE_ATTENTION, v1::STAGE_FFN})};
  input.traces = {TraceOf(input.workers[0], {})};
  AddStep(input.traces[0], nullptr, 30, 1, kContext);
  input.answer = AnswerOf("colocated-0", kPromptTokens);
  input.answer.topology = "colocated";
  return input;
}

}  // namespace tandem::ctl
