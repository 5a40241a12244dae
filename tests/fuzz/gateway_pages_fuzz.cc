// What a gateway's pages say to `tandemctl top` and `explain`: numbers that are numbers, answers
// refused with a reason, and nothing of their text that controls a terminal.
//
// Input: 'm' and a /metrics page; 'a' and an answer of /v1/completions; another byte and any text.

#include <cmath>
#include <string>

#include "services/ctl/explain/answer.h"
#include "services/ctl/terminal_text.h"
#include "services/ctl/top/frame.h"
#include "services/runtime/utf8.h"
#include "tests/fuzz/fuzz_input.h"

namespace tandem::ctl {
namespace {

void CheckShown(const std::string& text) {
  TANDEM_CHECK(IsValidUtf8(text));
  for (const char c : text) TANDEM_CHECK(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f);
}

void CheckSeconds(const std::optional<double>& seconds) {
  TANDEM_CHECK(!seconds.has_value() || *seconds >= 0);  // not NaN, either
}

void CheckMetrics(absl::string_view page) {
  LatencyWindow window(Duration::Seconds(10));
  window.Add("g", ReadGatewayPage(page), Instant::FromNanoseconds(1));
  window.Add("g", ReadGatewayPage(page.substr(page.size() / 2)), Instant::FromNanoseconds(2));
  TopSnapshot top;
  top.latency = window.View(4);
  for (const auto& seconds : {top.latency.ttft_mean, top.latency.ttft_p50, top.latency.ttft_p99,
                              top.latency.tpot_mean, top.latency.itl_p50, top.latency.itl_p99})
    CheckSeconds(seconds);
  for (const TopLine& line : TopFrame(top, {80, 24})) {
    TANDEM_CHECK(Columns(line) <= 80);
    CheckShown(PlainText(line));
  }
}

void CheckAnswer(absl::string_view body) {
  CheckShown(ErrorOf(body));
  const absl::StatusOr<ExplainAnswer> answer = ParseAnswer(body);
  if (!answer.ok()) {
    fuzz::CheckRefusal(answer.status());
    return;
  }
  TANDEM_CHECK(!answer->tokens.empty() && answer->decode_step > 0);
  for (size_t i = 1; i < answer->candidates.size(); i++)
    TANDEM_CHECK(answer->candidates[i - 1].logprob >= answer->candidates[i].logprob);
}

}  // namespace
}  // namespace tandem::ctl

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tandem;
  fuzz::FuzzInput input(data, size);
  const uint8_t kind = input.Byte();
  const absl::string_view rest = input.Rest();
  if (kind == 'm') {
    ctl::CheckMetrics(rest);
  } else if (kind == 'a') {
    ctl::CheckAnswer(rest);
  } else {
    ctl::CheckShown(ctl::EscapeForTerminal(rest));
    ctl::CheckShown(ctl::NameForTerminal(rest, kind));
    TANDEM_CHECK(ctl::NameForTerminal(rest, kind).size() <= kind);
  }
  return 0;
}
