// tandemctl explain: one decode step of a request that it makes, operation by operation.

#include <absl/strings/str_cat.h>
#include <CLI/CLI.hpp>
#include <boost/json.hpp>

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/base/status.h"
#include "services/ctl/admin_client.h"
#include "services/ctl/commands.h"
#include "services/ctl/explain/build.h"
#include "services/ctl/explain/render.h"
#include "services/ctl/http_client.h"
#include "services/ctl/out_file.h"
#include "services/ctl/trace/client.h"
#include "services/runtime/real_time.h"

namespace tandem::ctl {
namespace {

constexpr size_t kMaxTracedWorkers = 256;
constexpr Duration kSilence = Duration::Seconds(120);  // of the gateway, before it is given up
// From the answer until the step is told: a worker tells ten times a second.
constexpr Duration kStepPatience = Duration::Seconds(5);
constexpr Duration kAskAgainEvery = Duration::Milliseconds(200);
constexpr uint32_t kMostWaitSeconds = 3600;

struct Options {
  RouterOptions router;
  ExplainQuestion question;
  std::string gateway, catalog, chip, html;
  uint32_t wait_seconds = 0;
  std::optional<uint32_t> layer;
  bool json = false;
};

using Traces = std::vector<std::unique_ptr<OpenTrace>>;

bool RunsDecode(const v1::Registration& worker) {
  for (const int stage : worker.stages()) {
    if (stage == v1::STAGE_ATTENTION || stage == v1::STAGE_FFN) return true;
  }
  return false;
}

absl::StatusOr<std::vector<v1::Registration>> DecodeWorkers(const std::string& router,
                                                            const LinkSecurity& security) {
  ASSIGN_OR_RETURN(const v1::StatusReply cluster,
                   AskRouterStatus(router, security, /*timeout_seconds=*/10));
  std::vector<v1::Registration> workers;
  for (const v1::WorkerStatus& worker : cluster.workers()) {
    if (worker.has_registration() && RunsDecode(worker.registration()))
      workers.push_back(worker.registration());
  }
  if (workers.empty())
    return absl::NotFoundError(absl::StrCat("router at ", router, " knows no worker that decodes"));
  if (workers.size() > kMaxTracedWorkers) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the router knows ", workers.size(), " workers: a trace takes ", kMaxTracedWorkers));
  }
  return workers;
}

absl::StatusOr<ExplainAnswer> Ask(const std::string& gateway, const std::string& body) {
  std::string answer;
  ASSIGN_OR_RETURN(
      const HttpReply reply,
      HttpPostStreaming(gateway, "/v1/completions", body, kSilence, [&](absl::string_view piece) {
        answer.append(piece.data(), piece.size());
      }));
  if (reply.status != 200) {
    return absl::InvalidArgumentError(absl::StrCat("gateway at ", gateway, " answered ",
                                                   reply.status, ": ", ErrorOf(reply.body)));
  }
  return ParseAnswer(answer);
}

// Until all spans of the step that drew the last token were told: the attention worker's, of which
// the step's own is the last, and those that answer its calls.
absl::Status AwaitStep(const ExplainInput& input, const Traces& traces) {
  const uint64_t step = input.answer.decode_step;
  const std::string& attention = input.answer.attention_worker;
  std::map<std::string, size_t> calls;  // by FFN worker
  bool told = false;
  for (size_t i = 0; i < traces.size() && !told; i++) {
    if (input.workers[i].worker_id() != attention) continue;
    told = traces[i]->Await(
        [&](const WorkerTrace& trace) {
          calls.clear();
          for (const TracedSpan& span : trace.spans) {
            if (span.step == step && span.kind == v1::SPAN_KIND_A2F && span.peer != kNoWorker)
              calls[trace.peers[span.peer]]++;
          }
          return std::any_of(trace.spans.begin(), trace.spans.end(), [&](const TracedSpan& span) {
            return span.step == step && span.kind == v1::SPAN_KIND_STEP;
          });
        },
        kStepPatience);
  }
  for (size_t i = 0; i < traces.size() && told; i++) {
    told = traces[i]->Await(
        [&](const WorkerTrace& trace) {
          size_t served = 0;
          for (const TracedSpan& span : trace.spans) {
            served += span.step == step && span.kind == v1::SPAN_KIND_SERVED &&
                      span.peer != kNoWorker && trace.peers[span.peer] == attention;
          }
          return served >= calls[trace.worker];
        },
        kStepPatience);
  }
  if (told) return absl::OkStatus();
  return absl::DeadlineExceededError(absl::StrCat("step ", step, " of worker ", attention,
                                                  " was not told: a trace lasts ", kMaxTraceSeconds,
                                                  " s, so try a shorter prompt or fewer --tokens"));
}

// Makes the request while every worker that decodes is watched.
absl::StatusOr<ExplainInput> WatchRequest(const Options& options, const std::string& gateway) {
  ExplainInput input;
  input.question = options.question;
  ASSIGN_OR_RETURN(const LinkSecurity security, RouterSecurity(options.router));
  ASSIGN_OR_RETURN(input.workers, DecodeWorkers(RouterAddress(options.router), security));
  ASSIGN_OR_RETURN(const std::string body,
                   CompletionBody(options.question, input.workers.front().model()));
  Traces traces;
  for (const v1::Registration& worker : input.workers) {
    ASSIGN_OR_RETURN(std::unique_ptr<OpenTrace> trace,
                     OpenTrace::Open(worker.worker_id(), worker.address(), security));
    traces.push_back(std::move(trace));
  }
  ASSIGN_OR_RETURN(input.answer, Ask(gateway, body));
  RETURN_IF_ERROR(AwaitStep(input, traces));
  for (const std::unique_ptr<OpenTrace>& trace : traces) {
    ASSIGN_OR_RETURN(WorkerTrace stopped, trace->Stop());
    input.traces.push_back(std::move(stopped));
  }
  return input;
}

// Again while nobody listens and --wait is not over: behind a Kubernetes Service whose pods have
// just become ready, each node refuses connections until its kube-proxy has heard of them.
absl::StatusOr<ExplainInput> WatchRequestWhenServed(const Options& options,
                                                    const std::string& gateway) {
  RealTimeSource time;
  const Instant deadline = time.Now() + Duration::Seconds(options.wait_seconds);
  std::string told;
  for (;;) {
    absl::StatusOr<ExplainInput> input = WatchRequest(options, gateway);
    if (!absl::IsUnavailable(input.status()) || time.Now() >= deadline) return input;
    if (input.status().message() != told) {
      told = std::string(input.status().message());
      std::fprintf(stderr, "waiting: %s\n", told.c_str());
    }
    time.WaitUntil(time.Now() + kAskAgainEvery);
  }
}

absl::Status WriteHtml(const ExplainReport& report, OutFile& file) {
  RETURN_IF_ERROR(file.Clear());
  RETURN_IF_ERROR(file.Write(ExplainHtml(report)));
  RETURN_IF_ERROR(file.Close());
  if (!file.is_stdout()) std::printf("%s: one page; open it in a browser\n", file.path().c_str());
  return absl::OkStatus();
}

absl::Status Explain(const Options& options) {
  // What can be wrong without a cluster is said first.
  RETURN_IF_ERROR(CompletionBody(options.question, "").status());
  ASSIGN_OR_RETURN(const model::Catalog catalog, LoadCatalogWith(options.catalog));
  if (!options.chip.empty()) RETURN_IF_ERROR(catalog.ResolveDevice(options.chip).status());
  std::optional<OutFile> html;
  if (!options.html.empty()) {
    ASSIGN_OR_RETURN(html, OutFile::Open(options.html));
  }
  ASSIGN_OR_RETURN(
      const ExplainInput input,
      WatchRequestWhenServed(options, GatewayAddress(options.gateway, options.router)));
  ASSIGN_OR_RETURN(const ExplainReport report, MakeExplainReport(input, catalog, options.chip));
  if (options.layer.has_value() && *options.layer >= report.layers) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--layer ", *options.layer, ": the model has layers 0 to ", report.layers - 1));
  }
  if (options.json) std::printf("%s\n", boost::json::serialize(ExplainJson(report)).c_str());
  if (html.has_value()) RETURN_IF_ERROR(WriteHtml(report, *html));
  if (!options.json && !html.has_value())
    std::printf("%s", ExplainText(report, options.layer).c_str());
  return absl::OkStatus();
}

}  // namespace

void AddExplain(CLI::App& parent, int& exit_code) {
  auto options = std::make_shared<Options>();
  ExplainQuestion& question = options->question;
  CLI::App* command = parent.add_subcommand(
      "explain",
      "Makes a request and walks through one of its decode steps, operation by operation: shapes, "
      "bytes, FLOP, where it ran, what was measured and what the cost model says");
  command->add_option("--prompt", question.prompt, "Text for the model to go on with")->required();
  command
      ->add_option("--tokens", question.tokens,
                   "How many tokens to make; the last one's step is explained [4]")
      ->check(CLI::Range(uint32_t{1}, kMaxExplainTokens));
  command->add_option("--temperature", question.temperature, "Of the sampling [0: greedy]")
      ->check(CLI::Range(0.0, 2.0));
  command->add_option("--seed", question.seed, "Of the sampling [0]");
  command->add_option("--layer", options->layer, "Shows this layer too, of those that are alike");
  command->add_flag("--json", options->json, "As JSON, with every operation of every layer");
  command->add_option("--html", options->html,
                      "Writes one self-contained page to click through; - is stdout");
  command->add_option("--chip", options->chip,
                      "The catalog's chip or device to forecast times with [the worker's own]");
  AddCatalogOption(*command, options->catalog);
  command->add_option("--gateway", options->gateway,
                      "Gateway's address [the local cluster's, or 127.0.0.1:8080]");
  command
      ->add_option("--wait", options->wait_seconds,
                   "Seconds to ask again while router or gateway cannot be reached [0]")
      ->check(CLI::Range(uint32_t{0}, kMostWaitSeconds));
  AddRouterOptions(*command, options->router);
  command->callback([options, &exit_code] { exit_code = Report(Explain(*options)); });
}

}  // namespace tandem::ctl
