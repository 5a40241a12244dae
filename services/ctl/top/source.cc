#include "services/ctl/top/source.h"

#include <absl/strings/str_cat.h>

#include <set>
#include <vector>

#include "scheduler/base/status.h"
#include "services/ctl/admin_client.h"
#include "services/ctl/http_client.h"
#include "services/runtime/tco_words.h"

namespace tandem::ctl {
namespace {

constexpr int kRouterSeconds = 3;
constexpr Duration kGatewaySilence = Duration::Seconds(1);
constexpr int kMaxGateways = 32;  // that are asked

absl::StatusOr<std::vector<ledger::DeviceAccount>> Accounts(const std::string& router,
                                                            const LinkSecurity& security,
                                                            double window_seconds) {
  ASSIGN_OR_RETURN(const v1::TcoReply reply,
                   AskRouterTco(router, security, window_seconds, kRouterSeconds));
  std::vector<ledger::DeviceAccount> devices;
  for (const v1::DeviceAccount& told : reply.devices()) {
    ASSIGN_OR_RETURN(ledger::DeviceAccount device, ToAccount(told));
    devices.push_back(std::move(device));
  }
  return devices;
}

}  // namespace

TopSnapshot TopSource::Ask() {
  const absl::StatusOr<v1::StatusReply> status =
      AskRouterStatus(router_, security_, kRouterSeconds);
  const Instant now = time_.Now();
  if (!status.ok()) {
    TopSnapshot lost = last_.value_or(TopSnapshot());
    if (!lost_since_.has_value()) lost_since_ = now;
    lost.address = router_;
    lost.lost = std::string(status.status().message());
    lost.lost_seconds = (now - *lost_since_).seconds();
    return lost;
  }
  lost_since_.reset();
  const auto devices = Accounts(router_, security_, window_.seconds());
  TopSnapshot snapshot = MakeTopSnapshot(
      router_, *status, devices.ok() ? *devices : std::vector<ledger::DeviceAccount>(),
      window_.seconds());
  if (!devices.ok()) snapshot.account_error = std::string(devices.status().message());
  snapshot.latency = AskGateways(*status, snapshot.time_scale);
  last_ = snapshot;
  return snapshot;
}

LatencyView TopSource::AskGateways(const v1::StatusReply& status, double time_scale) {
  std::set<std::string> known;
  uint32_t silent = 0, asked = 0;
  std::string why;
  for (const v1::GatewayStatus& gateway : status.gateways()) {
    if (asked++ == kMaxGateways) break;
    known.insert(gateway.gateway_id());
    if (gateway.metrics_address().empty()) {
      silent++;
      why = absl::StrCat(gateway.gateway_id(), " says no metrics address");
      continue;
    }
    const absl::StatusOr<HttpReply> page =
        HttpGet(gateway.metrics_address(), "/metrics", kGatewaySilence);
    if (page.ok() && page->status == 200) {
      latency_.Add(gateway.gateway_id(), ReadGatewayPage(page->body), time_.Now());
      continue;
    }
    silent++;
    why = page.ok() ? absl::StrCat(gateway.metrics_address(), " answers ", page->status)
                    : std::string(page.status().message());
  }
  latency_.Keep(known);
  LatencyView view = latency_.View(time_scale);
  view.gateways = asked;
  view.gateways_silent = silent;
  if (asked == 0) view.why_not = "no gateway is connected";
  if (asked > 0 && silent == asked) view.why_not = absl::StrCat("no gateway answers: ", why);
  return view;
}

}  // namespace tandem::ctl
