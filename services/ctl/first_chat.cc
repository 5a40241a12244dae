#include "services/ctl/first_chat.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <boost/json.hpp>

#include <cstdio>
#include <exception>

#include "services/ctl/http_client.h"

namespace tandem::ctl {
namespace {

namespace json = boost::json;

constexpr char kQuestion[] = "In one sentence: why is the sky blue?";
constexpr Duration kSilence = Duration::Seconds(120);

std::string RequestBody(const std::string& model) {
  return json::serialize(
      json::value{{"model", model},
                  {"messages", json::array{{{"role", "user"}, {"content", kQuestion}}}},
                  {"stream", true},
                  {"max_tokens", 64},
                  {"temperature", 0},
                  {"tandem", {{"timings", true}}}});
}

std::string ErrorMessage(const json::value& error) {
  const json::value* message =
      error.is_object() ? error.as_object().if_contains("message") : nullptr;
  return message != nullptr && message->is_string() ? json::value_to<std::string>(*message)
                                                    : json::serialize(error);
}

double Seconds(const json::object& object, absl::string_view key) {
  const json::value* value = object.if_contains({key.data(), key.size()});
  return value != nullptr && value->is_number() ? value->to_number<double>() : 0;
}

std::string Text(const json::object& object, absl::string_view key) {
  const json::value* value = object.if_contains({key.data(), key.size()});
  return value != nullptr && value->is_string() ? json::value_to<std::string>(*value) : "";
}

}  // namespace

absl::StatusOr<std::string> ChatStream::Add(absl::string_view data) {
  if (data == "[DONE]") {
    done_ = true;
    return "";
  }
  try {
    const json::value chunk = json::parse({data.data(), data.size()});
    if (const json::value* error = chunk.as_object().if_contains("error"))
      return absl::UnknownError(ErrorMessage(*error));
    if (const json::value* tandem = chunk.as_object().if_contains("tandem"))
      tandem_json_ = json::serialize(*tandem);
    std::string text;
    for (const json::value& choice : chunk.at("choices").as_array()) {
      const json::value* delta = choice.as_object().if_contains("delta");
      const json::value* content =
          delta != nullptr ? delta->as_object().if_contains("content") : nullptr;
      if (content != nullptr && content->is_string())
        absl::StrAppend(&text, json::value_to<std::string>(*content));
    }
    return text;
  } catch (const std::exception& error) {
    return absl::InternalError(
        absl::StrCat("the stream holds no chat chunk: ", error.what(), ": ", data.substr(0, 200)));
  }
}

std::string ChatStream::DescribeTimings() const {
  if (tandem_json_.empty()) return "";
  try {
    const json::value parsed = json::parse(tandem_json_);
    const json::object& tandem = parsed.as_object();
    std::string text = absl::StrFormat(
        "topology %s: first token after %.1f ms, KV transfer %.1f ms\n", Text(tandem, "topology"),
        1e3 * Seconds(tandem, "ttft_seconds"), 1e3 * Seconds(tandem, "kv_transfer_seconds"));
    absl::StrAppendFormat(&text, "  %-10s %-14s %12s %7s\n", "stage", "worker", "time", "calls");
    for (const json::value& entry : tandem.at("stages").as_array()) {
      const json::object& stage = entry.as_object();
      absl::StrAppendFormat(&text, "  %-10s %-14s %9.1f ms %7.0f\n", Text(stage, "stage"),
                            Text(stage, "worker"), 1e3 * Seconds(stage, "seconds"),
                            Seconds(stage, "calls"));
    }
    return text;
  } catch (const std::exception&) {
    return absl::StrCat("timings: ", tandem_json_, "\n");  // of a newer gateway: shown as they are
  }
}

absl::Status RunFirstChat(const ClusterState& state) {
  std::printf("\n> %s\n", kQuestion);
  std::fflush(stdout);
  ChatStream chat;
  absl::Status told;
  SseReader reader([&](absl::string_view data) {
    absl::StatusOr<std::string> text = chat.Add(data);
    if (!text.ok() && told.ok()) told = text.status();
    if (!text.ok()) return;
    std::fwrite(text->data(), 1, text->size(), stdout);
    std::fflush(stdout);
  });
  const absl::StatusOr<HttpReply> reply =
      HttpPostStreaming(state.gateway, "/v1/chat/completions", RequestBody(state.config.model_name),
                        kSilence, [&](absl::string_view piece) { reader.Add(piece); });
  std::printf("\n");
  if (!reply.ok()) return reply.status();
  if (reply->status != 200) {
    return absl::UnknownError(
        absl::StrCat("the gateway answered ", reply->status, ": ", reply->body.substr(0, 500)));
  }
  if (!told.ok())
    return absl::Status(told.code(), absl::StrCat("the answer broke off: ", told.message()));
  if (!chat.done()) return absl::DataLossError("the answer ended without [DONE]");
  std::printf("\n%s", chat.DescribeTimings().c_str());
  if (!state.config.emulation.model_shape.empty()) {
    std::printf(
        "emulated: the stages' times are the devices' own; this machine took %s s for each of "
        "theirs (time_scale)\n",
        state.config.workers.at(0).flags.at("time-scale").c_str());
  }
  return absl::OkStatus();
}

}  // namespace tandem::ctl
