// The trace's file, read back, and what is drawn where.

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <map>
#include <string>
#include <vector>

#include "services/ctl/trace/chrome_json.h"
#include "services/ctl/trace/tracks.h"

namespace tandem::ctl {
namespace {

namespace json = boost::json;

TracedSpan Span(v1::SpanKind kind, int64_t begin_ns, int64_t end_ns) {
  TracedSpan span;
  span.kind = kind;
  span.begin_ns = begin_ns;
  span.end_ns = end_ns;
  span.step = 7;
  span.layer = 3;
  span.rows = 5;
  return span;
}

std::vector<WorkerTrace> TwoWorkers() {
  std::vector<WorkerTrace> workers(2);
  WorkerTrace& a = workers[0];
  a.worker = "a \"quoted\"\n\xc3\xa9";
  a.device = "emulated/h100";
  a.stages = {Stage::kPrefill, Stage::kAttention};
  a.time_scale = 20;
  a.emulated = true;
  a.peers = {"f"};
  a.spans = {Span(v1::SPAN_KIND_ATTENTION, 1'000'000, 1'400'000),
             Span(v1::SPAN_KIND_A2F, 1'400'000, 2'000'020)};
  a.spans[1].peer = 0;
  a.spans[1].attempt = 2;
  TracedSpan wait = Span(v1::SPAN_KIND_WAIT, 1'400'000, 2'000'020);
  wait.cause = v1::WAIT_CAUSE_HANDOFF;
  a.spans.push_back(wait);
  a.spans.push_back(Span(v1::SPAN_KIND_STEP, 1'000'000, 2'000'020));
  WorkerTrace& f = workers[1];
  f.worker = "f";
  f.device = "emulated/lpx";
  f.stages = {Stage::kFfn};
  f.time_scale = 20;
  f.emulated = true;
  f.peers = {a.worker};
  f.spans = {Span(v1::SPAN_KIND_FFN, 3'600'000, 3'700'000),
             Span(v1::SPAN_KIND_SERVED, 3'600'000, 3'700'000)};
  f.spans[1].peer = 0;
  f.spans[1].attempt = 2;
  f.lost = 12;
  return workers;
}

json::value Written(const std::vector<WorkerTrace>& workers, std::vector<WorkerClock> clocks) {
  std::string text;
  const absl::Status status =
      WriteChromeTrace(workers, clocks, MatchHandoffs(workers), [&](absl::string_view piece) {
        text.append(piece.data(), piece.size());
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status;
  return json::parse(text);
}

std::vector<json::object> OfPhase(const json::value& trace, const std::string& phase) {
  std::vector<json::object> events;
  for (const json::value& event : trace.at("traceEvents").as_array()) {
    if (event.at("ph").as_string() == phase) events.push_back(event.as_object());
  }
  return events;
}

double Number(const json::object& event, const char* key) {
  return event.at(key).to_number<double>();
}

TEST(ChromeTrace, IsReadBackWithNamesTimesAndArguments) {
  std::vector<WorkerClock> clocks(2);
  clocks[0].aligned = clocks[1].aligned = true;
  clocks[1].offset_ns = -2'000'000;
  const json::value trace = Written(TwoWorkers(), clocks);
  const std::vector<json::object> spans = OfPhase(trace, "X");
  ASSERT_EQ(spans.size(), 6u);
  // Ascending; at one time the longer first. Device microseconds: a twentieth of the machine's.
  EXPECT_EQ(spans[0].at("name"), "step 7");
  EXPECT_EQ(spans[1].at("name"), "attention L3 mb 0");
  EXPECT_EQ(Number(spans[1], "ts"), 0);
  EXPECT_EQ(Number(spans[1], "dur"), 20);
  EXPECT_EQ(spans[1].at("args").at("layer"), 3);
  EXPECT_EQ(spans[1].at("args").at("rows"), 5);
  EXPECT_EQ(spans[1].at("args").at("step"), 7);
  EXPECT_EQ(spans[2].at("name"), "A2F/F2A L3");
  EXPECT_EQ(Number(spans[2], "dur"), 30.001);
  EXPECT_EQ(spans[2].at("args").at("peer"), "f");
  EXPECT_EQ(spans[3].at("name"), "stall handoff");
  EXPECT_EQ(spans[4].at("name"), "ffn L3 mb 0");
  EXPECT_EQ(spans[4].at("pid"), 2);
  EXPECT_EQ(Number(spans[4], "ts"), 30) << "on the reference's clock";
  const json::value& told = trace.at("otherData").at("workers").at(1);
  EXPECT_EQ(told.at("clock_offset_ns"), -2'000'000);
  EXPECT_EQ(told.at("spans_lost"), 12);
  std::map<std::string, int> processes;
  for (const json::object& event : OfPhase(trace, "M")) {
    if (event.at("name") == "process_name")
      processes[std::string(event.at("args").at("name").as_string())]++;
  }
  EXPECT_EQ(processes["a \"quoted\"\n\xc3\xa9 (emulated/h100)"], 1);
  EXPECT_EQ(processes["f (emulated/lpx)"], 1);
}

TEST(ChromeTrace, DrawsAHandoffFromItsCallToWhereItWasServed) {
  std::vector<WorkerClock> clocks(2);
  clocks[1].offset_ns = -2'000'000;
  const json::value trace = Written(TwoWorkers(), clocks);
  const std::vector<json::object> starts = OfPhase(trace, "s"), ends = OfPhase(trace, "f");
  ASSERT_EQ(starts.size(), 1u);
  ASSERT_EQ(ends.size(), 1u);
  EXPECT_EQ(starts[0].at("id"), ends[0].at("id"));
  EXPECT_EQ(starts[0].at("pid"), 1);
  EXPECT_EQ(ends[0].at("pid"), 2);
  EXPECT_EQ(Number(starts[0], "ts"), 20);
  EXPECT_EQ(Number(ends[0], "ts"), 30);
}

TEST(ChromeTrace, GivesTheSinksErrorAndWritesInPieces) {
  std::vector<WorkerTrace> workers = TwoWorkers();
  for (int64_t i = 0; i < 5000; i++)
    workers[1].spans.push_back(
        Span(v1::SPAN_KIND_FFN, 4'000'000 + i * 100, 4'000'000 + i * 100 + 50));
  size_t pieces = 0, longest = 0;
  const std::vector<WorkerClock> clocks(2);
  EXPECT_TRUE(WriteChromeTrace(workers, clocks, {}, [&](absl::string_view piece) {
                pieces++;
                longest = std::max(longest, piece.size());
                return absl::OkStatus();
              }).ok());
  EXPECT_GT(pieces, 5u);
  EXPECT_LT(longest, size_t{1} << 17);
  EXPECT_EQ(WriteChromeTrace(workers, clocks, {},
                             [&](absl::string_view) { return absl::DataLossError("disk full"); }),
            absl::DataLossError("disk full"));
}

TEST(ChromeTrace, IsAFileWithoutSpansToo) {
  std::vector<WorkerTrace> workers(1);
  workers[0].worker = "w";
  workers[0].stages = {Stage::kFfn};
  const json::value trace = Written(workers, std::vector<WorkerClock>(1));
  EXPECT_TRUE(OfPhase(trace, "X").empty());
  EXPECT_EQ(OfPhase(trace, "M").size(), 6u) << "process, device state and ffn, name and order each";
}

TEST(Tracks, HasARowForEachStageAndMoreForWhatOverlaps) {
  WorkerTrace worker;
  worker.stages = {Stage::kPrefill, Stage::kAttention, Stage::kFfn};
  worker.peers = {"g"};
  for (int64_t i = 0; i < 3; i++) {
    TracedSpan sent = Span(v1::SPAN_KIND_KV_SENT, i * 10, i * 10 + 15);
    sent.peer = 0;
    worker.spans.push_back(sent);
  }
  worker.spans.push_back(Span(v1::SPAN_KIND_HEAD, 0, 5));
  const Tracks tracks = TracksOf(worker);
  std::vector<std::string> names;
  for (const Track& track : tracks.tracks) names.push_back(track.name);
  EXPECT_EQ(names, (std::vector<std::string>{"device state", "steps", "prefill", "attention", "ffn",
                                             "KV to g", "KV to g (2)"}));
  EXPECT_EQ(tracks.of_span[0], 5u);
  EXPECT_EQ(tracks.of_span[1], 6u) << "it overlaps with the first";
  EXPECT_EQ(tracks.of_span[2], 5u) << "the first is over";
  EXPECT_EQ(tracks.of_span[3], 3u);
}

TEST(Tracks, HasNoMoreLanesThanItsBound) {
  WorkerTrace worker;
  worker.stages = {Stage::kAttention};
  for (uint32_t i = 0; i < 2 * kMaxLanes; i++) {
    TracedSpan sent = Span(v1::SPAN_KIND_A2F, 0, 100);
    sent.micro_batch = i;
    worker.spans.push_back(sent);
  }
  EXPECT_LE(TracksOf(worker).tracks.size(), kMaxLanes + 3);
}

}  // namespace
}  // namespace tandem::ctl
