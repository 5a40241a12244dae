#include "services/ctl/explain/answer.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <boost/json.hpp>

#include <algorithm>
#include <cmath>
#include <exception>

#include "services/ctl/terminal_text.h"
#include "services/runtime/utf8.h"

namespace tandem::ctl {
namespace {

namespace json = boost::json;

constexpr size_t kMaxErrorBytes = 500;

// Throws what Boost.JSON throws where a field is missing or of another type.
ExplainAnswer Read(const json::value& root) {
  const json::object& choice = root.at("choices").at(0).as_object();
  const json::object& tandem = root.at("tandem").as_object();
  ExplainAnswer answer;
  answer.topology = json::value_to<std::string>(tandem.at("topology"));
  answer.attention_worker = json::value_to<std::string>(tandem.at("attention_worker"));
  answer.prompt_tokens = root.at("usage").at("prompt_tokens").to_number<uint32_t>();
  const json::array& ids = choice.at("token_ids").as_array();
  const json::array& steps = tandem.at("decode_steps").at(0).as_array();
  const json::object& logprobs = choice.at("logprobs").as_object();
  const json::array& names = logprobs.at("tokens").as_array();
  const json::array& chances = logprobs.at("token_logprobs").as_array();
  // A token that ends the text has an id and a step, and no text.
  for (size_t i = 0; i < std::min(ids.size(), names.size()); i++) {
    ExplainedToken& token = answer.tokens.emplace_back();
    token.id = ids.at(i).to_number<uint32_t>();
    token.text = json::value_to<std::string>(names.at(i));
    if (chances.at(i).is_number()) token.logprob = chances.at(i).to_number<double>();
  }
  if (answer.tokens.empty()) return answer;
  const size_t last = answer.tokens.size() - 1;
  answer.decode_step = steps.at(last).to_number<uint64_t>();
  if (const json::array* tops = logprobs.at("top_logprobs").if_array(); tops != nullptr) {
    for (const auto& [text, chance] : tops->at(last).as_object()) {
      Candidate& candidate = answer.candidates.emplace_back();
      candidate.text = std::string(text);
      candidate.logprob = chance.to_number<double>();
      candidate.chosen = candidate.text == answer.tokens[last].text;
    }
  }
  std::stable_sort(answer.candidates.begin(), answer.candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.logprob > b.logprob; });
  return answer;
}

}  // namespace

double Candidate::probability() const { return std::exp(logprob); }

std::string SamplingWords(const ExplainQuestion& question) {
  if (question.temperature == 0) return "greedy";
  return absl::StrFormat("temperature %g, seed %u", question.temperature, question.seed);
}

absl::StatusOr<std::string> CompletionBody(const ExplainQuestion& question,
                                           const std::string& model) {
  if (question.prompt.empty()) return absl::InvalidArgumentError("the prompt is empty");
  if (!IsValidUtf8(question.prompt))
    return absl::InvalidArgumentError("the prompt is not valid UTF-8");
  return json::serialize(json::value{{"model", model},
                                     {"prompt", question.prompt},
                                     {"max_tokens", question.tokens},
                                     {"temperature", question.temperature},
                                     {"seed", question.seed},
                                     {"logprobs", kExplainCandidates},
                                     {"return_token_ids", true},
                                     {"tandem", {{"timings", true}}}});
}

absl::StatusOr<ExplainAnswer> ParseAnswer(absl::string_view body) {
  ExplainAnswer answer;
  try {
    answer = Read(json::parse({body.data(), body.size()}));
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat("the gateway's answer is none that can be explained: ", error.what()));
  }
  if (answer.tokens.empty())
    return absl::FailedPreconditionError("the model ended its answer without a token");
  if (answer.decode_step == 0) {
    return absl::FailedPreconditionError(absl::StrCat("worker ", answer.attention_worker,
                                                      " does not say which step drew the token"));
  }
  return answer;
}

std::string ErrorOf(absl::string_view body) {
  try {
    const json::value root = json::parse({body.data(), body.size()});
    return EscapeForTerminal(json::value_to<std::string>(root.at("error").at("message")));
  } catch (const std::exception&) {
    return EscapeForTerminal(body.substr(0, kMaxErrorBytes));
  }
}

}  // namespace tandem::ctl
