#include <absl/strings/str_cat.h>
#include <CLI/CLI.hpp>
#include <boost/json.hpp>

#include <cstdio>
#include <memory>
#include <vector>

#include "scheduler/base/status.h"
#include "services/ctl/admin_client.h"
#include "services/ctl/commands.h"
#include "services/ctl/cost_report.h"
#include "services/ctl/measure_baseline.h"
#include "services/runtime/tco_words.h"
#include "services/runtime/yaml_file.h"

namespace tandem::ctl {
namespace {

struct Options {
  RouterOptions router;
  CostQuestion question;
  std::string window = "60s", prices, catalog;
  double slo_tpot_ms = 0, slo_ttft_ms = 0;  // 0: the router's
  bool json = false, measure = false;
};

absl::StatusOr<ledger::PriceList> ReadPrices(const std::string& path) {
  if (path.empty()) return ledger::PriceList();
  ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path));
  return ledger::PriceList::Read(text, path);
}

absl::Status Measure(const Options& options, CostReport& report) {
  if (!report.baseline.has_value()) {
    return absl::FailedPreconditionError(
        absl::StrCat("--measure: there is no baseline to run: ", report.why_no_baseline));
  }
  ASSIGN_OR_RETURN(const MeasuredBaseline measured, MeasureBaseline(report, options.catalog));
  UseMeasured(measured, report);
  return absl::OkStatus();
}

absl::Status Tco(const Options& options) {
  CostQuestion question = options.question;
  ASSIGN_OR_RETURN(question.window, ParseWindow(options.window));
  ASSIGN_OR_RETURN(const ledger::PriceList prices, ReadPrices(options.prices));
  ASSIGN_OR_RETURN(const model::Catalog catalog, LoadCatalogWith(options.catalog));
  ASSIGN_OR_RETURN(const LinkSecurity security, RouterSecurity(options.router));
  ASSIGN_OR_RETURN(const v1::TcoReply reply,
                   AskRouterTco(RouterAddress(options.router), security, question.window.seconds(),
                                /*timeout_seconds=*/10));
  const auto milliseconds = [](double given, double routers_seconds) {
    return given > 0 ? Duration::FromSeconds(given / 1e3) : Duration::FromSeconds(routers_seconds);
  };
  question.slo = {milliseconds(options.slo_tpot_ms, reply.slo_tpot_seconds()),
                  milliseconds(options.slo_ttft_ms, reply.slo_ttft_seconds())};
  std::vector<ledger::DeviceAccount> devices;
  for (const v1::DeviceAccount& told : reply.devices()) {
    ASSIGN_OR_RETURN(ledger::DeviceAccount device, ToAccount(told));
    devices.push_back(std::move(device));
  }
  ApplyPrices(prices, devices);
  ASSIGN_OR_RETURN(CostReport report,
                   MakeCostReport(std::move(devices), question, catalog, prices));
  if (options.measure) RETURN_IF_ERROR(Measure(options, report));
  std::printf("%s", options.json
                        ? absl::StrCat(boost::json::serialize(CostJson(report)), "\n").c_str()
                        : CostText(report).c_str());
  if (reply.ledgers_refused() > 0) {
    std::fprintf(stderr,
                 "tandemctl: the router refused %llu accounts that cannot be true; the last: %s\n",
                 static_cast<unsigned long long>(reply.ledgers_refused()), reply.refusal().c_str());
  }
  return absl::OkStatus();
}

}  // namespace

void AddTco(CLI::App& parent, int& exit_code) {
  auto options = std::make_shared<Options>();
  CostQuestion& question = options->question;
  CLI::App* command = parent.add_subcommand(
      "tco",
      "What the cluster costs: by pool and stage the dollars an hour, busy, stalled and idle; "
      "dollars "
      "per million tokens; and the price and occupancy at which the specialist pays");
  command->add_option("--window", options->window, "How far back, of the machine's time [60s]");
  command->add_option("--baseline", question.baseline,
                      "DEVICE-colocated or CHIP-colocated to compare with [h100-colocated]");
  command->add_option("--engine", question.engine,
                      "Engine of the baseline: vllm, sglang, tensorrt-llm or none [vllm]");
  command->add_option("--specialist", question.specialist,
                      "Pool, or memory class, whose break-even is wanted [sram]");
  command->add_option("--prices", options->prices, "YAML file of what devices cost by the hour");
  command->add_option("--model-shape", question.model_shape,
                      "The catalog's model, for the baseline [what the workers say]");
  command->add_option("--weights", question.weights, "Its number format [what the workers say]");
  command
      ->add_option("--slo-tpot-ms", options->slo_tpot_ms,
                   "Time per output token that the baseline must keep [the router's]")
      ->check(CLI::Range(1e-3, 1e6));
  command->add_option("--slo-ttft-ms", options->slo_ttft_ms, "Time to the first token, likewise")
      ->check(CLI::Range(1e-3, 1e9));
  AddCatalogOption(*command, options->catalog);
  command->add_flag("--measure", options->measure,
                    "Run the baseline on an emulated device too, instead of forecasting alone");
  command->add_flag("--json", options->json, "As JSON, with every cell of every device");
  AddRouterOptions(*command, options->router);
  command->callback([options, &exit_code] { exit_code = Report(Tco(*options)); });
}

}  // namespace tandem::ctl
