// tandemctl fit: which stage of a model suits which chip, and why.

#include <CLI/CLI.hpp>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "scheduler/base/status.h"
#include "services/ctl/commands.h"
#include "services/ctl/fit_report.h"

namespace tandem::ctl {
namespace {

// One of each kind that a stage might go to.
const std::vector<std::string> kUsualDevices = {"h100",       "h200",      "b200",
                                                "vera-rubin", "groq3-lpx", "cs-3"};

struct Options {
  FitRequest request;
  std::string directory;
  bool ops = false, json = false;
};

absl::Status Fit(const Options& options) {
  ASSIGN_OR_RETURN(const model::Catalog catalog, LoadCatalogWith(options.directory));
  ASSIGN_OR_RETURN(const FitReport report, MakeFitReport(catalog, options.request));
  std::printf("%s\n", (options.json ? FitJson(report) : FitText(report, options.ops)).c_str());
  return absl::OkStatus();
}

}  // namespace

void AddFit(CLI::App& parent, int& exit_code) {
  auto options = std::make_shared<Options>();
  FitRequest& request = options->request;
  request.devices = kUsualDevices;
  request.load.prompt_tokens = 0;  // as the context
  CLI::App* command = parent.add_subcommand(
      "fit",
      "Says how well each stage of a model (prefill, decode attention, decode FFN) fits each chip: "
      "time, what bounds it, ridge batch, how many are needed, tokens/s, $/Mtok where the price is "
      "known, and a verdict (weak, mixed, strong, best) with the rule that gave it");
  command->add_option("model", request.model, "A model of the catalog: llama-3-70b")->required();
  command
      ->add_option("--chip", request.devices,
                   "Chips or devices of the catalog to compare, with commas between; the beginning "
                   "of a name will do [h100,h200,b200,vera-rubin,groq3-lpx,cs-3]")
      ->delimiter(',')
      ->allow_extra_args(false);
  command
      ->add_option("--batch", request.load.batch,
                   "Sequences that decode together [64]; at most 65536")
      ->check(CLI::NonNegativeNumber);
  command
      ->add_option("--context", request.load.context_tokens,
                   "Tokens that each of them has in the KV cache [8192]")
      ->check(CLI::NonNegativeNumber);
  command
      ->add_option("--prompt", request.load.prompt_tokens,
                   "Tokens of the prompt that prefill computes [as --context]")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--weights", request.weights,
                      "Number format of the weights, on every chip: bf16, fp8, int8, int4, nvfp4, "
                      "mxfp4 [8 bits where a chip has them, else bf16]");
  command
      ->add_option(
          "--what-if", request.what_ifs,
          "Another figure for the chips of a memory class or for one chip, SCOPE.KEY=VALUE: "
          "hbm.bandwidth=22TB/s, cs-3.memory=88GB, groq3-lpu.price=5 ($/h of one chip), "
          "sram.power=20kW, h100.peak.fp8=2PFLOPS, cs-3.layer.bf16=5us; may be given several times")
      ->allow_extra_args(false);
  AddCatalogOption(*command, options->directory);
  command->add_flag("--ops", options->ops,
                    "Also every operation of a prompt and a step: shapes, bytes, FLOP, FLOP/byte");
  command->add_flag("--json", options->json, "As JSON, operations included");
  command->callback([options, &exit_code] { exit_code = Report(Fit(*options)); });
}

}  // namespace tandem::ctl
