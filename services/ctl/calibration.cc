#include "services/ctl/calibration.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/str_join.h>

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <cmath>
#include <exception>
#include <filesystem>
#include <iterator>
#include <set>
#include <stdexcept>
#include <utility>

#include "scheduler/base/status.h"

namespace tandem::ctl {
namespace {

namespace json = boost::json;

using model::Figure;
using model::Mark;

template <typename Value>
Value Get(const json::value& value, const char* key) {
  return json::value_to<Value>(value.at(key));
}

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Throws what Boost.JSON throws, or absl's status as a message.
MeasuredSide ReadSide(const json::value& root, absl::string_view pattern) {
  const auto other = [&](const json::value& row) {
    return Get<std::string>(row, "pattern") != std::string(pattern);
  };
  MeasuredSide side;
  side.read_bytes_per_s =
      Get<double>(root.at("read_bytes_per_s"), pattern == "contended" ? "contended" : "alone");
  std::vector<double> spreads;
  for (const json::value& call : root.at("calls").as_array()) {
    if (other(call)) continue;
    const auto kind = cost::ParseCallKind(Get<std::string>(call, "kind"));
    if (!kind.ok()) throw std::runtime_error(std::string(kind.status().message()));
    side.calls.push_back({{*kind, Get<uint64_t>(call, "rows"), Get<uint64_t>(call, "positions")},
                          Get<double>(call, "seconds")});
    spreads.push_back(Get<double>(call, "spread"));
  }
  for (const json::value& trip : root.at("handoffs").as_array()) {
    if (!other(trip))
      side.handoffs.push_back({Get<uint64_t>(trip, "bytes"), Get<double>(trip, "seconds")});
  }
  side.spread = Median(std::move(spreads));
  return side;
}

Measurement ReadAll(const json::value& root) {
  Measurement m;
  const json::value &machine = root.at("machine"), &model = root.at("model");
  m.model_file = Get<std::string>(model, "file");
  m.cpu = Get<std::string>(machine, "cpu");
  m.backend = Get<std::string>(root, "backend");
  m.cores = Get<uint32_t>(machine, "cores");
  m.threads = Get<uint32_t>(root, "threads");
  m.rounds = Get<uint32_t>(root, "rounds");
  m.memory_bytes = Get<double>(machine, "memory_bytes");
  m.memory_bytes_free = Get<double>(machine, "memory_bytes_free");
  m.load_before = Get<double>(machine, "load_before");
  m.load_after = Get<double>(machine, "load_after");
  m.layers = Get<uint64_t>(model, "layers");
  m.hidden = Get<uint64_t>(model, "hidden");
  m.kv_heads = Get<uint64_t>(model, "kv_heads");
  m.head_dim = Get<uint64_t>(model, "head_dim");
  m.vocabulary = Get<uint64_t>(model, "vocabulary");
  m.attention_bytes = Get<uint64_t>(model, "attention_bytes");
  m.ffn_bytes = Get<uint64_t>(model, "ffn_bytes");
  m.alone = ReadSide(root, "alone");
  m.turns = ReadSide(root, "turns");
  m.contended = ReadSide(root, "contended");
  return m;
}

bool Fits(const model::ModelShape& shape, const Measurement& m) {
  return shape.layers == m.layers && shape.hidden == m.hidden && shape.kv_heads == m.kv_heads &&
         shape.head_dim == m.head_dim && shape.vocabulary == m.vocabulary;
}

absl::StatusOr<model::ModelShape> FindShape(const Measurement& m, const model::Catalog& catalog,
                                            const std::string& wanted) {
  const std::string dimensions =
      absl::StrCat(m.layers, " layers, hidden ", m.hidden, ", ", m.kv_heads, " KV heads of ",
                   m.head_dim, ", vocabulary ", m.vocabulary);
  std::vector<std::string> fitting;
  for (const std::string& name : catalog.ModelNames()) {
    ASSIGN_OR_RETURN(const model::ModelShape shape, catalog.FindModel(name));
    if (Fits(shape, m)) fitting.push_back(name);
  }
  if (!wanted.empty()) {
    ASSIGN_OR_RETURN(model::ModelShape shape, catalog.ResolveModel(wanted));
    if (Fits(shape, m)) return shape;
    return absl::InvalidArgumentError(absl::StrCat("model '", shape.name, "' is not of ",
                                                   m.model_file, ", which has ", dimensions));
  }
  if (fitting.size() == 1) return catalog.FindModel(fitting[0]);
  return absl::InvalidArgumentError(
      absl::StrCat(fitting.empty() ? "no model of the catalog is" : absl::StrJoin(fitting, " and "),
                   fitting.empty() ? "" : " both are", " that of ", m.model_file, ": ", dimensions,
                   "; name one with --model-shape, or add one with --catalog"));
}

// The format whose bits per weight are nearest by ratio: Q4_1 has 5, Q8_0 8.5.
model::Dtype NearestDtype(const Measurement& m, const model::ModelShape& shape) {
  const auto parameters = static_cast<double>(
      shape.layers * (shape.attention_parameters() + shape.ffn_parameters(/*layer=*/0)));
  const double bits = 8 * static_cast<double>(m.attention_bytes + m.ffn_bytes) / parameters;
  const auto distance = [&](model::Dtype dtype) {
    return std::abs(std::log(bits / model::BitsPerWeight(dtype)));
  };
  constexpr std::array<model::Dtype, 3> kOfGguf = {model::Dtype::kBf16, model::Dtype::kInt8,
                                                   model::Dtype::kInt4};
  return *std::min_element(kOfGguf.begin(), kOfGguf.end(),
                           [&](auto a, auto b) { return distance(a) < distance(b); });
}

absl::Status CheckSpread(const Measurement& m, double most) {
  const double spread = m.alone.spread;
  if (spread <= most) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrFormat(
      "this machine is too busy to be calibrated: the same call's times lay %.1f %% apart (half of "
      "the calls, between the quartiles of %d rounds; at most %.1f %% is accepted), at a load of "
      "%.2f to %.2f; wait until it is quiet, or accept it with --max-spread",
      100 * spread, m.rounds, 100 * most, m.load_before, m.load_after));
}

// Marks and sources of one side's chip.
class Sources {
 public:
  Sources(const Measurement& m, const CalibrationOptions& options, bool contended, bool split)
      : where_(absl::StrCat(options.date, " on ", m.cpu, ", ", m.cores, " cores, ", m.threads,
                            m.threads == 1 ? " thread" : " threads",
                            contended ? ", beside another worker's calls"
                            : split   ? ", in turns with another worker's calls"
                                      : "",
                            " (tandemctl calibrate)")) {}
  Figure Measured(double value, absl::string_view what) const {
    return {value, Mark::kMeasured, absl::StrCat(what, ", measured ", where_)};
  }
  Figure Fitted(double value, absl::string_view what, absl::string_view residual) const {
    return {value, Mark::kFitted, absl::StrCat("fitted to ", what, " of ", where_, "; ", residual)};
  }

 private:
  std::string where_;
};

Figure Assumed(double value, absl::string_view why) {
  return {value, Mark::kAssumed, std::string(why)};
}

std::string Percent(double share) { return absl::StrFormat("%+.1f %%", 100 * share); }

// "residual 4.1 % (median of attention), bias -2.0 %".
std::string ResidualOf(const planner::Calibration& calibration, bool prefill) {
  std::string text = "residual, median and bias:";
  for (const planner::KindError& error : calibration.errors) {
    if ((error.kind == cost::CallKind::kPrefill) != prefill) continue;
    absl::StrAppend(&text, " ", std::string(cost::CallKindName(error.kind)),
                    absl::StrFormat(" %.1f %%", 100 * error.median), " ", Percent(error.bias));
  }
  return text;
}

void FillDtype(const planner::Calibration& calibration, const Sources& sources, size_t calls,
               const std::string& model_file, model::DtypeFigures& figures) {
  const model::DtypeFigures& fit = calibration.figures;
  const std::string what = absl::StrCat(calls, " timed calls of ",
                                        std::filesystem::path(model_file).filename().string());
  const std::string decode = ResidualOf(calibration, false),
                    prefill = ResidualOf(calibration, true);
  figures.peak_flops =
      sources.Measured(calibration.peaks.flops, "the highest rate of any timed call");
  figures.bandwidth_efficiency = sources.Fitted(fit.bandwidth_efficiency.value, what, decode);
  figures.compute_efficiency = sources.Fitted(fit.compute_efficiency.value, what, decode);
  figures.exponent = sources.Fitted(fit.exponent.value, what, decode);
  figures.layer_seconds = sources.Fitted(fit.layer_seconds.value, what, decode);
  figures.expert_factor = Assumed(1, "the model is dense: nothing to fit it to");
  figures.prefill_compute_efficiency =
      sources.Fitted(fit.prefill_compute_efficiency.value, what, prefill);
  figures.prefill_layer_seconds = sources.Fitted(fit.prefill_layer_seconds.value, what, prefill);
}

// The calls that a worker of those stages makes.
struct Role {
  const char* suffix;
  std::set<cost::CallKind> kinds;
  bool split;  // waits for another worker between the calls of a step
};
const std::vector<Role>& Roles() {
  using enum cost::CallKind;
  static const auto* const roles = new std::vector<Role>{
      {"", {kAttention, kFfn, kHead, kPrefill}, false},
      {"-attention", {kAttention, kHead, kPrefill}, true},
      {"-ffn", {kFfn, kPrefill}, true},
  };
  return *roles;
}

// A step's calls as that worker makes them; a prompt's follow on each other in any case.
std::vector<cost::TimedCall> CallsOf(const Measurement& m, const Role& role, bool contended) {
  std::vector<cost::TimedCall> calls;
  const auto take = [&](const MeasuredSide& side, bool prefill) {
    std::copy_if(
        side.calls.begin(), side.calls.end(), std::back_inserter(calls), [&](const auto& call) {
          const cost::CallKind kind = call.shape.kind;
          return role.kinds.contains(kind) && (kind == cost::CallKind::kPrefill) == prefill;
        });
  };
  take(contended ? m.contended : role.split ? m.turns : m.alone, false);
  take(contended ? m.contended : m.alone, true);
  return calls;
}

absl::StatusOr<CalibratedChip> MakeChip(const Measurement& m, const Role& role, bool contended,
                                        const model::ModelShape& shape, model::Dtype weights,
                                        const CalibrationOptions& options) {
  const MeasuredSide& side = contended ? m.contended : m.alone;
  const std::vector<cost::TimedCall> calls = CallsOf(m, role, contended);
  model::Precision precision;
  precision.weights = weights;
  CalibratedChip out;
  const planner::Peaks peaks = {side.read_bytes_per_s, planner::BestFlops(shape, precision, calls)};
  ASSIGN_OR_RETURN(out.calibration, planner::Calibrate(shape, precision, peaks, calls));
  const std::vector<planner::RoundTrip>& trips = (contended ? m.contended : m.turns).handoffs;
  ASSIGN_OR_RETURN(out.link, planner::FitLink(trips));
  const Sources sources(m, options, contended, role.split);
  const std::string what_trips =
      absl::StrCat(trips.size(), " sizes of A2F + F2A round trips over loopback");
  const std::string link_residual = absl::StrCat("worst of a round trip ", Percent(out.link.worst));
  model::Chip& chip = out.chip;
  chip.name = absl::StrCat(options.name, role.suffix, contended ? "-contended" : "");
  chip.memory_class = "hbm";
  chip.memory_bytes = sources.Measured(m.memory_bytes, "the host's memory");
  chip.usable_memory =
      sources.Measured(std::clamp(m.memory_bytes_free / m.memory_bytes, 0.1, 1.0), "free memory");
  chip.workspace_bytes = Assumed(0, "activations of a few rows are small beside the weights");
  chip.bandwidth_bytes_per_s =
      sources.Measured(side.read_bytes_per_s, "128 MiB read by one thread");
  chip.scale_out.bytes_per_s = sources.Fitted(out.link.bytes_per_s, what_trips, link_residual);
  chip.scale_out.latency_seconds =
      sources.Fitted(out.link.latency_seconds, what_trips, link_residual);
  chip.scale_up = chip.scale_out;
  chip.power_watts = {0, Mark::kUnknown, "not measured"};
  chip.dollars_per_hour = {0, Mark::kUnknown, "this machine's own"};
  FillDtype(out.calibration, sources, calls.size(), m.model_file, chip.dtypes[weights]);
  return out;
}

}  // namespace

absl::StatusOr<Measurement> ReadMeasurement(absl::string_view text, absl::string_view where) {
  try {
    return ReadAll(json::parse(json::string_view(text.data(), text.size())));
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": no measurement of tandem-worker microbench: ", error.what()));
  }
}

absl::StatusOr<CalibrationReport> MakeCalibration(const Measurement& measurement,
                                                  const model::Catalog& catalog,
                                                  const CalibrationOptions& options) {
  ASSIGN_OR_RETURN(const model::ModelShape shape,
                   FindShape(measurement, catalog, options.model_shape));
  RETURN_IF_ERROR(CheckSpread(measurement, options.max_spread));
  CalibrationReport report;
  report.measurement = measurement;
  report.model_shape = shape.name;
  report.weights = NearestDtype(measurement, shape);
  for (const bool contended : {false, true}) {
    for (const Role& role : Roles()) {
      ASSIGN_OR_RETURN(CalibratedChip chip,
                       MakeChip(measurement, role, contended, shape, report.weights, options));
      report.chips.push_back(std::move(chip));
    }
  }
  return report;
}

}  // namespace tandem::ctl
