#include "scheduler/planner/calibrate.h"

#include <absl/strings/str_cat.h>

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <unsupported/Eigen/NonLinearOptimization>
#include <unsupported/Eigen/NumericalDiff>

#include "scheduler/base/check.h"
#include "scheduler/base/status.h"

namespace tandem::planner {
namespace {

using cost::CallKind;
using cost::TimedCall;

constexpr double kMaxEfficiency = 1.5;  // chip.h's range
constexpr double kExponents[] = {1, 2, 4, 0};
constexpr int kParameters = 5;
// Relative step of the numerical derivative. Forecasts are whole nanoseconds, so it is no smaller.
constexpr double kDifferenceStep = 1e-3;
constexpr double kMaxLinkBytesPerS = 1e18;

// Unbounded numbers for bounded ones: efficiencies in (0, kMaxEfficiency), times above 0.
double Efficiency(double x) { return kMaxEfficiency / (1 + std::exp(-x)); }
double FromEfficiency(double value) { return -std::log(kMaxEfficiency / value - 1); }
double Seconds(double x) { return std::min(std::exp(x), model::kLayerSecondsRange.max); }

model::DtypeFigures FiguresAt(const Eigen::VectorXd& x, double exponent, const Peaks& peaks) {
  const auto figure = [](double value) {
    return model::Figure{value, model::Mark::kFitted, "fit"};
  };
  model::DtypeFigures figures;
  figures.peak_flops = figure(peaks.flops);
  figures.bandwidth_efficiency = figure(Efficiency(x[0]));
  figures.compute_efficiency = figure(Efficiency(x[1]));
  figures.exponent = figure(exponent);
  figures.layer_seconds = figure(Seconds(x[2]));
  figures.expert_factor = figure(1);
  figures.prefill_compute_efficiency = figure(Efficiency(x[3]));
  figures.prefill_layer_seconds = figure(Seconds(x[4]));
  return figures;
}

// log(forecast / measured) of every call under other figures, weighted.
class Residuals {
 public:
  Residuals(const model::ModelShape& shape, const model::Precision& precision, const Peaks& peaks,
            const std::vector<TimedCall>& calls)
      : shape_(shape), peaks_(peaks), calls_(calls) {
    options_.precision = precision;
    device_ = model::SingleChip(model::Chip());
    device_.name = "calibrated";
    device_.chip.bandwidth_bytes_per_s.value = peaks.bytes_per_s;
    device_.link.bytes_per_s.value = 1;
    SetWeights();
  }

  std::vector<double> Forecasts(const model::DtypeFigures& figures) const {
    model::Device device = device_;
    device.chip.dtypes[options_.precision.weights] = figures;
    const auto table = cost::CostTable::Create(device, shape_, options_);
    TANDEM_CHECK(table.ok());
    std::vector<double> seconds;
    for (const TimedCall& call : calls_)
      seconds.push_back(table->TimeOf(PartsOf(*table, call.shape)).seconds());
    return seconds;
  }

  Eigen::VectorXd At(const model::DtypeFigures& figures) const {
    const std::vector<double> forecasts = Forecasts(figures);
    Eigen::VectorXd out(static_cast<Eigen::Index>(calls_.size()));
    for (size_t i = 0; i < calls_.size(); i++) {
      const double forecast = std::max(forecasts[i], 1e-12);
      out[static_cast<Eigen::Index>(i)] = weights_[i] * std::log(forecast / calls_[i].seconds);
    }
    return out;
  }

  // By a kind's part of the time, shared among its calls; squared residuals sum to 1 at one each.
  void SetWeights() {
    struct Kind {
      size_t calls = 0;
      double seconds = 0;
    };
    std::map<CallKind, Kind> kinds;
    for (const TimedCall& call : calls_) {
      kinds[call.shape.kind].calls++;
      kinds[call.shape.kind].seconds += call.seconds;
    }
    double all = 0;
    for (auto& [kind, sum] : kinds) {
      const bool once = kind == CallKind::kHead;
      sum.seconds *= once ? 1 : static_cast<double>(shape_.layers);
      sum.seconds /= static_cast<double>(sum.calls);
      all += sum.seconds;
    }
    for (const TimedCall& call : calls_) {
      const Kind& kind = kinds[call.shape.kind];
      weights_.push_back(std::sqrt(kind.seconds / all / static_cast<double>(kind.calls)));
    }
  }

  const Peaks& peaks() const { return peaks_; }
  size_t size() const { return calls_.size(); }

 private:
  const model::ModelShape& shape_;
  const Peaks peaks_;
  const std::vector<TimedCall>& calls_;
  cost::CostOptions options_;
  model::Device device_;
  std::vector<double> weights_;
};

// What Eigen's solver asks for.
struct Problem {
  using Scalar = double;
  using InputType = Eigen::VectorXd;
  using ValueType = Eigen::VectorXd;
  using JacobianType = Eigen::MatrixXd;
  static constexpr int InputsAtCompileTime = Eigen::Dynamic;
  static constexpr int ValuesAtCompileTime = Eigen::Dynamic;

  int inputs() const { return kParameters; }
  int values() const { return static_cast<int>(residuals->size()); }
  int operator()(const InputType& x, ValueType& out) const {
    out = residuals->At(FiguresAt(x, exponent, residuals->peaks()));
    return 0;
  }

  const Residuals* residuals;
  double exponent;
};

struct Solution {
  model::DtypeFigures figures;
  double norm = 0;  // of the weighted residuals
};

Solution Solve(const Residuals& residuals, double exponent, Eigen::VectorXd x) {
  const Problem problem{&residuals, exponent};
  Eigen::NumericalDiff<Problem> differentiable(problem, kDifferenceStep * kDifferenceStep);
  Eigen::LevenbergMarquardt<Eigen::NumericalDiff<Problem>> solver(differentiable);
  solver.minimize(x);
  const model::DtypeFigures figures = FiguresAt(x, exponent, residuals.peaks());
  return {figures, residuals.At(figures).norm()};
}

// From memory-bound to compute-bound, with short and long fixed times.
Solution SolveFromEverywhere(const Residuals& residuals) {
  Solution best{{}, HUGE_VAL};
  for (const double exponent : kExponents) {
    for (const double bandwidth : {0.1, 0.7, 1.4}) {
      for (const double fixed : {1e-7, 2e-5, 1e-3}) {
        Eigen::VectorXd start(kParameters);
        start << FromEfficiency(bandwidth), FromEfficiency(0.7), std::log(fixed),
            FromEfficiency(0.7), std::log(fixed);
        Solution found = Solve(residuals, exponent, start);
        if (found.norm < best.norm) best = std::move(found);
      }
    }
  }
  return best;
}

std::vector<KindError> ErrorsOf(const std::vector<TimedCall>& calls,
                                const std::vector<double>& forecasts) {
  std::vector<KindError> errors;
  for (const CallKind kind : cost::kAllCallKinds) {
    KindError error;
    error.kind = kind;
    std::vector<double> absolute;
    for (size_t i = 0; i < calls.size(); i++) {
      if (calls[i].shape.kind != kind) continue;
      const double off = forecasts[i] / calls[i].seconds - 1;
      absolute.push_back(std::abs(off));
      error.bias += off;
      if (absolute.size() > 1 && std::abs(off) <= std::abs(error.worst)) continue;
      error.worst = off;
      error.worst_call = calls[i].shape;
    }
    if (absolute.empty()) continue;
    std::sort(absolute.begin(), absolute.end());
    error.calls = absolute.size();
    error.median = absolute[absolute.size() / 2];
    error.bias /= static_cast<double>(absolute.size());
    errors.push_back(error);
  }
  return errors;
}

absl::Status CheckSizes(const std::vector<TimedCall>& calls) {
  std::map<CallKind, std::set<uint64_t>> rows;
  std::set<uint64_t> contexts;
  for (const TimedCall& call : calls) {
    if (!(call.seconds > 0) || !std::isfinite(call.seconds)) {
      return absl::InvalidArgumentError(absl::StrCat(
          cost::CallKindName(call.shape.kind), " of ", call.shape.rows, " rows at ",
          call.shape.positions, " positions took ", call.seconds, " s, which is no time"));
    }
    rows[call.shape.kind].insert(call.shape.rows);
    if (call.shape.kind == CallKind::kAttention) contexts.insert(call.shape.positions);
  }
  const auto too_few = [](absl::string_view what, size_t sizes) {
    return absl::InvalidArgumentError(absl::StrCat(sizes, " sizes of ", what,
                                                   " were timed; at least ", kLeastSizes,
                                                   " are needed to tell a fixed time from a rate"));
  };
  if (!rows.contains(CallKind::kPrefill)) return too_few("prefill chunks", 0);
  if (rows.size() < 2) return too_few("a decode step's calls", 0);
  for (const auto& [kind, sizes] : rows) {
    if (sizes.size() < kLeastSizes)
      return too_few(absl::StrCat("the rows of ", std::string(cost::CallKindName(kind)), " calls"),
                     sizes.size());
  }
  if (!contexts.empty() && contexts.size() < kLeastSizes)
    return too_few("the positions of attention calls", contexts.size());
  return absl::OkStatus();
}

double Median(std::vector<double> values) {
  TANDEM_CHECK(!values.empty());
  std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

}  // namespace

double BestFlops(const model::ModelShape& shape, const model::Precision& precision,
                 const std::vector<TimedCall>& calls) {
  double best = 0;
  for (const TimedCall& call : calls)
    best = std::max(best, cost::FlopsOf(shape, precision, call.shape) / call.seconds);
  return best;
}

absl::StatusOr<Calibration> Calibrate(const model::ModelShape& shape,
                                      const model::Precision& precision, const Peaks& peaks,
                                      const std::vector<TimedCall>& calls) {
  RETURN_IF_ERROR(CheckSizes(calls));
  const auto none = [](double value) { return !(value > 0) || !std::isfinite(value); };
  if (none(peaks.bytes_per_s) || none(peaks.flops)) {
    return absl::InvalidArgumentError(absl::StrCat("peaks of ", peaks.bytes_per_s, " bytes/s and ",
                                                   peaks.flops, " flop/s are none"));
  }
  const Residuals residuals(shape, precision, peaks, calls);
  const Solution best = SolveFromEverywhere(residuals);
  Calibration calibration;
  calibration.figures = best.figures;
  calibration.peaks = peaks;
  calibration.errors = ErrorsOf(calls, residuals.Forecasts(best.figures));
  calibration.rms_log_error = best.norm;
  return calibration;
}

absl::StatusOr<LinkFit> FitLink(const std::vector<RoundTrip>& trips) {
  std::set<uint64_t> sizes;
  for (const RoundTrip& trip : trips) {
    if (!(trip.seconds > 0) || !std::isfinite(trip.seconds)) {
      return absl::InvalidArgumentError(absl::StrCat("a round trip of ", trip.bytes, " bytes took ",
                                                     trip.seconds, " s, which is no time"));
    }
    sizes.insert(trip.bytes);
  }
  if (sizes.size() < kLeastSizes) {
    return absl::InvalidArgumentError(absl::StrCat("round trips of ", sizes.size(),
                                                   " sizes; at least ", kLeastSizes,
                                                   " are needed to tell latency from rate"));
  }
  std::vector<double> slopes, latencies;
  for (const RoundTrip& a : trips) {
    for (const RoundTrip& b : trips) {
      if (a.bytes < b.bytes)
        slopes.push_back((b.seconds - a.seconds) / 2 / static_cast<double>(b.bytes - a.bytes));
    }
  }
  const double slope = std::max(Median(slopes), 1 / kMaxLinkBytesPerS);
  for (const RoundTrip& trip : trips)
    latencies.push_back(trip.seconds / 2 - slope * static_cast<double>(trip.bytes));
  LinkFit fit{std::max(Median(latencies), 0.0), 1 / slope, 0};
  for (const RoundTrip& trip : trips) {
    const double forecast =
        2 * (fit.latency_seconds + static_cast<double>(trip.bytes) / fit.bytes_per_s);
    const double off = forecast / trip.seconds - 1;
    if (std::abs(off) > std::abs(fit.worst)) fit.worst = off;
  }
  return fit;
}

}  // namespace tandem::planner
