// Token bytes of any kind, cut anywhere, on their way to a client: well-formed UTF-8 comes out,
// every character that came in, and nothing past a stop string.
//
// Input: stop strings (count; each a length and its bytes), then tokens (each a length and its
// bytes).

#include <algorithm>
#include <boost/json/parse.hpp>

#include "services/gateway/text/choice_text.h"
#include "services/gateway/text/utf8.h"
#include "services/runtime/utf8.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/fuzz/piece_text_model.h"

namespace tandem::gateway {
namespace {

bool HoldsAny(const std::string& text, const std::vector<std::string>& stops) {
  return std::any_of(stops.begin(), stops.end(),
                     [&](const std::string& stop) { return text.find(stop) != std::string::npos; });
}

void CheckUtf8(absl::string_view bytes) {
  Utf8Joiner joiner;
  std::string joined = joiner.Push(bytes);
  joined += joiner.Finish();
  TANDEM_CHECK(IsValidUtf8(joined) && !joiner.holds());
  TANDEM_CHECK(IsValidUtf8(bytes) == (joined == bytes));
  TANDEM_CHECK(IsValidUtf8(ToValidUtf8(bytes)));
  const std::string quoted = JsonQuoted(bytes);
  TANDEM_CHECK(boost::json::parse(quoted).as_string() == ToValidUtf8(bytes));
}

// `whole` is the text of all tokens without stop strings.
void CheckChoice(const fuzz::PieceTextModel& model, const std::vector<std::string>& stops,
                 const std::string& whole) {
  ChoiceText choice(model, stops, /*silent_ids=*/{}, /*keep_logprobs=*/true);
  std::string shown;
  size_t tokens_shown = 0, tokens_with_text = 0;
  const auto take = [&](const TextDelta& delta) {
    TANDEM_CHECK(IsValidUtf8(delta.text));
    shown += delta.text;
    tokens_shown += delta.tokens.size();
    for (const ReleasedToken& token : delta.tokens) TANDEM_CHECK(token.text_offset <= shown.size());
  };
  for (uint32_t id = 0; id < model.pieces.size(); ++id) {
    TextDelta delta;
    if (!choice.stopped() && !model.pieces[id].empty()) ++tokens_with_text;
    choice.Push(id, {}, delta);
    take(delta);
  }
  TextDelta rest;
  choice.Finish(rest);
  take(rest);
  TANDEM_CHECK(!HoldsAny(shown, stops));
  TANDEM_CHECK(whole.compare(0, shown.size(), shown) == 0);
  TANDEM_CHECK(choice.stopped() == HoldsAny(whole, stops));
  TANDEM_CHECK(tokens_shown <= tokens_with_text);
  if (!choice.stopped()) TANDEM_CHECK(shown == whole && tokens_shown == tokens_with_text);
  if (choice.stopped()) {
    TANDEM_CHECK(std::any_of(stops.begin(), stops.end(), [&](const std::string& stop) {
      return whole.compare(shown.size(), stop.size(), stop) == 0;
    }));
  }
}

}  // namespace
}  // namespace tandem::gateway

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tandem::gateway;
  tandem::fuzz::FuzzInput input(data, size);
  std::vector<std::string> stops;
  for (int count = input.Byte() % 4; count > 0; --count) {
    const absl::string_view stop = input.Take(input.Byte() % 16);
    if (!stop.empty()) stops.push_back(tandem::ToValidUtf8(stop));
  }
  tandem::fuzz::PieceTextModel model;
  tandem::gateway::Utf8Joiner joiner;
  std::string bytes, whole;
  while (!input.empty()) {
    model.pieces.emplace_back(input.Take(input.Byte() % 16));
    bytes += model.pieces.back();
    whole += joiner.Push(model.pieces.back());
  }
  whole += joiner.Finish();
  CheckUtf8(bytes);
  CheckChoice(model, stops, whole);
  return 0;
}
