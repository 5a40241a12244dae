#include "scheduler/sim/world.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <cstdio>

#include "scheduler/sim/sim_gateway.h"
#include "scheduler/sim/sim_router.h"
#include "scheduler/sim/sim_worker.h"

namespace tandem::sim {
namespace {

constexpr size_t kMaxViolations = 10;
// After the last client: every lease of the worker's and the gateway's side ends within it.
constexpr Duration kAftermath = Duration::Seconds(15);

Duration Percentile(std::vector<Duration>& values, int percent) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  return values[(values.size() - 1) * percent / 100];
}

}  // namespace

World::World(const Scenario& s, uint64_t seed, bool trace)
    : scenario(s), random(seed), trace_(trace), fault_random_(random.Child("faults")) {
  router = std::make_unique<SimRouter>(*this);
  router->Start();
  for (const WorkerSpec& worker : scenario.workers) StartWorker(worker.name);
  for (uint32_t g = 0; g < scenario.gateways; g++) {
    const uint32_t share = scenario.load.requests / scenario.gateways +
                           (g < scenario.load.requests % scenario.gateways);
    const GatewayId id(absl::StrCat("g", g + 1));
    gateways_.push_back(std::make_unique<SimGateway>(*this, id, share, random.Child(id.value())));
    gateways_.back()->Start();
  }
  for (const FaultSpec& fault : scenario.faults) {
    time.CallAt(fault.at, [this, fault] { Apply(fault); });
  }
}

World::~World() = default;

void World::Run() {
  while (!Finished() && Now() - Instant() < scenario.time_limit) TANDEM_CHECK(time.RunNext());
  for (const auto& gateway : gateways_) {
    if (gateway->finished()) continue;
    Violation(absl::StrCat("not finished after ", scenario.time_limit.seconds(),
                           " s: ", gateway->Unfinished()));
  }
  report.elapsed = Now() - Instant();
  const Instant end = Now() + kAftermath;
  while (Now() < end) TANDEM_CHECK(time.RunNext());
  CheckAtEnd();
  FillReport();
}

std::shared_ptr<Stream> World::Open(const LinkSpec& link,
                                    std::function<void(const Stream*)> dialler_broken,
                                    std::function<void(const Stream*)> answerer_broken) {
  const Random own = random.Child(absl::StrCat("stream ", streams_opened_++));
  const auto stream =
      Stream::Open(time, link, own, std::move(dialler_broken), std::move(answerer_broken));
  std::erase_if(streams_,
                [](const std::weak_ptr<Stream>& s) { return s.expired() || !s.lock()->open(); });
  streams_.push_back(stream);
  return stream;
}

SimWorker* World::UpWorker(const WorkerId& id) {
  const auto found = up_.find(id);
  return found == up_.end() ? nullptr : found->second;
}

uint32_t World::Computing() const {
  return static_cast<uint32_t>(std::count_if(
      up_.begin(), up_.end(), [](const auto& entry) { return entry.second->computing(); }));
}

void World::Record(const std::string& line) {
  digest.Add(static_cast<uint64_t>(Now().nanoseconds()));
  digest.Add(line);
  if (trace_) std::fprintf(stderr, "%12.6f %s\n", (Now() - Instant()).seconds(), line.c_str());
}

void World::Violation(const std::string& what) {
  Record(absl::StrCat("VIOLATION ", what));
  if (report.violations.size() < kMaxViolations) {
    report.violations.push_back(absl::StrCat((Now() - Instant()).seconds(), " s: ", what));
  }
}

void World::AddLedger(const std::string& worker, const ledger::LedgerSnapshot& snapshot) {
  Duration sum;
  for (const ledger::LedgerCell& cell : snapshot.cells) {
    sum += cell.time;
    std::string key = absl::StrCat(ToString(cell.stage), " ", ToString(cell.state));
    if (cell.state != ledger::LedgerState::kBusy) absl::StrAppend(&key, " ", ToString(cell.cause));
    report.device_time[key] += cell.time;
  }
  const Duration off = sum > snapshot.elapsed ? sum - snapshot.elapsed : snapshot.elapsed - sum;
  if (off * 1000 > snapshot.elapsed) {
    Violation(absl::StrCat("worker ", worker, ": its ledger sums to ", sum.seconds(), " s of ",
                           snapshot.elapsed.seconds(), " s"));
  }
}

void World::StartWorker(const std::string& name) {
  const auto spec = std::find_if(scenario.workers.begin(), scenario.workers.end(),
                                 [&](const WorkerSpec& worker) { return worker.name == name; });
  if (spec == scenario.workers.end())
    return Violation(absl::StrCat("no worker '", name, "' in the scenario"));
  if (up_.contains(WorkerId(name))) return;
  all_workers_.push_back(std::make_unique<SimWorker>(*this, *spec, ++incarnations_[name]));
  up_[WorkerId(name)] = all_workers_.back().get();
  all_workers_.back()->Start();
}

void World::StopWorker(const std::string& name) {
  const auto found = up_.find(WorkerId(name));
  if (found == up_.end()) return;
  SimWorker* const worker = found->second;
  up_.erase(found);
  worker->Kill();
}

void World::WorkerExited(const WorkerId& id) {
  Record(absl::StrCat("exited ", id.value()));
  up_.erase(id);
  const auto returns = returns_.find(id.value());
  if (returns == returns_.end()) return;
  time.CallAt(Now() + returns->second, [this, name = id.value()] { StartWorker(name); });
  returns_.erase(returns);
}

std::string World::AnyWorker() {
  if (up_.empty()) return "";
  return std::next(up_.begin(), static_cast<int64_t>(fault_random_.Below(up_.size())))
      ->first.value();
}

void World::Apply(const FaultSpec& fault) {
  const std::string target = fault.target.empty() ? AnyWorker() : fault.target;
  Record(absl::StrCat("fault ", static_cast<int>(fault.kind), " ", target));
  SimWorker* const worker = UpWorker(WorkerId(target));
  const auto later = [&](absl::AnyInvocable<void()> fn) {
    time.CallAt(Now() + fault.lasts, std::move(fn));
  };
  switch (fault.kind) {
    case FaultKind::kWorkerDown:
      StopWorker(target);
      if (fault.lasts > Duration()) later([this, target] { StartWorker(target); });
      break;
    case FaultKind::kWorkerSlow:
      if (worker == nullptr) break;
      worker->SetSlow(fault.factor_percent);
      later([worker] { worker->SetSlow(100); });
      break;
    case FaultKind::kWorkerDrain:
      if (fault.lasts > Duration()) returns_[target] = fault.lasts;
      router->OnEvent(control::DrainRequested{WorkerId(target)});
      break;
    case FaultKind::kRouterDown:
      router->Stop();
      later([this] { router->Start(); });
      break;
    case FaultKind::kGatewayDown:
      for (const auto& gateway : gateways_) {
        if (fault.target.empty() || gateway->id().value() == fault.target) {
          gateway->Kill();
          break;
        }
      }
      break;
    case FaultKind::kBreakTokens:
      if (worker != nullptr) worker->BreakTokens();
      break;
    case FaultKind::kBreakAny:
      std::erase_if(streams_, [](const std::weak_ptr<Stream>& s) {
        return s.expired() || !s.lock()->open();
      });
      if (!streams_.empty()) streams_[fault_random_.Below(streams_.size())].lock()->Break();
      break;
  }
}

bool World::Finished() const {
  return std::all_of(gateways_.begin(), gateways_.end(),
                     [](const auto& gateway) { return gateway->finished(); });
}

// Terminal everywhere: nobody holds anything for anyone any more.
void World::CheckAtEnd() {
  for (const auto& [id, worker] : up_) {
    for (const SequenceKey& key : worker->live()) {
      Violation(absl::StrCat("worker ", id.value(), " still holds ", ToString(key)));
    }
    report.kv_blocks_leaked += worker->leaked_blocks();
  }
  if (router->up()) {
    const control::ControllerSnapshot snapshot = router->controller()->Snapshot();
    if (snapshot.open_requests + snapshot.live_sequences > 0) {
      Violation(absl::StrCat("the router still follows ", snapshot.open_requests, " requests and ",
                             snapshot.live_sequences, " sequences"));
    }
  }
  for (auto& [id, worker] : std::exchange(up_, {})) worker->Kill();
}

void World::FillReport() {
  report.ttft_p50 = Percentile(ttft, 50);
  report.ttft_p99 = Percentile(ttft, 99);
  report.tpot_p50 = Percentile(tpot, 50);
  report.tpot_p99 = Percentile(tpot, 99);
  report.events = time.fired();
  report.event_digest = digest.value();
}

SimReport Simulate(const Scenario& scenario, uint64_t seed, bool trace) {
  World world(scenario, seed, trace);
  world.Run();
  return std::move(world.report);
}

}  // namespace tandem::sim
