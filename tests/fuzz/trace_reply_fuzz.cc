// What workers say of their traces, and the file that an operator gets of it: spans inside the
// bounds, one clock, and JSON whose times ascend, whatever two workers claim.
//
// Input: messages of two workers, each as who says it ('a', 'f' or another byte), its length (two
// bytes, low first) and a TraceMessage.

#include <boost/json/parse.hpp>
#include <cmath>
#include <string>
#include <vector>

#include "services/ctl/trace/chrome_json.h"
#include "services/ctl/trace/collect.h"
#include "services/ctl/trace/overlap.h"
#include "tests/fuzz/fuzz_input.h"

namespace tandem::ctl {
namespace {

struct Speaker {
  explicit Speaker(const std::string& name) : collector(name) {}
  TraceCollector collector;
  bool refused = false;
};

void Hear(Speaker& speaker, const v1::TraceMessage& message) {
  if (speaker.refused) return;
  const absl::Status taken = speaker.collector.Take(message);
  if (taken.ok()) return;
  fuzz::CheckRefusal(taken);
  speaker.refused = true;
}

void CheckFile(const std::string& text, size_t spans) {
  const boost::json::value file = boost::json::parse(text);
  double last = 0;
  for (const boost::json::value& event : file.at("traceEvents").as_array()) {
    if (event.at("ph").as_string() == "M") continue;
    const auto at = event.at("ts").to_number<double>();
    TANDEM_CHECK(at >= last);
    last = at;
    if (event.at("ph").as_string() != "X") continue;
    TANDEM_CHECK(event.at("dur").to_number<double>() >= 0);
    spans--;
  }
  TANDEM_CHECK(spans == 0);
}

void CheckTrace(const std::vector<WorkerTrace>& workers) {
  const std::vector<Handoff> handoffs = MatchHandoffs(workers);
  const std::vector<WorkerClock> clocks = AlignClocks(workers.size(), handoffs);
  const Overlap overlap = OverlapOf(workers, clocks);
  TANDEM_CHECK(overlap.both_seconds >= 0 && std::isfinite(overlap.both_seconds));
  TANDEM_CHECK(overlap.both_seconds <= overlap.attention_seconds + 1e-6);
  TANDEM_CHECK(overlap.both_seconds <= overlap.ffn_seconds + 1e-6);
  size_t spans = 0;
  for (const WorkerTrace& worker : workers) spans += worker.spans.size();
  std::string text;
  const absl::Status written =
      WriteChromeTrace(workers, clocks, handoffs, [&](absl::string_view piece) {
        text.append(piece.data(), piece.size());
        return absl::OkStatus();
      });
  TANDEM_CHECK(written.ok());
  CheckFile(text, spans);
}

}  // namespace
}  // namespace tandem::ctl

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tandem;
  fuzz::FuzzInput input(data, size);
  ctl::Speaker a("a"), f("f");
  while (!input.empty()) {
    const uint8_t who = input.Byte();
    const size_t low = input.Byte();
    const size_t length = low + 256 * input.Byte();
    v1::TraceMessage message;
    if (fuzz::Parse(input.Take(length), message)) ctl::Hear(who == 'a' ? a : f, message);
  }
  std::vector<ctl::WorkerTrace> workers;
  for (ctl::Speaker* speaker : {&a, &f}) {
    if (speaker->refused) continue;
    absl::StatusOr<ctl::WorkerTrace> trace = speaker->collector.Finish();
    if (trace.ok()) {
      workers.push_back(*std::move(trace));
    } else {
      fuzz::CheckRefusal(trace.status());
    }
  }
  ctl::CheckTrace(workers);
  return 0;
}
