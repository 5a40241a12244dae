#pragma once

// What the gateway exports: the requests that it finished, and how full the whole cluster is, as
// its router tells it. Where workers are emulated, times are the devices': wall seconds over
// tandem_gateway_time_scale.

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>

#include <memory>
#include <string>

#include "services/gateway/http/api.h"
#include "services/gateway/relay/relay.h"
#include "services/runtime/fresh_registry.h"

namespace tandem::gateway {

// A request met it, or it did not; seconds of the devices' time.
struct Slo {
  double ttft_seconds = 0, tpot_seconds = 0;
};

// Safe from any thread.
class GatewayMetrics final : public RelayObserver {
 public:
  GatewayMetrics(const std::string& model_name, const Slo& slo);
  // Whose load is read at each collection. Once, before the registry is served; it outlives the
  // last collection.
  void Watch(Relay& relay);
  void Count(const RequestRecord& record);
  // The list of API keys: as it was opened, and after each replacement.
  void KeysLoaded(bool taken, size_t keys);
  const std::shared_ptr<FreshRegistry>& registry() const { return registry_; }

  void Resumed(RelayEvent why) override;
  void Wasted(uint64_t tokens) override;
  void RoutersConnected(uint32_t count) override;

 private:
  // Of one objective.
  struct Objective {
    double target_seconds = 0;
    prometheus::Counter *judged = nullptr, *missed = nullptr;
    void Judge(double seconds) const;
  };
  Objective MakeObjective(const char* slo, double target_seconds);
  void TellCluster(const Relay& relay);

  const std::string model_name_;
  const std::shared_ptr<FreshRegistry> registry_ = std::make_shared<FreshRegistry>();
  prometheus::Family<prometheus::Counter>&requests_, &resumes_, &judged_, &missed_;
  prometheus::Family<prometheus::Gauge>&targets_, &cache_config_;
  prometheus::Counter &prompt_tokens_, &generated_tokens_, &clients_left_, &wasted_tokens_;
  prometheus::Histogram &ttft_, &tpot_, &itl_, &duration_;
  prometheus::Counter& key_reload_failures_;
  prometheus::Gauge &api_keys_, &in_flight_, &time_scale_, &routers_, &running_, &waiting_,
      &kv_usage_;
  const Objective ttft_slo_, tpot_slo_;
  std::string cache_config_shown_;  // of the metrics server's thread
};

}  // namespace tandem::gateway
