#include "services/ctl/trace/align.h"

#include <absl/container/flat_hash_map.h>

#include <algorithm>
#include <map>
#include <string>
#include <tuple>
#include <utility>

namespace tandem::ctl {
namespace {

using CallKey = std::tuple<uint32_t, uint32_t, uint64_t, uint32_t, uint32_t, uint32_t>;

CallKey KeyOf(uint32_t attention, uint32_t ffn, const TracedSpan& span) {
  return {attention, ffn, span.step, span.layer, span.micro_batch, span.attempt};
}

// By index of the worker's peers, their index among the workers; kNoWorker: not traced.
std::vector<uint32_t> PeerWorkers(const WorkerTrace& worker,
                                  const std::map<std::string, uint32_t>& index) {
  std::vector<uint32_t> workers;
  for (const std::string& peer : worker.peers) {
    const auto found = index.find(peer);
    workers.push_back(found == index.end() ? kNoWorker : found->second);
  }
  return workers;
}

// Calls `each(other worker, number of the span, span)` for the spans of that kind whose peer is
// traced too.
template <typename Fn>
void ForEach(const WorkerTrace& worker, const std::map<std::string, uint32_t>& index,
             v1::SpanKind kind, Fn&& each) {
  const std::vector<uint32_t> peers = PeerWorkers(worker, index);
  for (size_t i = 0; i < worker.spans.size(); i++) {
    const TracedSpan& span = worker.spans[i];
    if (span.kind != kind || span.peer >= peers.size() || peers[span.peer] == kNoWorker) continue;
    each(peers[span.peer], i, span);
  }
}

struct Ends {
  Handoff handoff;
  int sent = 0, served = 0;
};

}  // namespace

std::vector<Handoff> MatchHandoffs(absl::Span<const WorkerTrace> workers) {
  std::map<std::string, uint32_t> index;
  for (uint32_t i = 0; i < workers.size(); i++) index.emplace(workers[i].worker, i);
  absl::flat_hash_map<CallKey, Ends> calls;
  for (uint32_t own = 0; own < workers.size(); own++) {
    ForEach(workers[own], index, v1::SPAN_KIND_A2F,
            [&](uint32_t ffn, size_t number, const TracedSpan& span) {
              Ends& ends = calls[KeyOf(own, ffn, span)];
              ends.sent++;
              ends.handoff.attention = own;
              ends.handoff.ffn = ffn;
              ends.handoff.call = number;
              ends.handoff.sent_ns = span.begin_ns;
              ends.handoff.received_ns = span.end_ns;
            });
  }
  for (uint32_t own = 0; own < workers.size(); own++) {
    ForEach(workers[own], index, v1::SPAN_KIND_SERVED,
            [&](uint32_t attention, size_t number, const TracedSpan& span) {
              const auto found = calls.find(KeyOf(attention, own, span));
              if (found == calls.end()) return;
              Ends& ends = found->second;
              ends.served++;
              ends.handoff.served = number;
              ends.handoff.arrived_ns = span.begin_ns;
              ends.handoff.answered_ns = span.end_ns;
            });
  }
  std::vector<Handoff> handoffs;
  for (const auto& [key, ends] : calls) {
    if (ends.sent == 1 && ends.served == 1 && ends.handoff.RoundTrip() >= 0)
      handoffs.push_back(ends.handoff);
  }
  // The table's order is not the same in every run.
  std::sort(handoffs.begin(), handoffs.end(), [](const Handoff& a, const Handoff& b) {
    return std::tie(a.attention, a.call) < std::tie(b.attention, b.call);
  });
  return handoffs;
}

std::vector<WorkerClock> AlignClocks(size_t workers, absl::Span<const Handoff> handoffs) {
  std::map<std::pair<uint32_t, uint32_t>, Handoff> quickest;
  for (const Handoff& handoff : handoffs) {
    if (handoff.attention == handoff.ffn) continue;  // a worker's own FFN stage
    const auto [best, first] = quickest.try_emplace({handoff.attention, handoff.ffn}, handoff);
    if (!first && handoff.RoundTrip() < best->second.RoundTrip()) best->second = handoff;
  }
  std::vector<Handoff> edges;
  uint32_t reference = kNoWorker;
  for (const auto& [pair, handoff] : quickest) {
    edges.push_back(handoff);
    reference = std::min({reference, pair.first, pair.second});
  }
  std::stable_sort(edges.begin(), edges.end(), [](const Handoff& a, const Handoff& b) {
    return a.RoundTrip() < b.RoundTrip();
  });
  std::vector<WorkerClock> clocks(workers);
  if (reference == kNoWorker) return clocks;
  clocks[reference].aligned = true;
  // Prim: the quickest edge out of what is reached, again and again.
  for (;;) {
    const auto next = std::find_if(edges.begin(), edges.end(), [&](const Handoff& edge) {
      return clocks[edge.attention].aligned != clocks[edge.ffn].aligned;
    });
    if (next == edges.end()) return clocks;
    const bool to_ffn = clocks[next->attention].aligned;
    const WorkerClock& from = clocks[to_ffn ? next->attention : next->ffn];
    WorkerClock& to = clocks[to_ffn ? next->ffn : next->attention];
    to.offset_ns = from.offset_ns + (to_ffn ? next->Offset() : -next->Offset());
    to.error_ns = from.error_ns + next->RoundTrip() / 2;
    to.aligned = true;
  }
}

}  // namespace tandem::ctl
