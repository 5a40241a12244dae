#include "services/ctl/fit_report.h"

#include <absl/strings/str_cat.h>

#include <algorithm>

#include "scheduler/base/status.h"
#include "scheduler/cost/verdict.h"
#include "scheduler/model/what_if.h"

namespace tandem::ctl {
namespace {

absl::StatusOr<std::vector<model::Device>> FindDevices(const model::Catalog& catalog,
                                                       const FitRequest& request) {
  if (request.devices.empty()) return absl::InvalidArgumentError("no chip to compare");
  std::vector<model::Device> devices;
  for (const std::string& name : request.devices) {
    ASSIGN_OR_RETURN(model::Device device, catalog.ResolveDevice(name));
    const auto twice = std::find_if(devices.begin(), devices.end(),
                                    [&](const auto& other) { return other.name == device.name; });
    if (twice != devices.end())
      return absl::InvalidArgumentError(absl::StrCat("device '", device.name, "' is named twice"));
    devices.push_back(std::move(device));
  }
  RETURN_IF_ERROR(model::ApplyWhatIfs(catalog, request.what_ifs, devices));
  return devices;
}

absl::StatusOr<model::Precision> PrecisionFor(const model::Device& device,
                                              const std::string& weights) {
  model::Precision precision;
  if (!weights.empty()) {
    const absl::StatusOr<model::Dtype> dtype = model::ParseDtype(weights);
    if (!dtype.ok())
      return absl::InvalidArgumentError(absl::StrCat("weights: ", dtype.status().message()));
    precision.weights = *dtype;
    return precision;
  }
  const std::optional<model::Dtype> usual = cost::UsualWeights(device.chip);
  if (!usual.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("device '", device.name, "': the peak of every dtype is unknown"));
  }
  precision.weights = *usual;
  return precision;
}

}  // namespace

absl::StatusOr<FitReport> MakeFitReport(const model::Catalog& catalog, const FitRequest& request) {
  FitReport report;
  report.load = request.load;
  if (report.load.prompt_tokens == 0) report.load.prompt_tokens = report.load.context_tokens;
  report.what_ifs = request.what_ifs;
  ASSIGN_OR_RETURN(report.shape, catalog.ResolveModel(request.model));
  RETURN_IF_ERROR(cost::CheckLoad(report.shape, report.load));
  ASSIGN_OR_RETURN(const std::vector<model::Device> devices, FindDevices(catalog, request));
  for (const model::Device& device : devices) {
    ASSIGN_OR_RETURN(const model::Precision precision, PrecisionFor(device, request.weights));
    ASSIGN_OR_RETURN(cost::DeviceFit fit,
                     cost::FitDevice(device, report.shape, precision, report.load));
    report.fits.push_back(std::move(fit));
  }
  cost::Judge(report.load, report.fits);
  return report;
}

}  // namespace tandem::ctl
