#include "services/gateway/openai/response.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

#include <cmath>

#include "services/runtime/utf8.h"

namespace tandem::gateway {
namespace {

constexpr float kImpossible =
    -9999;  // JSON has no infinity: OpenAI's stand-in for a chance of zero

float Finite(float logprob) { return std::isfinite(logprob) ? logprob : kImpossible; }

void AppendToken(uint32_t id, float logprob, const TextModel& model, std::string& out) {
  const std::string name = model.TokenName(id);
  absl::StrAppend(&out, R"("token":)", JsonQuoted(name), R"(,"logprob":)", Finite(logprob),
                  R"(,"bytes":[)");
  for (size_t i = 0; i < name.size(); ++i) {
    absl::StrAppend(&out, i == 0 ? "" : ",", static_cast<uint32_t>(static_cast<uint8_t>(name[i])));
  }
  out += "]";
}

void AppendChatLogprobs(const std::vector<ReleasedToken>& tokens, const TextModel& model,
                        std::string& out) {
  out += R"({"content":[)";
  for (size_t i = 0; i < tokens.size(); ++i) {
    out += i == 0 ? "{" : ",{";
    AppendToken(tokens[i].id, tokens[i].logprob.logprob, model, out);
    out += R"(,"top_logprobs":[)";
    const char* separator = "{";
    for (const auto& [id, logprob] : tokens[i].logprob.top) {
      out += separator;
      AppendToken(id, logprob, model, out);
      out += "}";
      separator = ",{";
    }
    out += "]}";
  }
  out += R"(],"refusal":null})";
}

void AppendCompletionLogprobs(const std::vector<ReleasedToken>& tokens, bool alternatives,
                              const TextModel& model, std::string& out) {
  std::string names, logprobs, tops, offsets;
  for (const ReleasedToken& token : tokens) {
    const char* comma = names.empty() ? "" : ",";
    absl::StrAppend(&names, comma, JsonQuoted(model.TokenName(token.id)));
    absl::StrAppend(&logprobs, comma, Finite(token.logprob.logprob));
    absl::StrAppend(&offsets, comma, token.character_offset);
    absl::StrAppend(&tops, comma, "{");
    const char* separator = "";
    for (const auto& [id, logprob] : token.logprob.top) {
      absl::StrAppend(&tops, separator, JsonQuoted(model.TokenName(id)), ":", Finite(logprob));
      separator = ",";
    }
    tops += "}";
  }
  absl::StrAppend(&out, R"({"tokens":[)", names, R"(],"token_logprobs":[)", logprobs,
                  R"(],"top_logprobs":)");
  if (alternatives) {
    absl::StrAppend(&out, "[", tops, "]");
  } else {
    out += "null";
  }
  absl::StrAppend(&out, R"(,"text_offset":[)", offsets, "]}");
}

void AppendLogprobs(const AnswerHead& head, const std::vector<ReleasedToken>& tokens,
                    const TextModel& model, std::string& out) {
  out += R"(,"logprobs":)";
  if (!head.logprobs) {
    out += "null";
  } else if (head.chat) {
    AppendChatLogprobs(tokens, model, out);
  } else {
    AppendCompletionLogprobs(tokens, head.top_logprobs, model, out);
  }
}

void AppendIds(const AnswerHead& head, const std::vector<uint32_t>& ids, std::string& out) {
  if (head.token_ids) absl::StrAppend(&out, R"(,"token_ids":[)", absl::StrJoin(ids, ","), "]");
}

void AppendUsage(const Usage& usage, std::string& out) {
  absl::StrAppend(&out, R"({"prompt_tokens":)", usage.prompt_tokens, R"(,"completion_tokens":)",
                  usage.completion_tokens, R"(,"total_tokens":)",
                  usage.prompt_tokens + usage.completion_tokens, "}");
}

void AppendTimings(const Timings* timings, std::string& out) {
  if (timings == nullptr) return;
  absl::StrAppend(&out, R"(,"tandem":{"topology":)", JsonQuoted(timings->topology),
                  R"(,"prefill_worker":)", JsonQuoted(timings->prefill_worker),
                  R"(,"attention_worker":)", JsonQuoted(timings->attention_worker),
                  R"(,"stages":[)");
  const char* separator = "";
  for (const Timings::Stage& stage : timings->stages) {
    absl::StrAppend(&out, separator, R"({"stage":)", JsonQuoted(stage.stage), R"(,"worker":)",
                    JsonQuoted(stage.worker), R"(,"seconds":)", stage.seconds, R"(,"calls":)",
                    stage.calls, "}");
    separator = ",";
  }
  absl::StrAppend(&out, R"(],"kv_transfer_seconds":)", timings->kv_transfer_seconds,
                  R"(,"ttft_seconds":)", timings->ttft_seconds, R"(,"decode_steps":[)");
  separator = "";
  for (const std::vector<uint64_t>& steps : timings->decode_steps) {
    absl::StrAppend(&out, separator, "[", absl::StrJoin(steps, ","), "]");
    separator = ",";
  }
  out += "]}";
}

std::string Head(const AnswerHead& head, absl::string_view object) {
  return absl::StrCat(R"({"id":)", JsonQuoted(head.id), R"(,"object":")", object, R"(","created":)",
                      head.created, R"(,"model":)", JsonQuoted(head.model),
                      R"(,"system_fingerprint":)", JsonQuoted(head.fingerprint), R"(,"choices":[)");
}

}  // namespace

std::string WholeAnswer(const AnswerHead& head, const std::vector<AnswerChoice>& choices,
                        const Usage& usage, const Timings* timings, const TextModel& model) {
  std::string out = Head(head, head.chat ? "chat.completion" : "text_completion");
  const char* separator = "";
  for (const AnswerChoice& choice : choices) {
    absl::StrAppend(&out, separator, R"({"index":)", choice.index);
    if (head.chat) {
      absl::StrAppend(&out, R"(,"message":{"role":"assistant","content":)", JsonQuoted(choice.text),
                      R"(,"refusal":null})");
    } else {
      absl::StrAppend(&out, R"(,"text":)", JsonQuoted(choice.text));
    }
    AppendLogprobs(head, choice.tokens, model, out);
    AppendIds(head, choice.token_ids, out);
    absl::StrAppend(&out, R"(,"finish_reason":)", JsonQuoted(choice.finish_reason), "}");
    separator = ",";
  }
  out += R"(],"usage":)";
  AppendUsage(usage, out);
  AppendTimings(timings, out);
  out += "}";
  return out;
}

EventWriter::EventWriter(AnswerHead head, const TextModel& model)
    : head_(std::move(head)), model_(model) {
  prefix_ =
      absl::StrCat("data: ", Head(head_, head_.chat ? "chat.completion.chunk" : "text_completion"));
}

void EventWriter::Open(uint32_t choice, std::string& out) const {
  absl::StrAppend(&out, prefix_, R"({"index":)", choice);
}

void EventWriter::Close(const Timings* timings, std::string& out) const {
  out += head_.usage ? R"(}],"usage":null)" : "}]";
  AppendTimings(timings, out);
  out += "}\n\n";
}

void EventWriter::Delta(uint32_t choice, const TextDelta& delta, const std::vector<uint32_t>& ids,
                        bool first, std::string& out) const {
  Open(choice, out);
  if (head_.chat) {
    absl::StrAppend(&out, R"(,"delta":{)", first ? R"("role":"assistant",)" : "", R"("content":)",
                    JsonQuoted(delta.text), "}");
  } else {
    absl::StrAppend(&out, R"(,"text":)", JsonQuoted(delta.text));
  }
  AppendLogprobs(head_, delta.tokens, model_, out);
  AppendIds(head_, ids, out);
  out += R"(,"finish_reason":null)";
  Close(nullptr, out);
}

void EventWriter::Finish(uint32_t choice, absl::string_view reason, const Timings* timings,
                         std::string& out) const {
  Open(choice, out);
  absl::StrAppend(&out, head_.chat ? R"(,"delta":{})" : R"(,"text":"")",
                  R"(,"logprobs":null,"finish_reason":")", reason, "\"");
  Close(timings, out);
}

void EventWriter::UsageChunk(const Usage& usage, const Timings* timings, std::string& out) const {
  absl::StrAppend(&out, prefix_, R"(],"usage":)");
  AppendUsage(usage, out);
  AppendTimings(timings, out);
  out += "}\n\n";
}

void EventWriter::Error(absl::string_view error_body, std::string& out) {
  absl::StrAppend(&out, "data: ", error_body, "\n\n");
}

void EventWriter::Done(std::string& out) { out += "data: [DONE]\n\n"; }

std::string ModelObject(absl::string_view id, int64_t created) {
  return absl::StrCat(R"({"id":)", JsonQuoted(id), R"(,"object":"model","created":)", created,
                      R"(,"owned_by":"tandem"})");
}

std::string ModelList(absl::string_view id, int64_t created) {
  return absl::StrCat(R"({"object":"list","data":[)", ModelObject(id, created), "]}");
}

}  // namespace tandem::gateway
