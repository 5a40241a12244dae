// tandem-router: queue, placement, groups.

#include <cstdio>

#include "services/router/config.h"
#include "services/router/daemon.h"
#include "services/runtime/daemon.h"
#include "services/runtime/log.h"
#include "services/runtime/real_time.h"

int main(int argc, char** argv) {
  using namespace tandem;
  BlockStopSignals();
  const auto line = router::ParseCommandLine(argc, argv, TANDEM_VERSION);
  if (!line.ok()) {
    std::fprintf(stderr, "tandem-router: %s\n", std::string(line.status().message()).c_str());
    return 2;
  }
  if (!line->done.empty() || line->print_config) {
    std::fputs((line->print_config ? router::PrintConfig(line->config) : line->done).c_str(),
               stdout);
    return 0;
  }
  InitLog({"tandem-router", *ParseLogFormat(line->config.log_format),
           spdlog::level::from_str(line->config.log_level)});
  RealTimeSource time;
  const auto daemon = router::RouterDaemon::Start(line->config, time);
  if (!daemon.ok()) {
    LogError("router_cannot_start", {{"reason", daemon.status().message()}});
    return 1;
  }
  LogInfo("router_stops", {{"signal", WaitForStopSignal()}});
  (*daemon)->Drain();
  return 0;
}
