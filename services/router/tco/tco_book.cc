#include "services/router/tco/tco_book.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <set>
#include <utility>

#include "scheduler/base/status.h"
#include "services/runtime/log.h"
#include "services/runtime/proto_words.h"
#include "services/runtime/tco_words.h"

namespace tandem::router {
namespace {

using ledger::DeviceAccount;

// What of the registration does not change from window to window. It was checked when it came in
// (dispatch/convert.h).
DeviceAccount Describe(const v1::Registration& registration, const ledger::PriceList& prices) {
  DeviceAccount device;
  device.worker = registration.worker_id();
  device.pool = registration.pool();
  device.device = registration.device();
  device.memory_class =
      registration.memory_class() == v1::MEMORY_CLASS_SRAM ? MemoryClass::kSram : MemoryClass::kHbm;
  device.time_scale = registration.time_scale();
  device.model_shape = registration.model_shape();
  device.weights = registration.weights();
  const auto figure = [](const v1::Figure& told) {
    return ToFigure("registration", told).value_or(model::Figure());
  };
  device.price = prices.PriceOf(
      device.pool, device.device,
      ledger::RentedPrice(ledger::CatalogName(device.device),
                          figure(registration.dollars_per_hour()), figure(registration.watts())));
  return device;
}

ledger::LedgerStage OwnStage(const v1::Registration& registration) {
  std::set<Stage> stages;
  for (const int stage : registration.stages()) {
    if (const absl::StatusOr<Stage> known = ToStage(stage); known.ok()) stages.insert(*known);
  }
  return ledger::StageOf(stages);
}

bool SameDevice(const DeviceAccount& a, const DeviceAccount& b) {
  return a.pool == b.pool && a.device == b.device && a.memory_class == b.memory_class &&
         a.time_scale == b.time_scale;
}

double InDeviceTime(Duration machine, double time_scale) {
  return time_scale > 0 ? machine.seconds() / time_scale : machine.seconds();
}

}  // namespace

TcoBook::TcoBook(ledger::PriceList prices, size_t max_workers, prometheus::Registry& registry)
    : prices_(std::move(prices)), max_workers_(max_workers), metrics_(registry) {}

void TcoBook::Add(uint64_t stream, const v1::Registration& registration, Instant now) {
  const WorkerId worker(registration.worker_id());
  DeviceAccount device = Describe(registration, prices_);
  const ledger::LedgerStage own_stage = OwnStage(registration);
  MutexLock lock(mu_);
  const auto found = slots_.find(worker);
  if (found != slots_.end() && found->second.stream > stream) return;
  if (found != slots_.end() && found->second.own_stage == own_stage &&
      SameDevice(found->second.device, device)) {
    found->second.stream = stream;
    if (found->second.incarnation != registration.incarnation())
      found->second.counted = std::nullopt;  // its counters start anew
    found->second.incarnation = registration.incarnation();
    found->second.draining = found->second.refused = false;
    found->second.device.price = std::move(device.price);
  } else {
    slots_.erase(worker);
    ForgetOld(now);
    MakeRoom();
    const double time_scale = device.time_scale;
    slots_.insert({worker, Slot{.stream = stream,
                                .incarnation = registration.incarnation(),
                                .draining = false,
                                .refused = false,
                                .device = std::move(device),
                                .own_stage = own_stage,
                                .history = ledger::DeviceHistory(own_stage, time_scale),
                                .counted = std::nullopt,
                                .counted_until = now}});
  }
  TellPools();
}

void TcoBook::ForgetOld(Instant now) {
  // Gone for so long that no window reaches them.
  std::erase_if(slots_, [now](const auto& entry) {
    const Slot& slot = entry.second;
    return slot.stream == 0 && slot.history.last_sample().value_or(Instant()) + kMaxWindow < now;
  });
}

void TcoBook::MakeRoom() {
  while (slots_.size() >= max_workers_) {
    auto oldest = slots_.end();
    for (auto at = slots_.begin(); at != slots_.end(); ++at) {
      if (at->second.stream != 0) continue;
      if (oldest == slots_.end() ||
          at->second.history.last_sample() < oldest->second.history.last_sample())
        oldest = at;
    }
    // All are live: the controller bounds those, and one more is about to be refused there.
    if (oldest == slots_.end()) return;
    slots_.erase(oldest);
  }
}

void TcoBook::Refuse(const WorkerId& worker, Slot& slot, const absl::Status& why) {
  refusals_.count++;
  refusals_.last = absl::StrCat("worker ", worker.value(), ": ", why.message());
  if (!std::exchange(slot.refused, true)) LogWarn("ledger_refused", {{"reason", refusals_.last}});
  metrics_.CountRefused();
}

void TcoBook::Update(const WorkerId& worker, uint64_t stream, const v1::Heartbeat& heartbeat,
                     Instant now) {
  const absl::StatusOr<ledger::LedgerReport> report = ToLedgerReport(heartbeat);
  MutexLock lock(mu_);
  const auto found = slots_.find(worker);
  if (found == slots_.end() || found->second.stream != stream) return;
  Slot& slot = found->second;
  slot.draining = heartbeat.draining();
  if (heartbeat.ledger().empty() && heartbeat.elapsed_seconds() == 0) return;
  if (!report.ok()) return Refuse(worker, slot, report.status());
  const bool was_lost = slot.history.lost();
  if (const absl::Status status = slot.history.Add(slot.incarnation, *report, now); !status.ok())
    return Refuse(worker, slot, status);
  if (was_lost) CountDown(slot, now);
  Count(slot, report->ledger, now);
}

void TcoBook::Count(Slot& slot, const ledger::LedgerSnapshot& ledger, Instant now) {
  if (slot.counted.has_value()) {
    metrics_.Count(slot.device.pool, ledger::Difference(ledger, *slot.counted).cells,
                   slot.device.price);
  }
  slot.counted = ledger;
  slot.counted_until = now;
}

void TcoBook::CountDown(Slot& slot, Instant now) {
  const double seconds = InDeviceTime(now - slot.counted_until, slot.device.time_scale);
  slot.counted_until = now;
  slot.counted = std::nullopt;  // what it says of that time when it is back was counted here
  metrics_.Count(
      slot.device.pool,
      {{slot.own_stage, ledger::LedgerState::kIdle, ledger::Cause::kDown,
        Duration::FromSeconds(std::clamp(seconds, 0.0, ledger::kMaxLedgerTime.seconds()))}},
      slot.device.price);
}

void TcoBook::BookDown(Instant now) {
  MutexLock lock(mu_);
  ForgetOld(now);
  for (auto& [worker, slot] : slots_) {
    if (slot.history.lost()) CountDown(slot, now);
  }
}

void TcoBook::Remove(const WorkerId& worker, uint64_t stream) {
  MutexLock lock(mu_);
  const auto found = slots_.find(worker);
  if (found == slots_.end() || found->second.stream != stream) return;
  Slot& slot = found->second;
  slot.stream = 0;
  if (slot.history.samples() == 0) {
    slots_.erase(found);
  } else {
    slot.history.OnGone(slot.draining);
  }
  TellPools();
}

void TcoBook::TellPools() {
  std::map<std::string, std::pair<bool, double>> pools;  // all priced; time scale
  for (const auto& [worker, slot] : slots_) {
    auto& pool = pools.try_emplace(slot.device.pool, true, slot.device.time_scale).first->second;
    pool.first = pool.first && slot.device.price.known();
  }
  for (const auto& [pool, told] : pools) metrics_.SetPool(pool, told.first, told.second);
}

absl::StatusOr<std::vector<DeviceAccount>> TcoBook::Over(Duration window, Instant now) {
  RETURN_IF_ERROR(CheckWindow(window));
  std::vector<DeviceAccount> devices;
  MutexLock lock(mu_);
  ForgetOld(now);
  size_t samples = 0;
  for (const auto& [worker, slot] : slots_) {
    samples += slot.history.samples();
    std::optional<ledger::WindowAccount> account = slot.history.Over(now - window, now);
    if (!account.has_value()) continue;
    devices.push_back(slot.device);
    DeviceAccount& device = devices.back();
    device.lost = slot.history.lost();
    device.cells = std::move(account->cells);
    device.elapsed = account->elapsed;
    device.wall = account->wall;
    device.tokens = account->tokens;
  }
  if (devices.empty()) {
    return absl::UnavailableError(absl::StrCat(
        "no account of the last ", window.seconds(), " s: ", slots_.size(), " workers sent ",
        samples, " heartbeats with a ledger that are kept, and a window needs two of one"));
  }
  return devices;
}

TcoBook::Refusals TcoBook::refusals() const {
  MutexLock lock(mu_);
  return refusals_;
}

}  // namespace tandem::router
