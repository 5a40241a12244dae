// A report out of a cluster's word: its operations are the cost model's, its times the trace's.

#include <absl/strings/match.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "scheduler/cost/cost_table.h"
#include "scheduler/cost/ops.h"
#include "tests/unit/services/ctl/explain_world.h"

namespace tandem::ctl {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<ExplainReport> Make(const ExplainInput& input, const std::string& chip = "") {
  return MakeExplainReport(input, model::Shipped(), chip);
}

std::vector<std::string> Kinds(const ExplainReport& report, uint32_t layer) {
  std::vector<std::string> kinds;
  for (const ExplainedPart* part : report.PartsOfLayer(layer))
    kinds.push_back(ToString(part->kind));
  return kinds;
}

// Goal: what is shown is what scheduler/cost says of a step. Method: the report's totals against
// DecodeStepOps of the same rows, for dense, MoE, windowed and MLA models.
TEST(MakeExplainReport, BytesAndFlopsAreTheCostModels) {
  for (const char* shape : {"llama-3-8b", "mixtral-8x7b", "gpt-oss-20b", "gemma-3-12b",
                            "deepseek-v3", "qwen3-30b-a3b"}) {
    SCOPED_TRACE(shape);
    const auto report = Make(AfdInput(shape, "h200-x8"));
    ASSERT_TRUE(report.ok()) << report.status();
    const model::ModelShape model = *model::Shipped().FindModel(shape);
    const auto ops = cost::DecodeStepOps(model, {model::Dtype::kFp8},
                                         cost::AttentionRows::Even(model, 1, kContext));
    double bytes = 0, flops = 0;
    for (const cost::Op& op : ops) {
      bytes += static_cast<double>(op.calls) * op.bytes();
      flops += static_cast<double>(op.calls) * op.flops();
    }
    EXPECT_NEAR(report->total().memory_bytes, bytes, 1e-9 * bytes);
    EXPECT_NEAR(report->total().flops, flops, 1e-9 * flops);
    // And every op has its sentence.
    for (const ExplainedPart& part : report->parts) {
      for (const ExplainedOp& op : part.ops) EXPECT_NE(op.title, "") << op.name;
    }
  }
}

TEST(MakeExplainReport, TheModelsTimeOfACallIsDividedAmongItsOperations) {
  const auto report = Make(AfdInput());
  ASSERT_TRUE(report.ok()) << report.status();
  const model::ModelShape shape = *model::Shipped().FindModel("llama-3-8b");
  cost::CostOptions options;
  options.precision.weights = model::Dtype::kFp8;
  const cost::CostTable table =
      *cost::CostTable::Create(*model::Shipped().FindDevice("h100-sxm"), shape, options);
  const auto rows = cost::AttentionRows::Even(shape, 1, kContext);
  const std::vector<const ExplainedPart*> layer = report->PartsOfLayer(3);
  ASSERT_EQ(layer.size(), 5u);
  EXPECT_NEAR(*layer[0]->model_seconds, table.AttentionLayer(3, rows).seconds(), 3e-9);
  EXPECT_NEAR(*layer[3]->model_seconds, table.FfnLayer(FfnShard(), 3, 1).seconds(), 3e-9);
  EXPECT_EQ(layer[0]->ops.back().name, "fixed");
  // Of four projections that read nothing but weights the time is as their bytes.
  const auto find = [&](const char* name) {
    for (const ExplainedOp& op : layer[0]->ops) {
      if (op.name == name) return op;
    }
    return ExplainedOp();
  };
  EXPECT_NEAR(*find("q_proj").model_seconds / *find("k_proj").model_seconds,
              find("q_proj").weight_bytes / find("k_proj").weight_bytes, 0.02);
  EXPECT_GT(*find("attention").model_seconds, 0);
}

TEST(MakeExplainReport, MeasuredTimesAreTheSpansInTheDevicesSeconds) {
  for (const int64_t skew : {int64_t{0}, int64_t{7'000'000}, int64_t{-3'000'000}}) {
    SCOPED_TRACE(skew);
    const auto report = Make(AfdInput("llama-3-8b", "h100-sxm", skew));
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_EQ(report->time_scale, 4);
    EXPECT_THAT(Kinds(*report, 5), ElementsAre("attention", "a2f", "queue", "ffn", "f2a"));
    const double ns = 1e-9 / 4;
    const std::vector<const ExplainedPart*> layer = report->PartsOfLayer(5);
    EXPECT_NEAR(layer[0]->measured_seconds, (kAttentionNs + 5) * ns, 1e-15);
    EXPECT_NEAR(layer[2]->measured_seconds, kQueueNs * ns, 1e-15);
    EXPECT_NEAR(layer[3]->measured_seconds, kFfnNs * ns, 1e-15);
    // Two clocks: there and back are known together, and each as well as half of that.
    EXPECT_NEAR(layer[1]->measured_seconds + layer[4]->measured_seconds, (kThereNs + kBackNs) * ns,
                1e-15);
    EXPECT_NEAR(layer[1]->measured_seconds, kThereNs * ns, report->clock_error_seconds + 1e-15);
    EXPECT_LE(report->clock_error_seconds, (kThereNs + kBackNs) * ns / 2 + 1e-15);
    // One micro-batch: what follows each other fits into the step, but for the gaps.
    const double gaps = report->layers * kGapNs * ns;
    EXPECT_NEAR(report->total().measured_seconds, report->step_seconds - gaps, 1e-12);
    EXPECT_LE(report->attention_busy_seconds + report->ffn_busy_seconds, report->step_seconds);
  }
}

TEST(MakeExplainReport, SaysWhichStepOfWhichSequenceItIs) {
  const auto report = Make(AfdInput());
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->step, kExplainedStep);
  EXPECT_EQ(report->attention_worker, "attention-0");
  EXPECT_EQ(report->position, kContext - 1) << "from 0";
  EXPECT_EQ(report->rows(), 1u);
  ASSERT_EQ(report->micro_batches.size(), 1u);
  EXPECT_EQ(report->micro_batches[0].context_tokens, kContext);
  EXPECT_EQ(report->workers[0].chip, "h100-sxm");
  EXPECT_EQ(report->workers[0].no_model, "");
}

TEST(MakeExplainReport, ARealWorkersBytesAreThoseThatItLoaded) {
  const auto report = Make(ColocatedInput());
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_THAT(Kinds(*report, 29), ElementsAre("attention", "ffn"));
  EXPECT_EQ(report->PartsOfLayer(29)[1]->ops[0].name, "ffn_norm") << "a real FFN worker's";
  double attention = 0, ffn = 0, head = 0, kv = 0;
  for (const ExplainedPart& part : report->parts) {
    for (const ExplainedOp& op : part.ops) {
      (part.kind == PartKind::kAttention ? attention
       : part.kind == PartKind::kFfn     ? ffn
                                         : head) += op.weight_bytes;
      kv += op.kv_bytes;
      EXPECT_EQ(op.model_seconds, std::nullopt) << "nobody knows this CPU";
    }
  }
  EXPECT_NEAR(attention, 30.0 * 884736 * 5 / 8, 1);
  EXPECT_NEAR(ffn, 30.0 * 3 * 576 * 1536 * 5 / 8, 1);
  EXPECT_NEAR(head, (49152 + 1) * 576 * 8.5 / 8, 1) << "output matrix, and one row of it";
  EXPECT_NEAR(kv, 30.0 * kContext * 2 * 3 * 64 * 2, 1);
  EXPECT_THAT(report->workers[0].no_model, HasSubstr("no entry of 'ggml-cpu'"));
  EXPECT_EQ(report->total().model_seconds, std::nullopt);
  EXPECT_EQ(report->time_scale, 0);
}

TEST(MakeExplainReport, AChipCanBeNamedToForecastWith) {
  const auto report = Make(ColocatedInput(), "h100");
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_GT(*report->total().model_seconds, 0);
  EXPECT_EQ(report->workers[0].chip, "") << "it does not run there";
  EXPECT_EQ(report->workers[0].forecast, "h100-sxm");
  EXPECT_THAT(report->workers[0].weights, HasSubstr("forecast as"));
  EXPECT_THAT(Make(ColocatedInput(), "abacus").status().message(), HasSubstr("abacus"));
}

TEST(MakeExplainReport, LayersThatAreAlikeAreOneGroup) {
  const auto dense = Make(AfdInput());
  ASSERT_TRUE(dense.ok());
  ASSERT_EQ(dense->groups.size(), 1u);
  const LayerGroup& all = dense->groups[0];
  EXPECT_EQ(all.layers.size(), 32u);
  ASSERT_EQ(all.spreads.size(), 5u);
  EXPECT_EQ(all.spreads[0].kind, PartKind::kAttention);
  EXPECT_NEAR(all.spreads[0].min_seconds, kAttentionNs * 1e-9 / 4, 1e-15);
  EXPECT_NEAR(all.spreads[0].max_seconds, (kAttentionNs + 31) * 1e-9 / 4, 1e-15);
  EXPECT_NEAR(all.spreads[0].median_seconds, (kAttentionNs + 16) * 1e-9 / 4, 1e-15);
  EXPECT_NEAR(all.spreads[0].sum_seconds, (32 * kAttentionNs + 31 * 16) * 1e-9 / 4, 1e-12);
  // Three dense layers, then experts.
  const auto deepseek = Make(AfdInput("deepseek-v3", "h200-x8"));
  ASSERT_TRUE(deepseek.ok());
  ASSERT_EQ(deepseek->groups.size(), 2u);
  EXPECT_THAT(deepseek->groups[0].layers, ElementsAre(0, 1, 2));
  EXPECT_EQ(deepseek->groups[1].layers.size(), 58u);
  // Windowed and full layers take turns, once the context is longer than the window.
  ExplainInput gemma = AfdInput("gemma-3-12b", "h200-x8");
  gemma.answer.prompt_tokens = 4000;
  for (TracedSpan& span : gemma.traces[0].spans) {
    if (span.kind == v1::SPAN_KIND_ATTENTION) span.context_tokens = 4001;
  }
  const auto windowed = Make(gemma);
  ASSERT_TRUE(windowed.ok()) << windowed.status();
  ASSERT_EQ(windowed->groups.size(), 2u);
  EXPECT_THAT(windowed->groups[1].layers, testing::Contains(5));
}

// Two micro-batches, whose FFN calls one device merged into one.
TEST(MakeExplainReport, AMergedCallIsComputedOnce) {
  ExplainInput input = AfdInput();
  WorkerTrace &attention = input.traces[0], &ffn = input.traces[1];
  const std::vector<TracedSpan> one = attention.spans, served = ffn.spans;
  for (TracedSpan span : one) {
    if (span.kind == v1::SPAN_KIND_STEP) continue;
    span.micro_batch = 1;
    span.rows = 2;
    span.context_tokens = span.kind == v1::SPAN_KIND_ATTENTION ? 300 : 0;
    attention.spans.push_back(span);
  }
  for (TracedSpan span : served) {
    if (span.kind != v1::SPAN_KIND_SERVED) continue;
    span.micro_batch = 1;
    ffn.spans.push_back(span);
  }
  for (TracedSpan& span : ffn.spans) {
    if (span.kind != v1::SPAN_KIND_FFN) continue;
    span.rows = 3;
    span.calls = 2;
  }
  const auto report = Make(input);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->rows(), 3u);
  const std::vector<const ExplainedPart*> layer = report->PartsOfLayer(0);
  EXPECT_NEAR(layer[3]->measured_seconds, kFfnNs * 1e-9 / 4, 1e-15) << "once";
  EXPECT_EQ(layer[3]->ops[0].shape.substr(0, 9), "[3, 4096]");
  EXPECT_EQ(layer[3]->note, "") << "all three rows are this step's";
  EXPECT_NEAR(layer[0]->measured_seconds, 2 * kAttentionNs * 1e-9 / 4, 1e-15);
  EXPECT_THAT(layer[0]->ops[1].shape, HasSubstr("; [2, 4096]")) << "two shapes";
  // Attention reads its weights once a micro-batch.
  const model::ModelShape shape = *model::Shipped().FindModel("llama-3-8b");
  EXPECT_NEAR(layer[0]->ops[1].weight_bytes, 2.0 * 4096 * 4096, 1);
  EXPECT_THAT(report->notes, testing::Contains(HasSubstr("2 micro-batches")));
}

TEST(MakeExplainReport, OthersRowsInACallAreSaid) {
  ExplainInput input = AfdInput();
  for (TracedSpan& span : input.traces[1].spans) {
    if (span.kind == v1::SPAN_KIND_FFN) span.rows = 5;
  }
  const auto report = Make(input);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->PartsOfLayer(0)[3]->note,
            "computed together with 4 rows of other attention workers");
}

TEST(MakeExplainReport, WhatIsMissingIsNamed) {
  const auto without = [](auto drop) {
    ExplainInput input = AfdInput();
    for (WorkerTrace& trace : input.traces) std::erase_if(trace.spans, drop);
    input.traces[1].lost = 3;
    return Make(input).status();
  };
  const absl::Status no_step =
      without([](const TracedSpan& span) { return span.kind == v1::SPAN_KIND_STEP; });
  EXPECT_EQ(no_step.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(no_step.message(), HasSubstr("attention-0 has no step 7"));
  const absl::Status no_attention = without([](const TracedSpan& span) {
    return span.kind == v1::SPAN_KIND_ATTENTION && span.layer == 4;
  });
  EXPECT_EQ(no_attention.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(no_attention.message(),
              HasSubstr("no attention of layer 4, micro-batch 0 in the trace, which lost 3 spans"));
  for (const v1::SpanKind kind : {v1::SPAN_KIND_FFN, v1::SPAN_KIND_SERVED, v1::SPAN_KIND_A2F}) {
    const absl::Status missing =
        without([&](const TracedSpan& span) { return span.kind == kind && span.layer == 31; });
    EXPECT_EQ(missing.code(), absl::StatusCode::kDataLoss) << kind;
    EXPECT_THAT(missing.message(), HasSubstr("layer 31"));
  }
  EXPECT_EQ(without([](const TracedSpan& span) { return span.kind == v1::SPAN_KIND_HEAD; }).code(),
            absl::StatusCode::kDataLoss);
}

TEST(MakeExplainReport, AStepOfAnotherSequenceIsFoundOut) {
  ExplainInput input = AfdInput();
  input.answer.prompt_tokens = kPromptTokens + 1;
  const absl::Status status = Make(input).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(status.message(),
              HasSubstr("attends to 101 positions with 1 rows, the token to 102"));
  input = AfdInput();
  input.answer.attention_worker = "attention-1";
  EXPECT_EQ(Make(input).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace tandem::ctl
