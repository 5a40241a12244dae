// What a router commands a worker: refused with a reason, or values inside the bounds of
// workers/rpc/limits.h.
//
// Input: a RouterCommand.

#include <cmath>
#include <set>

#include "tests/fuzz/worker_values.h"

namespace tandem {
namespace {

using fuzz::CheckKey;
using fuzz::CheckName;
using fuzz::Taken;

void CheckDecode(const v1::DecodeCommand& command) {
  const auto request = ToDecodeRequest(command);
  if (!Taken(request)) return;
  CheckName(request->reservation.value());
  CheckName(request->gateway.value());
  TANDEM_CHECK(!request->prompt_ids.empty() && request->prompt_ids.size() <= kMaxIds);
  TANDEM_CHECK(request->stop.max_tokens >= 1);
  TANDEM_CHECK(request->lease > Duration());
  const Sampling& sampling = request->sampling;
  TANDEM_CHECK(sampling.temperature >= 0 && sampling.temperature <= 2);
  TANDEM_CHECK(sampling.top_p > 0 && sampling.top_p <= 1);
  TANDEM_CHECK(sampling.repetition_penalty > 0 && std::isfinite(sampling.repetition_penalty));
  for (const auto& [id, bias] : sampling.logit_bias) TANDEM_CHECK(std::abs(bias) <= 100);
  std::set<uint32_t> choices;
  for (const ChoiceStart& start : request->choices) {
    CheckKey({request->request, start.choice, start.attempt});
    TANDEM_CHECK(choices.insert(start.choice).second);
    TANDEM_CHECK(start.emitted_ids.empty() || request->choices.size() == 1);
  }
  TANDEM_CHECK(!choices.empty());
}

void CheckCommand(const v1::RouterCommand& command) {
  CheckDecode(command.decode());
  const auto order = ToPrefillOrder(command.prefill());
  if (Taken(order)) {
    CheckKey(order->job.sequence);
    CheckName(order->attention_address);
    TANDEM_CHECK(order->job.ids.size() >= 2 && order->job.ids.size() <= kMaxIds);
  }
  const auto release = ToReleaseOrder(command.release());
  if (Taken(release)) {
    for (const SequenceKey& key : release->sequences) CheckKey(key);
  }
  const auto holders = ToHolders(command.set_group());
  if (Taken(holders)) TANDEM_CHECK(holders->size() <= kMaxHolders);
}

}  // namespace
}  // namespace tandem

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tandem::v1::RouterCommand command;
  if (tandem::fuzz::Parse(tandem::fuzz::FuzzInput(data, size).Rest(), command))
    tandem::CheckCommand(command);
  return 0;
}
