#pragma once

// What `tandemctl top` shows, as plain values, and how it comes of what the cluster says. Pure.

#include <absl/types/span.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "scheduler/ledger/tco.h"
#include "services/ctl/top/latency.h"
#include "tandem/v1/admin.pb.h"

namespace tandem::ctl {

// Shares of device time in the window, by cause (kNone is busy); they add up to 1, or are all 0
// where nothing is known yet.
using CauseShares = std::array<double, ledger::kCauses>;
double BusyShare(const CauseShares& shares);
double StallShare(const CauseShares& shares);
double IdleShare(const CauseShares& shares);

// A worker, or a pool of them.
struct TopRow {
  std::string name, pool;    // of a pool the same
  std::string stages;        // "prefill+attention"
  std::string memory_class;  // "hbm" or "sram"
  std::string device;        // as registered; of a pool its first worker's
  std::string state;         // "ready"; of a pool "3 of 4 ready"
  uint32_t workers = 1;
  CauseShares shares = {};
  uint32_t sequences = 0, prefills = 0;
  uint64_t kv_blocks = 0, kv_blocks_used = 0;  // 0 blocks: it has no KV
  double tokens_per_s = 0;                     // emitted, by the devices' time
};

struct TopSnapshot {
  std::string router_id, address, version;
  bool ready = false;
  std::string reason;  // when not ready
  uint32_t queued_requests = 0, live_sequences = 0;
  double window_seconds = 0;  // of the machine
  double time_scale = 0;      // machine seconds for one of the devices'; 0: real time
  std::vector<TopRow> pools, workers;
  double tokens_in_per_s = 0, tokens_out_per_s = 0;  // by the devices' time
  std::optional<double> per_mtok_in, per_mtok_out, per_mtok_total, dollars_per_hour;
  std::vector<std::string> unpriced;  // devices whose price nobody knows
  std::string mark;                   // how well the prices are known
  LatencyView latency;
  std::string account_error;  // why the window's account is missing; empty: it is there
  // The router is away: what was said of that, and for how long; the rest is its last word.
  std::string lost;
  double lost_seconds = 0;
};

// `devices`: of one window; empty with `account_error`.
TopSnapshot MakeTopSnapshot(const std::string& address, const v1::StatusReply& status,
                            absl::Span<const ledger::DeviceAccount> devices, double window_seconds);

}  // namespace tandem::ctl
