#include "services/ctl/measure_baseline.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <system_error>

#include "scheduler/base/status.h"
#include "services/ctl/admin_client.h"
#include "services/ctl/closed_loop.h"
#include "services/ctl/emulation.h"
#include "services/ctl/start_cluster.h"
#include "services/ctl/stop.h"
#include "services/ctl/stop_signals.h"
#include "services/runtime/real_time.h"
#include "services/runtime/tco_words.h"

namespace tandem::ctl {
namespace {

constexpr uint64_t kMostClients = 1024;  // a thread and a connection each
constexpr Duration kPoll = Duration::Seconds(1);
// Device time that is measured: so many requests of each client, one after the other.
constexpr double kRequestsEach = 2;
constexpr Duration kLeastWindow = Duration::Seconds(10);  // heartbeats come once a second

absl::StatusOr<ClusterConfig> BaselineCluster(const CostReport& report,
                                              const std::string& catalog) {
  ASSIGN_OR_RETURN(const TopologyPreset* const colocated, FindTopology("colocated"));
  ClusterConfig config = PresetCluster(*colocated, {1});
  config.model = DefaultModel();  // the gateway's tokenizer
  config.emulation.model_shape = report.load.model_shape;
  config.emulation.weights = std::string(model::DtypeName(report.load.weights));
  Flags& flags = config.workers.at(0).flags;
  flags["device"] = report.baseline->device;
  if (!catalog.empty()) flags["catalog"] = catalog;
  RETURN_IF_ERROR(EmulateCluster(config));
  return config;
}

// Waits for `period`, or says why the measurement cannot go on.
absl::Status Watch(const ClosedLoop& clients, const ProcessRef& supervisor, StopSignals& signals,
                   Duration period) {
  switch (signals.Wait(supervisor, period)) {
    case StopSignals::Woken::kSignal:
      return absl::CancelledError("stopped while the baseline was measured");
    case StopSignals::Woken::kProcessGone:
      return absl::UnavailableError("the baseline's supervisor has ended");
    case StopSignals::Woken::kTimeout:
      return clients.error();
  }
  return absl::OkStatus();
}

void Say(const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); }

// From when every client decodes on, the account of `window` of wall time.
absl::StatusOr<MeasuredBaseline> Measure(const CostReport& report, const ClusterState& state,
                                         const ProcessRef& supervisor, StopSignals& signals,
                                         TimeSource& time, ClosedLoop& clients) {
  while (clients.begun() < clients.clients())
    RETURN_IF_ERROR(Watch(clients, supervisor, signals, kPoll));
  double scale = 1;
  if (!absl::SimpleAtod(state.config.workers.at(0).flags.at("time-scale"), &scale))
    return absl::InternalError("the baseline has no time scale");
  const double requests = kRequestsEach * report.baseline->tpot.seconds() *
                          static_cast<double>(report.load.request.output_tokens);
  const Duration window = std::clamp(Duration::FromSeconds(requests * scale), kLeastWindow,
                                     kMaxWindow - Duration::Seconds(60));
  Say(absl::StrCat(clients.clients(), " clients decode; measuring for ", window.seconds(), " s"));
  const Instant began = time.Now();
  while (time.Now() - began < window) RETURN_IF_ERROR(Watch(clients, supervisor, signals, kPoll));
  ASSIGN_OR_RETURN(const v1::TcoReply reply,
                   AskRouterTco(state.router_admin, LinkSecurity(), (time.Now() - began).seconds(),
                                /*timeout_seconds=*/10));
  if (reply.devices_size() != 1) {
    return absl::InternalError(
        absl::StrCat("the baseline's router tells of ", reply.devices_size(), " devices, not 1"));
  }
  ASSIGN_OR_RETURN(ledger::DeviceAccount device, ToAccount(reply.devices(0)));
  device.price = report.baseline->price;
  return ToMeasured(clients.clients(), device);
}

}  // namespace

absl::StatusOr<MeasuredBaseline> MeasureBaseline(const CostReport& report,
                                                 const std::string& catalog) {
  const uint64_t batch = report.baseline->batch;
  if (batch > kMostClients) {
    return absl::ResourceExhaustedError(absl::StrCat("--measure plays at most ", kMostClients,
                                                     " clients; the baseline on ",
                                                     report.baseline->device, " has ", batch));
  }
  ASSIGN_OR_RETURN(const ClusterConfig config, BaselineCluster(report, catalog));
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / absl::StrCat("tandem-baseline-", getpid());
  const StateDir dir = StateDir::At(folder.string());
  RETURN_IF_ERROR(dir.Create());
  ASSIGN_OR_RETURN(const int lock, dir.Lock());
  StopSignals signals;  // before the clock's thread, which must not take them
  RealTimeSource time;
  absl::StatusOr<MeasuredBaseline> measured;
  {
    std::unique_ptr<ClosedLoop> clients;
    const auto run = [&]() -> absl::StatusOr<MeasuredBaseline> {
      ASSIGN_OR_RETURN(
          const ProcessRef supervisor,
          StartCluster(config, dir, lock, {.attached = true, .progress = stderr}, time, signals));
      ASSIGN_OR_RETURN(const ClusterState state, dir.Load());
      clients = std::make_unique<ClosedLoop>(state.gateway, state.config.model_name, batch,
                                             report.load.request);
      return Measure(report, state, supervisor, signals, time, *clients);
    };
    measured = run();
    if (clients != nullptr) clients->Stop();
    bool stopped = false;
    const absl::Status down = StopCluster(dir, stopped);  // ends the requests in flight
    if (measured.ok()) RETURN_IF_ERROR(down);
  }
  std::error_code ignored;  // its logs are of no use once it has been measured
  if (measured.ok()) std::filesystem::remove_all(folder, ignored);
  return measured;
}

}  // namespace tandem::ctl
