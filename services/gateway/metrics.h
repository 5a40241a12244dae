#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <memory>
#include <string>

#include "services/gateway/http/api.h"

namespace tandem::gateway {

// What the gateway exports of finished requests. Safe from any thread.
class GatewayMetrics {
 public:
  explicit GatewayMetrics(const std::string& model_name);
  void Count(const RequestRecord& record);
  const std::shared_ptr<prometheus::Registry>& registry() const { return registry_; }

 private:
  const std::string model_name_;
  std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  prometheus::Family<prometheus::Counter>& requests_;
  prometheus::Counter &prompt_tokens_, &generated_tokens_, &clients_left_;
  prometheus::Histogram &ttft_, &itl_, &duration_;
};

}  // namespace tandem::gateway
