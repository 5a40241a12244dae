// What a worker says of its trace is believed only within bounds.

#include "services/ctl/trace/collect.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

namespace tandem::ctl {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kStart = 1'000'000'000'000;

v1::TraceMessage Start() {
  v1::TraceMessage message;
  v1::TraceStart& start = *message.mutable_start();
  start.set_worker_id("w");
  start.set_device("emulated/h100");
  start.add_stages(v1::STAGE_FFN);
  start.set_time_scale(20);
  start.set_started_at_nanoseconds(kStart);
  return message;
}

v1::TraceMessage OneSpan() {
  v1::TraceMessage message;
  message.mutable_spans()->add_peers("a");
  message.mutable_spans()->set_lost(3);
  v1::TraceSpan& span = *message.mutable_spans()->add_spans();
  span.set_kind(v1::SPAN_KIND_FFN);
  span.set_begin_nanoseconds(kStart + 10);
  span.set_end_nanoseconds(kStart + 20);
  span.set_layer(79);
  span.set_peer(0);
  span.set_context_tokens(4096);
  return message;
}

v1::TraceMessage End() {
  v1::TraceMessage message;
  message.mutable_end()->set_ended_at_nanoseconds(kStart + 30);
  return message;
}

TEST(TraceCollector, KeepsWhatTheWorkerSaid) {
  TraceCollector collector("w");
  for (const v1::TraceMessage& message : {Start(), OneSpan(), End()})
    ASSERT_TRUE(collector.Take(message).ok());
  const absl::StatusOr<WorkerTrace> trace = collector.Finish();
  ASSERT_TRUE(trace.ok());
  EXPECT_EQ(trace->device, "emulated/h100");
  EXPECT_EQ(trace->time_scale, 20);
  EXPECT_EQ(trace->stages, std::set<Stage>{Stage::kFfn});
  EXPECT_EQ(trace->lost, 3u);
  EXPECT_EQ(trace->peers, std::vector<std::string>{"a"});
  ASSERT_EQ(trace->spans.size(), 1u);
  EXPECT_EQ(trace->spans[0].context_tokens, 4096u);
  EXPECT_EQ(trace->spans[0].layer, 79u);
  EXPECT_EQ(trace->spans[0].peer, 0u);
  EXPECT_EQ(trace->ended_ns - trace->started_ns, 30);
}

TEST(TraceCollector, TakesRealTimeAsScaleOne) {
  TraceCollector collector("w");
  v1::TraceMessage start = Start();
  start.mutable_start()->clear_time_scale();
  ASSERT_TRUE(collector.Take(start).ok());
  ASSERT_TRUE(collector.Take(End()).ok());
  const absl::StatusOr<WorkerTrace> trace = collector.Finish();
  EXPECT_EQ(trace->time_scale, 1);
  EXPECT_FALSE(trace->emulated);
}

TEST(TraceCollector, RefusesMessagesOutOfOrderAndATraceThatBreaksOff) {
  EXPECT_THAT(TraceCollector("w").Take(OneSpan()).message(), HasSubstr("start first"));
  TraceCollector collector("w");
  ASSERT_TRUE(collector.Take(Start()).ok());
  EXPECT_THAT(collector.Take(Start()).message(), HasSubstr("twice"));
  EXPECT_TRUE(absl::IsDataLoss(collector.Finish().status()));
  TraceCollector ended("w");
  ASSERT_TRUE(ended.Take(Start()).ok());
  ASSERT_TRUE(ended.Take(End()).ok());
  EXPECT_THAT(ended.Take(OneSpan()).message(), HasSubstr("after a trace's end"));
}

TEST(TraceCollector, RefusesAStartOutOfRange) {
  const std::pair<const char*, std::function<void(v1::TraceStart&)>> broken[] = {
      {"another worker", [](auto& s) { s.set_worker_id("x"); }},
      {"257 bytes", [](auto& s) { s.set_device(std::string(257, 'x')); }},
      {"without stages", [](auto& s) { s.clear_stages(); }},
      {"stage", [](auto& s) { s.add_stages(static_cast<v1::Stage>(77)); }},
      {"time_scale", [](auto& s) { s.set_time_scale(-1); }},
      {"time_scale", [](auto& s) { s.set_time_scale(NAN); }},
      {"time_scale", [](auto& s) { s.set_time_scale(INFINITY); }},
      {"-5 ns", [](auto& s) { s.set_started_at_nanoseconds(-5); }},
      {"ns", [](auto& s) { s.set_started_at_nanoseconds(INT64_MAX); }},
  };
  for (const auto& [word, breaks] : broken) {
    v1::TraceMessage start = Start();
    breaks(*start.mutable_start());
    const absl::Status status = TraceCollector("w").Take(start);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << word;
    EXPECT_THAT(status.message(), HasSubstr(word));
  }
}

TEST(TraceCollector, RefusesSpansOutOfRange) {
  const std::pair<const char*, std::function<void(v1::TraceSpans&)>> broken[] = {
      {"kind 0", [](auto& s) { s.mutable_spans(0)->clear_kind(); }},
      {"kind 99", [](auto& s) { s.mutable_spans(0)->set_kind(static_cast<v1::SpanKind>(99)); }},
      {"cause 1", [](auto& s) { s.mutable_spans(0)->set_cause(v1::WAIT_CAUSE_HANDOFF); }},
      {"cause 0", [](auto& s) { s.mutable_spans(0)->set_kind(v1::SPAN_KIND_WAIT); }},
      {"peer 1 of 1", [](auto& s) { s.mutable_spans(0)->set_peer(1); }},
      {"layer", [](auto& s) { s.mutable_spans(0)->set_layer(UINT32_MAX); }},
      {"a span from", [](auto& s) { s.mutable_spans(0)->set_end_nanoseconds(kStart + 9); }},
      {"ns", [](auto& s) { s.mutable_spans(0)->set_end_nanoseconds(INT64_MAX); }},
      {"ns", [](auto& s) { s.mutable_spans(0)->set_begin_nanoseconds(INT64_MIN); }},
      {"a span from",
       [](auto& s) { s.mutable_spans(0)->set_end_nanoseconds(kStart + kMaxSpanDistanceNs + 1); }},
      {"257 bytes", [](auto& s) { s.add_peers(std::string(257, 'x')); }},
      {"peers",
       [](auto& s) {
         for (size_t i = 0; i < kMaxTracePeers; i++) s.add_peers("x");
       }},
      {"spans in one message",
       [](auto& s) {
         for (size_t i = 0; i < kMaxMessageSpans; i++) s.add_spans();
       }},
  };
  for (const auto& [word, breaks] : broken) {
    TraceCollector collector("w");
    ASSERT_TRUE(collector.Take(Start()).ok());
    v1::TraceMessage spans = OneSpan();
    breaks(*spans.mutable_spans());
    const absl::Status status = collector.Take(spans);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << word;
    EXPECT_THAT(status.message(), HasSubstr(word));
  }
}

TEST(TraceCollector, RefusesAnEndBeforeTheStart) {
  TraceCollector collector("w");
  ASSERT_TRUE(collector.Take(Start()).ok());
  v1::TraceMessage end = End();
  end.mutable_end()->set_ended_at_nanoseconds(kStart - 1);
  EXPECT_TRUE(absl::IsInvalidArgument(collector.Take(end)));
}

}  // namespace
}  // namespace tandem::ctl
