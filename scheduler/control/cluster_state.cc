// What others may know: the state for gateways, the snapshot for status and metrics, the views for
// policies.

#include <absl/strings/str_cat.h>

#include <algorithm>

#include "scheduler/control/state.h"
#include "scheduler/policy/attention_placement.h"

namespace tandem::control {

AttentionView Controller::State::View(const Worker& worker) const {
  const WorkerCapacity& capacity = worker.description.capacity;
  AttentionView view;
  view.id = worker.id();
  view.kv_blocks_free = worker.kv_blocks_free;
  view.kv_blocks = capacity.kv_blocks;
  view.block_tokens = capacity.block_tokens;
  view.context_tokens = worker.description.dimensions.context_tokens;
  view.sequences = worker.sequences + worker.reserving_sequences + worker.foreign_sequences;
  view.max_sequences = capacity.max_sequences;
  return view;
}

std::string Controller::State::TopologyOf(const Worker& attention) const {
  const bool local = attention.Runs(Stage::kPrefill);
  if (attention.Runs(Stage::kFfn)) return local ? "colocated" : "pd";
  return local ? "afd" : "pd-afd";
}

bool Controller::State::TakesNewWork(const Worker& attention) const {
  if (!attention.Runs(Stage::kAttention) || attention.state != WorkerState::kReady) return false;
  if (attention.Runs(Stage::kPrefill)) return true;
  return std::any_of(workers.begin(), workers.end(), [](const auto& entry) {
    const Worker& worker = entry.second;
    return worker.Runs(Stage::kPrefill) && !worker.Runs(Stage::kAttention) &&
           worker.state == WorkerState::kReady;
  });
}

// The first attention worker's trouble stands for all: they lack the same.
std::string Controller::State::WhyNotReady() const {
  const Worker* draining = nullptr;
  for (const auto& [id, worker] : workers) {
    if (!worker.Runs(Stage::kAttention)) continue;
    if (worker.state == WorkerState::kWaitingForGroup) {
      return absl::StrCat("ffn: attention worker ", id.value(),
                          " waits for a group: ", worker.reason);
    }
    if (worker.state == WorkerState::kReady) {
      return absl::StrCat("prefill: no worker is ready to prefill for attention worker ",
                          id.value());
    }
    draining = &worker;
  }
  if (draining != nullptr)
    return absl::StrCat("attention: worker ", draining->id().value(), " is draining");
  return absl::StrCat("attention: no worker for model '", config.model, "' is registered");
}

TellClusterState Controller::State::ClusterStateNow() const {
  TellClusterState state;
  for (const auto& [id, worker] : workers) {
    if (!worker.Runs(Stage::kAttention)) continue;
    state.attention_workers.emplace_back(id, worker.description.address);
    state.time_scale = worker.description.time_scale;
    if (!TakesNewWork(worker)) continue;
    state.ready = true;
    state.context_tokens = std::max(state.context_tokens,
                                    static_cast<uint32_t>(policy::LongestSequence(View(worker))));
  }
  if (!state.ready) state.reason = WhyNotReady();
  return state;
}

void Controller::State::TellClusterStateIfChanged() {
  TellClusterState state = ClusterStateNow();
  if (state.ready == told.ready && state.reason == told.reason &&
      state.context_tokens == told.context_tokens && state.time_scale == told.time_scale &&
      state.attention_workers == told.attention_workers) {
    return;
  }
  if (told.ready && !state.ready) not_ready_since = now;
  told = state;
  if (gateways.empty()) return;
  state.gateways.assign(gateways.begin(), gateways.end());
  out.push_back(std::move(state));
}

ControllerSnapshot Controller::State::Snapshot() const {
  ControllerSnapshot snapshot;
  snapshot.ready = told.ready;
  snapshot.reason = told.reason;
  snapshot.queued_requests = static_cast<uint32_t>(queue.size());
  snapshot.open_requests = static_cast<uint32_t>(requests.size());
  snapshot.live_sequences = placed_sequences;
  for (const auto& [id, worker] : workers) {
    snapshot.workers.push_back({worker.description, worker.load, ToString(worker.state),
                                worker.reason, worker.last_heartbeat, worker.group.holders});
  }
  return snapshot;
}

}  // namespace tandem::control
