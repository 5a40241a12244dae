#include "scheduler/cost/verdict.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include <algorithm>

#include "scheduler/model/quantity.h"

namespace tandem::cost {
namespace {

using model::FormatQuantity;
using model::Unit;

std::string Seconds(double seconds) { return FormatQuantity(seconds, Unit::kSeconds); }
std::string Bytes(double bytes) { return FormatQuantity(bytes, Unit::kBytes); }
std::string Percent(double share) { return absl::StrFormat("%.3g%%", 100 * share); }
std::string RidgeText(const Ridge& ridge) {
  return absl::StrFormat("its ridge of %.3g rows (%.3g at peak)", ridge.reached, ridge.peak);
}

// The rules that hold for every device; kStrong where none does.
Verdict JudgeMemoryAndLink(const DeviceFit& device, const StageFit& fit, const FitLoad& load) {
  if (fit.devices_for_weights > kMostDevicesForWeights) {
    return {Grade::kWeak,
            absl::StrCat("the weights alone, ", Bytes(fit.weight_bytes), ", need ",
                         fit.devices_for_weights, " devices, more than ", kMostDevicesForWeights)};
  }
  if (device.device.chip.memory_class == "sram" && fit.devices > fit.devices_for_weights) {
    const std::string whose = fit.stage == Stage::kPrefill
                                  ? absl::StrCat("a prompt of ", load.prompt_tokens, " tokens")
                                  : absl::StrCat(load.batch, " x ", load.context_tokens, " tokens");
    const std::string copies = fit.kv_copies == 1
                                   ? ""
                                   : absl::StrCat(" in ", fit.kv_copies, " copies for ",
                                                  device.device.tp, " chips that share each layer");
    return {Grade::kWeak,
            absl::StrCat("KV of ", whose, " (", Bytes(fit.kv_bytes), copies, ") needs ",
                         fit.devices, " devices, the weights ", fit.devices_for_weights)};
  }
  if (fit.bound == Bound::kLink) {
    return {Grade::kMixed, absl::StrCat("its link is held for ", Seconds(fit.link_time.seconds()),
                                        ", its work takes ", Seconds(fit.time.seconds()))};
  }
  return {Grade::kStrong, ""};
}

// "64 rows", or "64 rows (2.3 a weight)" where experts divide them.
std::string RowsText(const StageFit& fit) {
  const std::string rows = absl::StrCat(fit.rows, fit.rows == 1 ? " row" : " rows");
  if (fit.rows_per_weight > 0.99 * static_cast<double>(fit.rows)) return rows;
  return absl::StrFormat("%s (%.3g a weight)", rows, fit.rows_per_weight);
}

// What neither reading nor computing explains, where it is most of the time.
std::string FixedText(const StageFit& fit) {
  const double share = fit.Share(fit.parts.fixed);
  return share > 0.5 ? absl::StrCat("; fixed time is ", Percent(share), " of all") : "";
}

// SRAM is bandwidth: it helps for as long as reading takes longer than computing.
Verdict JudgeSram(const DeviceFit& device, const StageFit& fit) {
  const double reading = fit.parts.memory, computing = fit.parts.compute;
  const std::string times = absl::StrCat("at ", RowsText(fit), " reading takes ", Seconds(reading),
                                         ", computing ", Seconds(computing));
  if (reading < computing) {
    return {Grade::kMixed, absl::StrCat(times, ": past ", RidgeText(device.ridge),
                                        ", where bandwidth helps no more", FixedText(fit))};
  }
  return {Grade::kStrong, absl::StrCat(times, ": within ", RidgeText(device.ridge),
                                       ", where bandwidth is what counts; the weights fit on ",
                                       fit.devices_for_weights, FixedText(fit))};
}

// HBM is room and compute: room for KV, and enough rows that computing outlasts reading.
Verdict JudgeHbm(const DeviceFit& device, const StageFit& fit) {
  const double computing = fit.parts.compute / fit.parts.memory;  // over reading
  if (fit.stage == Stage::kFfn && computing < kLeastComputeShare) {
    return {Grade::kWeak,
            absl::StrCat(RowsText(fit), ", far below ", RidgeText(device.ridge),
                         ": while it reads weights, it computes ", Percent(computing))};
  }
  const bool by_memory = fit.bound == Bound::kMemory && fit.stage == Stage::kAttention;
  if (fit.bound == Bound::kCompute || by_memory) {
    const double part = by_memory ? fit.parts.memory : fit.parts.compute;
    return {Grade::kStrong,
            absl::StrCat(by_memory ? "reading" : "computing", " is ",
                         Percent(std::min(1.0, fit.Share(part))), " of its time; weights",
                         fit.kv_bytes > 0 ? " and KV" : "", " fit on ", fit.devices)};
  }
  if (fit.bound == Bound::kMemory) {
    return {Grade::kMixed, absl::StrCat(RowsText(fit), ", below ", RidgeText(device.ridge),
                                        ": while it reads weights, it computes ",
                                        Percent(std::min(1.0, computing)))};
  }
  const double part = fit.bound == Bound::kFixed ? fit.parts.fixed : fit.all_reduce();
  return {Grade::kMixed, absl::StrCat(BoundName(fit.bound), " is ", Percent(fit.Share(part)),
                                      " of its time: neither reading nor computing")};
}

// The lowest dollars per token of the stage, if there is something to compare.
void ChooseBest(size_t stage, std::vector<DeviceFit>& fits) {
  StageFit* best = nullptr;
  size_t priced = 0;
  for (DeviceFit& device : fits) {
    StageFit& fit = device.stages.at(stage);
    if (!fit.dollars_per_mtok.has_value() || fit.verdict.grade == Grade::kWeak) continue;
    priced++;
    if (best == nullptr || *fit.dollars_per_mtok < *best->dollars_per_mtok) best = &fit;
  }
  if (priced < 2) return;
  best->verdict = {
      Grade::kBest,
      absl::StrCat("lowest $ per Mtok, ", FormatQuantity(*best->dollars_per_mtok, Unit::kDollars),
                   ", of the ", priced, " that are not weak and have a price; ",
                   best->verdict.rule)};
}

}  // namespace

void Judge(const FitLoad& load, std::vector<DeviceFit>& fits) {
  for (DeviceFit& device : fits) {
    for (StageFit& fit : device.stages) {
      fit.verdict = JudgeMemoryAndLink(device, fit, load);
      if (fit.verdict.grade != Grade::kStrong) continue;
      fit.verdict = device.device.chip.memory_class == "sram" ? JudgeSram(device, fit)
                                                              : JudgeHbm(device, fit);
    }
  }
  for (size_t stage = 0; stage < 3; stage++) ChooseBest(stage, fits);
}

}  // namespace tandem::cost
