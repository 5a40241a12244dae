#pragma once

#include "services/router/links.h"

namespace tandem::router {

// One line for each placement, end, refusal, worker and gateway that comes or goes. Never a token.
class RouterLog final : public RouterObserver {
 public:
  void Handled(const control::Event& event, const std::vector<control::Command>& commands,
               Instant now) override;
  void Published(const control::ControllerSnapshot&) override {}
};

}  // namespace tandem::router
