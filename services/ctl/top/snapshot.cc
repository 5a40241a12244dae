#include "services/ctl/top/snapshot.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

#include <algorithm>
#include <map>

#include "services/runtime/proto_words.h"

namespace tandem::ctl {
namespace {

using ledger::LedgerState;

double ShareOf(const CauseShares& shares, LedgerState state) {
  double sum = 0;
  for (int cause = 0; cause < ledger::kCauses; cause++) {
    if (ledger::StateOf(static_cast<ledger::Cause>(cause)) == state)
      sum += shares[static_cast<size_t>(cause)];
  }
  return sum;
}

// Of all these devices together.
CauseShares SharesOf(absl::Span<const ledger::DeviceAccount* const> devices) {
  CauseShares seconds = {};
  double all = 0;
  for (const ledger::DeviceAccount* device : devices) {
    for (const ledger::LedgerCell& cell : device->cells) {
      seconds[static_cast<size_t>(cell.cause)] += cell.time.seconds();
      all += cell.time.seconds();
    }
  }
  for (double& share : seconds) share = all > 0 ? share / all : 0;
  return seconds;
}

double TokensPerSecond(absl::Span<const ledger::DeviceAccount* const> devices) {
  double tokens_per_s = 0;
  for (const ledger::DeviceAccount* device : devices) {
    if (device->elapsed.seconds() > 0)
      tokens_per_s += static_cast<double>(device->tokens.tokens_out) / device->elapsed.seconds();
  }
  return tokens_per_s;
}

std::string StagesOf(const v1::Registration& worker) {
  std::vector<std::string> names;
  for (const int stage : worker.stages()) {
    const absl::StatusOr<Stage> known = ToStage(stage);
    if (known.ok()) names.emplace_back(ToString(*known));
  }
  return absl::StrJoin(names, "+");
}

TopRow RowOf(const v1::WorkerStatus& worker, const ledger::DeviceAccount* account) {
  const v1::Registration& told = worker.registration();
  const v1::Heartbeat& heartbeat = worker.heartbeat();
  TopRow row;
  row.name = told.worker_id();
  row.pool = told.pool();
  row.stages = StagesOf(told);
  row.memory_class = told.memory_class() == v1::MEMORY_CLASS_SRAM ? "sram" : "hbm";
  row.device = told.device();
  row.state = worker.state();
  row.sequences = heartbeat.sequences();
  row.prefills = heartbeat.prefills();
  row.kv_blocks = told.capacity().kv_blocks();
  row.kv_blocks_used =
      row.kv_blocks - std::min<uint64_t>(row.kv_blocks, heartbeat.kv_blocks_free());
  if (account == nullptr) return row;
  row.shares = SharesOf({account});
  row.tokens_per_s = TokensPerSecond({account});
  return row;
}

// Of one pool's workers, lost ones among its accounts.
TopRow PoolOf(const std::string& name, absl::Span<const TopRow* const> workers,
              absl::Span<const ledger::DeviceAccount* const> accounts) {
  TopRow pool;
  pool.name = pool.pool = name;
  pool.workers = static_cast<uint32_t>(workers.size());
  uint32_t ready = 0;
  for (const TopRow* worker : workers) {
    if (pool.device.empty()) {
      pool.device = worker->device;
      pool.stages = worker->stages;
      pool.memory_class = worker->memory_class;
    }
    ready += worker->state == "ready" ? 1 : 0;
    pool.sequences += worker->sequences;
    pool.prefills += worker->prefills;
    pool.kv_blocks += worker->kv_blocks;
    pool.kv_blocks_used += worker->kv_blocks_used;
  }
  const auto lost =
      std::count_if(accounts.begin(), accounts.end(), [](const auto* each) { return each->lost; });
  pool.state = absl::StrCat(ready, " of ", workers.size(), " ready");
  if (lost > 0) absl::StrAppend(&pool.state, ", ", lost, " lost");
  pool.shares = SharesOf(accounts);
  pool.tokens_per_s = TokensPerSecond(accounts);
  return pool;
}

void AddPools(absl::Span<const ledger::DeviceAccount> devices, TopSnapshot& out) {
  std::map<std::string, std::vector<const TopRow*>> workers;
  std::map<std::string, std::vector<const ledger::DeviceAccount*>> accounts;
  for (const TopRow& row : out.workers) {
    workers[row.pool].push_back(&row);
    accounts[row.pool];
  }
  for (const ledger::DeviceAccount& device : devices) {
    accounts[device.pool].push_back(&device);
    workers[device.pool];
  }
  for (const auto& [pool, of_pool] : accounts)
    out.pools.push_back(PoolOf(pool, workers[pool], of_pool));
}

void AddCost(absl::Span<const ledger::DeviceAccount> devices, TopSnapshot& out) {
  const ledger::Tco tco = ledger::CostOf({devices.begin(), devices.end()});
  double longest = 0;
  for (const ledger::DeviceAccount& device : devices)
    longest = std::max(longest, device.elapsed.seconds());
  if (longest > 0) {
    out.tokens_in_per_s = static_cast<double>(tco.tokens.tokens_in) / longest;
    out.tokens_out_per_s = static_cast<double>(tco.tokens.tokens_out) / longest;
  }
  out.per_mtok_in = tco.per_mtok_in();
  out.per_mtok_out = tco.per_mtok_out();
  out.per_mtok_total = tco.per_mtok_total();
  out.unpriced = tco.unpriced;
  if (tco.unpriced.empty()) out.dollars_per_hour = tco.dollars_per_hour();
  out.mark = std::string(model::MarkName(tco.mark));
}

}  // namespace

double BusyShare(const CauseShares& shares) { return ShareOf(shares, LedgerState::kBusy); }
double StallShare(const CauseShares& shares) { return ShareOf(shares, LedgerState::kStall); }
double IdleShare(const CauseShares& shares) { return ShareOf(shares, LedgerState::kIdle); }

TopSnapshot MakeTopSnapshot(const std::string& address, const v1::StatusReply& status,
                            absl::Span<const ledger::DeviceAccount> devices,
                            double window_seconds) {
  TopSnapshot out;
  out.router_id = status.router_id();
  out.address = address;
  out.version = status.version();
  out.ready = status.ready();
  out.reason = status.reason();
  out.queued_requests = status.queued_requests();
  out.live_sequences = status.live_sequences();
  out.window_seconds = window_seconds;
  for (const v1::WorkerStatus& worker : status.workers()) {
    const std::string& id = worker.registration().worker_id();
    const auto account = std::find_if(devices.begin(), devices.end(),
                                      [&](const auto& device) { return device.worker == id; });
    out.workers.push_back(RowOf(worker, account == devices.end() ? nullptr : &*account));
    out.time_scale = std::max(out.time_scale, worker.registration().time_scale());
  }
  AddPools(devices, out);
  if (!devices.empty()) AddCost(devices, out);
  return out;
}

}  // namespace tandem::ctl
