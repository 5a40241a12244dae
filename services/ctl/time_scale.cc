#include "services/ctl/time_scale.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <string>
#include <thread>
#include <vector>

#include "scheduler/base/status.h"
#include "services/ctl/http_client.h"

namespace tandem::ctl {
namespace {

constexpr int kRequests = 32;
constexpr int kTokens = 32;
constexpr Duration kSilence = Duration::Seconds(120);

absl::Status SendOne(const ClusterState& state, int number) {
  const boost::json::value body = {{"model", state.config.model_name},
                                   {"prompt", absl::StrCat("Measure the host, part ", number)},
                                   {"max_tokens", kTokens},
                                   {"ignore_eos", true},
                                   {"stream", true}};
  const absl::StatusOr<HttpReply> reply =
      HttpPostStreaming(state.gateway, "/v1/completions", boost::json::serialize(body), kSilence,
                        [](absl::string_view) {});
  RETURN_IF_ERROR(reply.status());
  if (reply->status == 200) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("the gateway answered ", reply->status, ": ", reply->body));
}

}  // namespace

double LagRatioOf(absl::string_view metrics) {
  for (const absl::string_view line : absl::StrSplit(metrics, '\n')) {
    if (!absl::StartsWith(line, "tandem_emulation_lag_ratio{")) continue;
    double ratio = 0;
    if (absl::SimpleAtod(line.substr(line.rfind(' ') + 1), &ratio)) return ratio;
  }
  return 0;
}

double NextTimeScale(double scale, double lag) {
  const double next = scale * std::max(1 + lag, 1.0) * 1.2;
  return next < 10 ? std::ceil(next) : std::ceil(next / 5) * 5;
}

absl::StatusOr<double> MeasureLag(const ClusterState& state) {
  std::vector<absl::Status> sent(kRequests);
  std::vector<std::thread> clients;
  clients.reserve(kRequests);
  for (int i = 0; i < kRequests; ++i)
    clients.emplace_back([&state, &sent, i] { sent[static_cast<size_t>(i)] = SendOne(state, i); });
  for (std::thread& client : clients) client.join();
  for (const absl::Status& status : sent) RETURN_IF_ERROR(status);
  double worst = 0;
  for (const DaemonState& daemon : state.daemons) {
    if (daemon.kind != "worker") continue;
    ASSIGN_OR_RETURN(const HttpReply page, HttpGet(daemon.metrics_address, "/metrics", kSilence));
    worst = std::max(worst, LagRatioOf(page.body));
  }
  return worst;
}

}  // namespace tandem::ctl
