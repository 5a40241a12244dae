#include "services/gateway/openai/request.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>

#include <boost/json/array.hpp>
#include <limits>

#include "scheduler/base/status.h"
#include "services/gateway/openai/error.h"
#include "services/gateway/openai/json_reader.h"

namespace tandem::gateway {
namespace {

namespace json = boost::json;

constexpr int64_t kMaxUint32 = std::numeric_limits<uint32_t>::max();
constexpr uint32_t kMaxChatLogprobs = 20;  // OpenAI's numbers
constexpr uint32_t kMaxCompletionLogprobs = 5;

std::string Text(const json::value& value) {
  return std::string(value.get_string().data(), value.get_string().size());
}

// --- fields that change the answer and that we do not have
// -------------------------------------------------------------

absl::Status Unsupported(const std::string& param, absl::string_view what) {
  return InvalidParam(param, absl::StrCat(param, ": ", what), "unsupported_parameter");
}

// Absent, null, an empty array, an empty object and `neutral` ask for nothing.
absl::Status RefuseUnless(const FieldReader& fields, absl::string_view key, absl::string_view what,
                          const json::value& neutral = nullptr) {
  const json::value* found = fields.Find(key);
  if (found == nullptr || *found == neutral) return absl::OkStatus();
  if (found->is_array() && found->get_array().empty()) return absl::OkStatus();
  if (found->is_object() && found->get_object().empty()) return absl::OkStatus();
  return Unsupported(fields.Param(key), what);
}

absl::Status RefuseCommon(const FieldReader& fields) {
  if (const json::value* format = fields.Find("response_format")) {
    const json::object* object = format->if_object();
    const json::value* type = object == nullptr ? nullptr : object->if_contains("type");
    if (type == nullptr || !type->is_string()) {
      return InvalidParam("response_format", "response_format: expected an object with a type");
    }
    if (*type != json::value("text")) {
      return Unsupported("response_format",
                         absl::StrCat("type '", Text(*type), "' is not supported, only 'text'"));
    }
  }
  for (const char* key :
       {"guided_json", "guided_regex", "guided_choice", "guided_grammar", "grammar"}) {
    RETURN_IF_ERROR(RefuseUnless(fields, key, "constrained decoding is not supported"));
  }
  return RefuseUnless(fields, "prompt_logprobs", "logprobs of the prompt are not supported");
}

// --- fields of both endpoints
// ------------------------------------------------------------------------------------------

absl::Status ReadStop(const FieldReader& fields, const RequestLimits& limits,
                      std::vector<std::string>& stop) {
  const json::value* found = fields.Find("stop");
  if (found == nullptr) return absl::OkStatus();
  if (found->is_string()) {
    stop.push_back(Text(*found));
  } else if (found->is_array()) {
    for (const json::value& entry : found->get_array()) {
      if (!entry.is_string()) {
        return InvalidParam("stop",
                            absl::StrCat("stop holds ", Describe(entry), ", expected strings"));
      }
      stop.push_back(Text(entry));
      if (stop.size() > limits.max_stop_strings) {
        return InvalidParam(
            "stop", absl::StrCat("stop has ", found->get_array().size(), " strings, at most ",
                                 limits.max_stop_strings, " are allowed"));
      }
    }
  } else {
    return InvalidParam("stop", absl::StrCat("stop is ", Describe(*found),
                                             ", expected a string or an array of strings"));
  }
  for (const std::string& one : stop) {
    if (one.empty()) return InvalidParam("stop", "stop holds an empty string");
    if (one.size() > limits.max_stop_bytes) {
      return InvalidParam("stop",
                          absl::StrCat("stop holds a string of ", one.size(), " bytes, at most ",
                                       limits.max_stop_bytes, " are allowed"));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadIds(const json::array& array, const std::string& param, uint32_t max,
                     std::vector<uint32_t>& ids) {
  if (array.size() > max) {
    return InvalidParam(param, absl::StrCat(param, " has ", array.size(), " token ids, at most ",
                                            max, " are allowed"));
  }
  ids.reserve(array.size());
  for (size_t i = 0; i < array.size(); ++i) {
    ASSIGN_OR_RETURN(const int64_t id,
                     ReadInteger(array[i], absl::StrCat(param, "[", i, "]"), 0, kMaxUint32));
    ids.push_back(static_cast<uint32_t>(id));
  }
  return absl::OkStatus();
}

absl::Status ReadLogitBias(const FieldReader& fields, const RequestLimits& limits,
                           std::map<uint32_t, float>& bias) {
  const json::value* found = fields.Find("logit_bias");
  if (found == nullptr) return absl::OkStatus();
  if (!found->is_object()) {
    return InvalidParam("logit_bias",
                        absl::StrCat("logit_bias is ", Describe(*found), ", expected an object"));
  }
  const json::object& object = found->get_object();
  if (object.size() > limits.max_logit_bias) {
    return InvalidParam("logit_bias",
                        absl::StrCat("logit_bias has ", object.size(), " entries, at most ",
                                     limits.max_logit_bias, " are allowed"));
  }
  const FieldReader entries(object, "logit_bias.");
  for (const auto& [key, value] : object) {
    uint32_t id = 0;
    const absl::string_view name(key.data(), key.size());
    if (!absl::SimpleAtoi(name, &id)) {
      return InvalidParam("logit_bias",
                          absl::StrCat("logit_bias has the key '", name, "', expected a token id"));
    }
    float number = 0;
    RETURN_IF_ERROR(entries.Number(name, -100, 100, number));
    if (!value.is_null()) bias[id] = number;
  }
  return absl::OkStatus();
}

absl::Status ReadSampling(const FieldReader& fields, const RequestLimits& limits,
                          Sampling& sampling) {
  RETURN_IF_ERROR(fields.Number("temperature", 0, 2, sampling.temperature));
  RETURN_IF_ERROR(fields.Number("top_p", 0, 1, sampling.top_p, /*above_min=*/true));
  RETURN_IF_ERROR(fields.Number("min_p", 0, 1, sampling.min_p));
  RETURN_IF_ERROR(
      fields.Number("repetition_penalty", 0, 100, sampling.repetition_penalty, /*above_min=*/true));
  RETURN_IF_ERROR(fields.Number("presence_penalty", -2, 2, sampling.presence_penalty));
  RETURN_IF_ERROR(fields.Number("frequency_penalty", -2, 2, sampling.frequency_penalty));
  if (const json::value* top_k = fields.Find("top_k")) {
    // -1 is how vLLM's clients say "off".
    ASSIGN_OR_RETURN(const int64_t k, ReadInteger(*top_k, "top_k", -1, kMaxUint32));
    sampling.top_k = static_cast<uint32_t>(k < 0 ? 0 : k);
  }
  return ReadLogitBias(fields, limits, sampling.logit_bias);
}

absl::Status ReadStreaming(const FieldReader& fields, ApiRequest& spec) {
  RETURN_IF_ERROR(fields.Bool("stream", spec.stream));
  if (const json::value* options = fields.Find("stream_options")) {
    if (!options->is_object()) {
      return InvalidParam("stream_options", absl::StrCat("stream_options is ", Describe(*options),
                                                         ", expected an object"));
    }
    if (!spec.stream) {
      return InvalidParam("stream_options", "stream_options is allowed only with stream: true");
    }
    const FieldReader stream_fields(options->get_object(), "stream_options.");
    RETURN_IF_ERROR(stream_fields.Bool("include_usage", spec.include_usage));
  }
  if (const json::value* extension = fields.Find("tandem")) {
    if (!extension->is_object()) {
      return InvalidParam("tandem",
                          absl::StrCat("tandem is ", Describe(*extension), ", expected an object"));
    }
    const FieldReader ours(extension->get_object(), "tandem.");
    RETURN_IF_ERROR(ours.Bool("timings", spec.timings));
  }
  return absl::OkStatus();
}

absl::Status ReadCommon(const FieldReader& fields, const RequestLimits& limits, ApiRequest& spec) {
  RETURN_IF_ERROR(RefuseCommon(fields));
  RETURN_IF_ERROR(fields.String("model", spec.model));
  if (spec.model.empty()) return InvalidParam("model", "model is missing: name the model");
  std::optional<uint32_t> n;
  RETURN_IF_ERROR(fields.Integer("n", 1, limits.max_n, n));
  spec.n = n.value_or(1);
  RETURN_IF_ERROR(ReadSampling(fields, limits, spec.sampling));
  RETURN_IF_ERROR(fields.Seed("seed", spec.seed));
  RETURN_IF_ERROR(ReadStop(fields, limits, spec.stop));
  if (const json::value* ids = fields.Find("stop_token_ids")) {
    if (!ids->is_array()) {
      return InvalidParam("stop_token_ids", absl::StrCat("stop_token_ids is ", Describe(*ids),
                                                         ", expected an array"));
    }
    RETURN_IF_ERROR(ReadIds(ids->get_array(), "stop_token_ids", limits.max_stop_token_ids,
                            spec.stop_token_ids));
  }
  RETURN_IF_ERROR(fields.Bool("ignore_eos", spec.ignore_eos));
  RETURN_IF_ERROR(fields.Bool("return_token_ids", spec.return_token_ids));
  return ReadStreaming(fields, spec);
}

// --- chat
// --------------------------------------------------------------------------------------------------------------

absl::Status ReadContent(const json::value& content, const std::string& param, std::string& text) {
  if (content.is_string()) {
    text = Text(content);
    return absl::OkStatus();
  }
  if (!content.is_array()) {
    return InvalidParam(param, absl::StrCat(param, " is ", Describe(content),
                                            ", expected a string or an array of parts"));
  }
  const json::array& parts = content.get_array();
  if (parts.empty()) return InvalidParam(param, absl::StrCat(param, " has no part"));
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string part = absl::StrCat(param, "[", i, "]");
    if (!parts[i].is_object()) {
      return InvalidParam(part,
                          absl::StrCat(part, " is ", Describe(parts[i]), ", expected an object"));
    }
    const FieldReader fields(parts[i].get_object(), part + ".");
    std::string type, words;
    RETURN_IF_ERROR(fields.String("type", type));
    if (type != "text") {
      return InvalidParam(part + ".type", absl::StrCat(part, ".type is '", type,
                                                       "', only 'text' parts are supported"));
    }
    if (fields.Find("text") == nullptr)
      return InvalidParam(part + ".text", absl::StrCat(part, ".text is missing"));
    RETURN_IF_ERROR(fields.String("text", words));
    // A line break joins parts, as llama-server and vLLM do for templates that take plain strings.
    absl::StrAppend(&text, i == 0 ? "" : "\n", words);
  }
  return absl::OkStatus();
}

absl::Status ReadMessage(const json::value& value, const std::string& param, ChatMessage& message) {
  if (!value.is_object()) {
    return InvalidParam(param,
                        absl::StrCat(param, " is ", Describe(value), ", expected an object"));
  }
  const FieldReader fields(value.get_object(), param + ".");
  std::string role;
  RETURN_IF_ERROR(fields.String("role", role));
  const std::string role_param = fields.Param("role");
  if (role.empty()) return InvalidParam(role_param, absl::StrCat(role_param, " is missing"));
  if (role == "tool" || role == "function") {
    return Unsupported(role_param,
                       absl::StrCat("role '", role, "' needs tools, which are not supported"));
  }
  if (role == "developer") role = "system";  // OpenAI's newer word for the same
  if (role != "system" && role != "user" && role != "assistant") {
    return InvalidParam(role_param,
                        absl::StrCat(role_param, " is '", role,
                                     "', expected system, developer, user or assistant"));
  }
  for (const char* key : {"tool_calls", "function_call"}) {
    RETURN_IF_ERROR(RefuseUnless(fields, key, "tools are not supported"));
  }
  message.role = role;
  const std::string content_param = fields.Param("content");
  const json::value* content = fields.Find("content");
  if (content == nullptr) {
    if (role == "assistant") return absl::OkStatus();  // null is how clients replay an empty answer
    return InvalidParam(content_param, absl::StrCat(content_param, " is missing"));
  }
  return ReadContent(*content, content_param, message.content);
}

absl::Status ReadMessages(const FieldReader& fields, const RequestLimits& limits,
                          ApiRequest& spec) {
  const json::value* messages = fields.Find("messages");
  if (messages == nullptr) return InvalidParam("messages", "messages is missing");
  if (!messages->is_array()) {
    return InvalidParam("messages",
                        absl::StrCat("messages is ", Describe(*messages), ", expected an array"));
  }
  const json::array& array = messages->get_array();
  if (array.empty())
    return InvalidParam("messages", "messages is empty, expected at least one message");
  if (array.size() > limits.max_messages) {
    return InvalidParam("messages",
                        absl::StrCat("messages has ", array.size(), " entries, at most ",
                                     limits.max_messages, " are allowed"));
  }
  spec.messages.resize(array.size());
  for (size_t i = 0; i < array.size(); ++i) {
    RETURN_IF_ERROR(ReadMessage(array[i], absl::StrCat("messages[", i, "]"), spec.messages[i]));
  }
  return absl::OkStatus();
}

absl::Status RefuseChatExtras(const FieldReader& fields) {
  for (const char* key : {"tools", "functions"})
    RETURN_IF_ERROR(RefuseUnless(fields, key, "tools are not supported"));
  for (const char* key : {"tool_choice", "function_call"}) {
    if (fields.Find(key) != nullptr && *fields.Find(key) == json::value("auto")) continue;
    RETURN_IF_ERROR(RefuseUnless(fields, key, "tools are not supported", json::value("none")));
  }
  RETURN_IF_ERROR(RefuseUnless(fields, "audio", "audio is not supported"));
  if (const json::value* modalities = fields.Find("modalities")) {
    if (*modalities != json::value(json::array{"text"})) {
      return Unsupported("modalities", "only [\"text\"] is supported");
    }
  }
  return absl::OkStatus();
}

absl::Status ReadChatLogprobs(const FieldReader& fields, Sampling& sampling) {
  bool logprobs = false;
  RETURN_IF_ERROR(fields.Bool("logprobs", logprobs));
  std::optional<uint32_t> top;
  RETURN_IF_ERROR(fields.Integer("top_logprobs", 0, kMaxChatLogprobs, top));
  if (top.value_or(0) > 0 && !logprobs) {
    return InvalidParam("top_logprobs",
                        absl::StrCat("top_logprobs is ", *top, ", which needs logprobs: true"));
  }
  if (logprobs) sampling.top_logprobs = top.value_or(0);
  return absl::OkStatus();
}

// --- completions
// -------------------------------------------------------------------------------------------------------

absl::Status ReadPrompt(const FieldReader& fields, const RequestLimits& limits, ApiRequest& spec) {
  const json::value* prompt = fields.Find("prompt");
  if (prompt == nullptr) return InvalidParam("prompt", "prompt is missing");
  if (prompt->is_string()) {
    spec.prompt_text = Text(*prompt);
    if (spec.prompt_text->empty()) return InvalidParam("prompt", "prompt is empty");
    return absl::OkStatus();
  }
  if (!prompt->is_array()) {
    return InvalidParam("prompt", absl::StrCat("prompt is ", Describe(*prompt),
                                               ", expected a string or an array of token ids"));
  }
  const json::array& array = prompt->get_array();
  if (array.empty()) return InvalidParam("prompt", "prompt is empty");
  if (array[0].is_string() || array[0].is_array()) {
    if (array.size() > 1) {
      return Unsupported(
          "prompt",
          absl::StrCat(array.size(), " prompts in one request are not supported, send one"));
    }
    if (array[0].is_array()) {
      if (array[0].get_array().empty()) return InvalidParam("prompt", "prompt is empty");
      return ReadIds(array[0].get_array(), "prompt[0]", limits.max_prompt_ids, spec.prompt_ids);
    }
    spec.prompt_text = Text(array[0]);
    if (spec.prompt_text->empty()) return InvalidParam("prompt", "prompt is empty");
    return absl::OkStatus();
  }
  return ReadIds(array, "prompt", limits.max_prompt_ids, spec.prompt_ids);
}

absl::Status RefuseCompletionExtras(const FieldReader& fields, uint32_t n) {
  RETURN_IF_ERROR(RefuseUnless(fields, "suffix", "inserting before a suffix is not supported",
                               json::value("")));
  std::optional<uint32_t> best_of;
  RETURN_IF_ERROR(fields.Integer("best_of", 1, kMaxUint32, best_of));
  if (best_of.has_value() && *best_of != n) {
    return Unsupported("best_of", absl::StrCat("best_of ", *best_of, " with n ", n,
                                               " is not supported, they must be equal"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ApiRequest> ParseChatRequest(absl::string_view body, const RequestLimits& limits) {
  ASSIGN_OR_RETURN(const json::object object, ParseJsonObject(body, limits.max_json_depth));
  const FieldReader fields(object, "");
  ApiRequest spec;
  spec.chat = true;
  RETURN_IF_ERROR(ReadCommon(fields, limits, spec));
  RETURN_IF_ERROR(RefuseChatExtras(fields));
  RETURN_IF_ERROR(ReadMessages(fields, limits, spec));
  RETURN_IF_ERROR(ReadChatLogprobs(fields, spec.sampling));
  std::optional<uint32_t> older, newer;
  RETURN_IF_ERROR(fields.Integer("max_tokens", 1, kMaxUint32, older));
  RETURN_IF_ERROR(fields.Integer("max_completion_tokens", 1, kMaxUint32, newer));
  spec.max_tokens = newer.has_value() ? newer : older;
  return spec;
}

absl::StatusOr<ApiRequest> ParseCompletionRequest(absl::string_view body,
                                                  const RequestLimits& limits) {
  ASSIGN_OR_RETURN(const json::object object, ParseJsonObject(body, limits.max_json_depth));
  const FieldReader fields(object, "");
  ApiRequest spec;
  RETURN_IF_ERROR(ReadCommon(fields, limits, spec));
  RETURN_IF_ERROR(RefuseCompletionExtras(fields, spec.n));
  RETURN_IF_ERROR(ReadPrompt(fields, limits, spec));
  RETURN_IF_ERROR(fields.Bool("echo", spec.echo));
  RETURN_IF_ERROR(
      fields.Integer("logprobs", 0, kMaxCompletionLogprobs, spec.sampling.top_logprobs));
  if (spec.echo && spec.sampling.top_logprobs.has_value()) {
    return Unsupported(
        "echo", "echo with logprobs is not supported: the prompt's logprobs are never computed");
  }
  RETURN_IF_ERROR(fields.Integer("max_tokens", spec.echo ? 0 : 1, kMaxUint32, spec.max_tokens));
  return spec;
}

}  // namespace tandem::gateway
