#pragma once

// The paths of the gateway: models, chat completions, completions, health.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "scheduler/base/random.h"
#include "scheduler/base/time.h"
#include "services/gateway/http/server.h"
#include "services/gateway/openai/request.h"
#include "services/gateway/openai/response.h"
#include "services/gateway/relay/relay.h"
#include "services/gateway/text/text_model.h"
#include "services/runtime/mutex.h"

namespace tandem::gateway {

struct ApiConfig {
  std::string model_name;  // what clients ask for
  RequestLimits limits;
  uint32_t default_completion_tokens =
      16;  // of /v1/completions, OpenAI's number; a chat's default is the context's rest
  size_t max_undelivered_events = 4096;  // of one request; a client that is slower is cut
  Duration first_comment =
      Duration::Seconds(1);  // without a token: the headers go out with a comment
  Duration next_comment = Duration::Seconds(15);  // so that proxies keep the connection
  // Whose API key it is; nullopt: nobody's, and /v1 answers 401. Empty: no key is asked for. Called
  // from any thread.
  std::function<std::optional<std::string>(absl::string_view key)> key_name = {};
};

// What one finished request looked like, for logs and metrics.
struct RequestRecord {
  std::string route, request_id;
  std::string key_name;  // of the API key; empty: none was asked for, or it was nobody's
  int status = 200;
  uint32_t prompt_tokens = 0, completion_tokens = 0;
  bool client_left = false;
  // By the wall; time_scale of them are one second of emulated workers (0: real time).
  double ttft_seconds = 0;  // 0: no token came
  double total_seconds = 0;
  std::vector<double> itl_seconds;   // each gap between two tokens of one choice
  std::vector<double> tpot_seconds;  // of each choice with two tokens or more: the mean of its gaps
  double time_scale = 0;
};

class Api {
 public:
  // All references outlive this. `unix_seconds` dates answers; `seed` feeds the seeds that clients
  // leave out and ids.
  Api(ApiConfig config, const TextModel& text, Relay& relay, TimeSource& time,
      std::function<int64_t()> unix_seconds, uint64_t seed,
      std::function<void(const RequestRecord&)> finished);

  // The server's handler. Any thread.
  boost::asio::awaitable<void> Handle(HttpQuery query, HttpAnswer& answer);
  static std::string ErrorBodyOf(int status, const std::string& message);
  std::string NewId() TANDEM_EXCLUDES(mu_);
  // Refuses new completions from now on: 503 "draining".
  void Drain();
  std::string NotReadyReason() const;  // empty when ready

 private:
  struct Prepared;
  class Answering;
  boost::asio::awaitable<void> Complete(bool chat, std::string key_name, HttpQuery query,
                                        HttpAnswer& answer);
  boost::asio::awaitable<void> RefuseKey(const HttpQuery& query, HttpAnswer& answer);
  boost::asio::awaitable<void> ReplyError(const absl::Status& status, HttpAnswer& answer,
                                          RequestRecord& record);
  absl::StatusOr<Prepared> Prepare(bool chat, const HttpQuery& query);
  absl::Status Fit(Prepared& prepared) const;
  absl::Status FitText(const ApiRequest& request, absl::string_view text) const;
  absl::Status FitTokens(const ApiRequest& request, uint64_t prompt, const std::string& measured,
                         uint32_t& max_tokens) const;
  uint64_t Draw() TANDEM_EXCLUDES(mu_);

  const ApiConfig config_;
  const TextModel& text_;
  Relay& relay_;
  TimeSource& time_;
  const std::function<int64_t()> unix_seconds_;
  const std::function<void(const RequestRecord&)> finished_;
  const int64_t created_;
  std::atomic<bool> draining_{false};
  Mutex mu_;
  Random random_ TANDEM_GUARDED_BY(mu_);
};

}  // namespace tandem::gateway
