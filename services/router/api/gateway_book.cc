#include "services/router/api/gateway_book.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>
#include <absl/strings/strip.h>

#include <utility>

namespace tandem::router {

std::string ReachableAddress(const std::string& told, absl::string_view peer) {
  const size_t colon = told.rfind(':');
  if (colon == std::string::npos) return told;
  const std::string host = told.substr(0, colon);
  if (host != "0.0.0.0" && host != "[::]") return told;
  if (!absl::ConsumePrefix(&peer, "ipv4:") && !absl::ConsumePrefix(&peer, "ipv6:")) return told;
  const std::string address = absl::StrReplaceAll(peer, {{"%5B", "["}, {"%5D", "]"}});
  const size_t port = address.rfind(':');
  if (port == std::string::npos) return told;
  return absl::StrCat(address.substr(0, port), told.substr(colon));
}

void GatewayBook::Add(const GatewayId& gateway, const void* stream, std::string metrics_address) {
  MutexLock lock(mu_);
  gateways_[gateway] = {stream, std::move(metrics_address)};
}

void GatewayBook::Remove(const GatewayId& gateway, const void* stream) {
  MutexLock lock(mu_);
  const auto found = gateways_.find(gateway);
  if (found != gateways_.end() && found->second.stream == stream) gateways_.erase(found);
}

std::map<GatewayId, std::string> GatewayBook::All() const {
  MutexLock lock(mu_);
  std::map<GatewayId, std::string> all;
  for (const auto& [gateway, entry] : gateways_) all.emplace(gateway, entry.metrics_address);
  return all;
}

}  // namespace tandem::router
