#include "services/ctl/closed_loop.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <boost/json.hpp>
#include <utility>

#include "scheduler/base/status.h"
#include "services/ctl/http_client.h"

namespace tandem::ctl {
namespace {

constexpr Duration kSilence = Duration::Seconds(300);
// Ids that every vocabulary has; where it is smaller the gateway says so.
constexpr uint64_t kIds = 1000;

}  // namespace

std::string CompletionOf(const std::string& model, uint64_t client, uint64_t number,
                         const cost::RequestShape& request) {
  boost::json::array prompt;
  prompt.reserve(request.prompt_tokens);
  // The first ids say whose it is; the rest only have to be there.
  for (uint64_t i = 0; i < std::max<uint64_t>(request.prompt_tokens, 1); ++i) {
    const uint64_t id = i == 0 ? client : i == 1 ? number : i;
    prompt.emplace_back(1 + id % kIds);
  }
  return boost::json::serialize(boost::json::value{{"model", model},
                                                   {"prompt", std::move(prompt)},
                                                   {"max_tokens", request.output_tokens},
                                                   {"ignore_eos", true},
                                                   {"stream", true}});
}

uint64_t FirstOutput(uint64_t client, uint64_t clients, uint64_t output_tokens) {
  return 1 + client * (output_tokens - 1) / clients;
}

ClosedLoop::ClosedLoop(std::string gateway, std::string model, uint64_t clients,
                       const cost::RequestShape& request)
    : gateway_(std::move(gateway)), model_(std::move(model)), request_(request) {
  threads_.reserve(clients);
  for (uint64_t client = 0; client < clients; ++client)
    threads_.emplace_back([this, client, clients] { Run(client, clients); });
}

ClosedLoop::~ClosedLoop() {
  Stop();
  for (std::thread& thread : threads_) thread.join();
}

absl::Status ClosedLoop::error() const {
  MutexLock lock(mutex_);
  return error_;
}

void ClosedLoop::Run(uint64_t client, uint64_t clients) {
  cost::RequestShape request = request_;
  request.output_tokens = FirstOutput(client, clients, request_.output_tokens);
  bool seen = false;
  for (uint64_t number = 0; !stopping_; ++number) {
    const absl::Status sent = Send(CompletionOf(model_, client, number, request), seen);
    if (!sent.ok()) return Fail(sent);
    request.output_tokens = request_.output_tokens;
  }
}

void ClosedLoop::Fail(const absl::Status& status) {
  if (stopping_) return;
  MutexLock lock(mutex_);
  if (error_.ok()) error_ = status;
}

absl::Status ClosedLoop::Send(const std::string& body, bool& seen) {
  SseReader reader([&](absl::string_view) {
    if (!std::exchange(seen, true)) ++begun_;
  });
  ASSIGN_OR_RETURN(const HttpReply reply,
                   HttpPostStreaming(gateway_, "/v1/completions", body, kSilence,
                                     [&](absl::string_view piece) { reader.Add(piece); }));
  if (reply.status == 200) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("the gateway answered ", reply.status, ": ", reply.body.substr(0, 500)));
}

}  // namespace tandem::ctl
