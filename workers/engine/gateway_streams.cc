#include "workers/engine/gateway_streams.h"

#include <algorithm>
#include <set>
#include <utility>

#include "workers/connector/own_copy.h"

namespace tandem {

absl::Status GatewayStreams::Expect(const GatewayId& gateway) {
  if (gateways_.contains(gateway)) return absl::OkStatus();
  if (gateways_.size() >= context_.config.max_gateways) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "gateway ", gateway.value(), ": ", context_.config.max_gateways, " gateways are in hand"));
  }
  Gateway& added = gateways_.emplace(gateway, context_.config).first->second;
  added.outbox.Attach({});
  added.outbox.Detach(context_.Now());
  return absl::OkStatus();
}

bool GatewayStreams::Push(const GatewayId& id, std::vector<step::Emit> emits,
                          std::map<SequenceKey, SequenceCost> costs) {
  const auto found = gateways_.find(id);
  if (found == gateways_.end()) return true;
  Gateway& gateway = found->second;
  if (!gateway.outbox.Push(std::move(emits))) {
    Overload(id, gateway, std::move(costs));
    return false;
  }
  gateway.pushed++;
  for (auto& [sequence, cost] : costs) gateway.ends[sequence] = {gateway.pushed, std::move(cost)};
  Send(gateway);
  return true;
}

// Its entry stays for a lease: a gateway that comes back without having heard why its stream broke
// must not take the sequences for lost and ask for them again.
void GatewayStreams::Overload(const GatewayId& id, Gateway& gateway,
                              std::map<SequenceKey, SequenceCost> costs) {
  if (gateway.sink != nullptr) gateway.sink->Close(GatewayOverloadedError());
  gateway.sink = nullptr;
  gateway.outbox.Forget();
  gateway.outbox.Detach(context_.Now());
  for (auto& [sequence, ended] : gateway.ends) costs.emplace(sequence, std::move(ended.cost));
  gateway.ends.clear();
  std::vector<step::Emit> ends;
  ends.reserve(costs.size());
  for (const auto& [sequence, cost] : costs) {
    ends.push_back({id, sequence, /*position=*/0, std::nullopt,
                    SequenceEnd{EndReason::kFailed, GatewayOverloadedError()}});
  }
  if (!ends.empty()) Push(id, std::move(ends), std::move(costs));
}

void GatewayStreams::Send(Gateway& gateway) {
  for (const step::OutboxMessage& message : gateway.outbox.TakeToSend()) {
    std::vector<SequenceCost> costs(message.emits.size());
    for (size_t i = 0; i < message.emits.size(); i++) {
      const step::Emit& emit = message.emits[i];
      const auto ended = gateway.ends.find(emit.sequence);
      if (emit.end.has_value() && ended != gateway.ends.end()) costs[i] = ended->second.cost;
    }
    gateway.sink->Send(message, costs);
  }
}

void GatewayStreams::Attach(const GatewayId& id, const std::vector<step::ResumePoint>& resume,
                            std::shared_ptr<TokenSink> sink, const std::vector<SequenceKey>& live) {
  const absl::Status expected = Expect(id);
  if (!expected.ok()) {
    sink->Close(expected);
    return;
  }
  Gateway& gateway = gateways_.at(id);
  if (gateway.sink != nullptr)
    gateway.sink->Close(absl::AbortedError("a newer stream of this gateway replaces it"));
  gateway.sink = std::move(sink);

  const std::set<SequenceKey> held(live.begin(), live.end());
  std::vector<step::Emit> unknown;
  for (const step::ResumePoint& point : resume) {
    if (held.contains(point.sequence) || gateway.ends.contains(point.sequence)) continue;
    unknown.push_back({id, point.sequence, point.received, std::nullopt,
                       SequenceEnd{EndReason::kSuperseded, absl::OkStatus()}});
  }
  gateway.outbox.Attach(resume);
  Send(gateway);
  if (!unknown.empty()) Push(id, std::move(unknown), {});
}

void GatewayStreams::Detach(const GatewayId& id, const TokenSink* sink) {
  const auto found = gateways_.find(id);
  if (found == gateways_.end() || found->second.sink.get() != sink) return;
  found->second.sink = nullptr;
  found->second.outbox.Detach(context_.Now());
}

void GatewayStreams::Acknowledge(const GatewayId& id, uint64_t step) {
  const auto found = gateways_.find(id);
  if (found == gateways_.end()) return;
  found->second.outbox.Acknowledge(step);
  std::erase_if(found->second.ends, [&](const auto& ended) { return ended.second.step <= step; });
}

Instant GatewayStreams::NextDeadline() const {
  Instant first = Instant::Never();
  for (const auto& [id, gateway] : gateways_) first = std::min(first, gateway.outbox.lease_end());
  return first;
}

std::vector<GatewayId> GatewayStreams::TakeExpired(Instant now) {
  std::vector<GatewayId> expired;
  for (const auto& [id, gateway] : gateways_) {
    if (gateway.outbox.lease_end() <= now) expired.push_back(id);
  }
  for (const GatewayId& id : expired) gateways_.erase(id);
  return expired;
}

bool GatewayStreams::AllAcknowledged() const {
  return std::all_of(gateways_.begin(), gateways_.end(),
                     [](const auto& gateway) { return gateway.second.outbox.idle(); });
}

void GatewayStreams::CloseAll(const absl::Status& status) {
  for (auto& [id, gateway] : gateways_) {
    if (gateway.sink != nullptr) gateway.sink->Close(OwnCopy(status));
  }
  gateways_.clear();
}

}  // namespace tandem
