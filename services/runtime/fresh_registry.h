#pragma once

// Metrics that are read where they live when Prometheus asks.

#include <prometheus/registry.h>

#include <functional>
#include <utility>
#include <vector>

namespace tandem {

// Calls `before_collect` before each collection, from the thread of the metrics server.
class FreshRegistry final : public prometheus::Registry {
 public:
  // Before the registry is served.
  void SetBeforeCollect(std::function<void()> before_collect) {
    before_collect_ = std::move(before_collect);
  }
  std::vector<prometheus::MetricFamily> Collect() const override {
    if (before_collect_) before_collect_();
    return prometheus::Registry::Collect();
  }

 private:
  std::function<void()> before_collect_;
};

}  // namespace tandem
