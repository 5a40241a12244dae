// tandemctl trace: what every device of a cluster does for some seconds, as one file.

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/str_join.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "scheduler/base/status.h"
#include "services/ctl/admin_client.h"
#include "services/ctl/commands.h"
#include "services/ctl/out_file.h"
#include "services/ctl/trace/align.h"
#include "services/ctl/trace/chrome_json.h"
#include "services/ctl/trace/client.h"
#include "services/ctl/trace/overlap.h"

namespace tandem::ctl {
namespace {

constexpr size_t kMaxWorkers = 256;

struct Options {
  RouterOptions router;
  double seconds = 2;
  std::string out;
};

// All workers at once; in the router's order.
std::vector<absl::StatusOr<WorkerTrace>> ReadAll(const v1::StatusReply& cluster,
                                                 const LinkSecurity& security, double seconds) {
  std::vector<absl::StatusOr<WorkerTrace>> traces(cluster.workers_size(),
                                                  absl::UnknownError("not read"));
  std::vector<std::thread> readers;
  for (int i = 0; i < cluster.workers_size(); i++) {
    const v1::Registration& worker = cluster.workers(i).registration();
    readers.emplace_back([&traces, &worker, &security, i, seconds] {
      traces[i] = ReadTrace(worker.worker_id(), worker.address(), security, seconds);
    });
  }
  for (std::thread& reader : readers) reader.join();
  return traces;
}

// The workers whose clock is not the reference's; those of a single worker need none.
std::string OwnClocks(const std::vector<WorkerTrace>& workers,
                      const std::vector<WorkerClock>& clocks) {
  std::vector<std::string> own;
  for (size_t i = 0; i < workers.size(); i++) {
    if (!clocks[i].aligned) own.push_back(workers[i].worker);
  }
  if (own.empty() || workers.size() == 1) return "";
  return absl::StrCat("; no hand-offs, so on their own clock: ", absl::StrJoin(own, ", "));
}

std::string OverlapText(const Overlap& overlap, double seconds) {
  if (overlap.attention_seconds == 0 || overlap.ffn_seconds == 0) return "";
  const double either = overlap.attention_seconds + overlap.ffn_seconds - overlap.both_seconds;
  return absl::StrFormat(
      "; attention and FFN computed at once %.1f %% of the time (%.1f %% of the time that either "
      "did)",
      100 * overlap.both_seconds / std::max(seconds, either), 100 * overlap.both_seconds / either);
}

// To a microsecond, and never -0.
double Milliseconds(int64_t ns) {
  const int64_t microseconds = ns / 1000;
  return static_cast<double>(microseconds) * 1e-3;
}

std::string Summary(const std::string& path, const std::vector<WorkerTrace>& workers,
                    const std::vector<WorkerClock>& clocks) {
  uint64_t spans = 0, lost = 0;
  int64_t length_ns = 1;
  double time_scale = 0;
  int64_t offset_ns = 0, error_ns = 0;
  for (size_t i = 0; i < workers.size(); i++) {
    spans += workers[i].spans.size();
    lost += workers[i].lost + workers[i].left_out;
    length_ns = std::max(length_ns, workers[i].ended_ns - workers[i].started_ns);
    if (workers[i].emulated) time_scale = workers[i].time_scale;
    if (std::abs(clocks[i].offset_ns) > std::abs(offset_ns)) offset_ns = clocks[i].offset_ns;
    error_ns = std::max(error_ns, clocks[i].error_ns);
  }
  const double seconds = static_cast<double>(length_ns) * 1e-9;
  std::string text =
      absl::StrFormat("%s: %u spans of %u workers in %.2f s", path, spans, workers.size(), seconds);
  if (time_scale > 0) {
    absl::StrAppendFormat(&text, " (%.4g s of the emulated devices, time_scale %g)",
                          seconds / time_scale, time_scale);
  }
  if (workers.size() > 1) {
    absl::StrAppendFormat(&text, "; largest clock offset %.3f ms, clocks known to %.3f ms",
                          Milliseconds(offset_ns), Milliseconds(error_ns));
  }
  absl::StrAppend(&text, OwnClocks(workers, clocks));
  absl::StrAppendFormat(&text, "; %u spans lost (%.2g %%)", lost,
                        lost == 0 ? 0.0 : 100.0 * static_cast<double>(lost) / (spans + lost));
  return absl::StrCat(text, OverlapText(OverlapOf(workers, clocks), seconds));
}

absl::Status Trace(const Options& options) {
  ASSIGN_OR_RETURN(OutFile file, OutFile::Open(options.out));
  ASSIGN_OR_RETURN(const LinkSecurity security, RouterSecurity(options.router));
  ASSIGN_OR_RETURN(
      const v1::StatusReply cluster,
      AskRouterStatus(RouterAddress(options.router), security, /*timeout_seconds=*/10));
  const auto known = static_cast<size_t>(cluster.workers_size());
  if (known == 0) return absl::NotFoundError("the router knows no worker: nothing to trace");
  if (known > kMaxWorkers) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the router knows ", known, " workers: a trace takes ", kMaxWorkers));
  }
  std::vector<WorkerTrace> workers;
  absl::Status failed;  // the first; the others' trace is written all the same
  for (absl::StatusOr<WorkerTrace>& trace : ReadAll(cluster, security, options.seconds)) {
    if (trace.ok()) {
      workers.push_back(*std::move(trace));
    } else {
      failed.Update(trace.status());
    }
  }
  if (workers.empty()) return failed;
  const std::vector<Handoff> handoffs = MatchHandoffs(workers);
  const std::vector<WorkerClock> clocks = AlignClocks(workers.size(), handoffs);
  RETURN_IF_ERROR(file.Clear());
  RETURN_IF_ERROR(WriteChromeTrace(workers, clocks, handoffs,
                                   [&](absl::string_view text) { return file.Write(text); }));
  RETURN_IF_ERROR(file.Close());
  std::fprintf(file.is_stdout() ? stderr : stdout, "%s\n",
               Summary(file.is_stdout() ? "trace" : file.path(), workers, clocks).c_str());
  return failed;
}

}  // namespace

void AddTrace(CLI::App& parent, int& exit_code) {
  auto options = std::make_shared<Options>();
  CLI::App* command = parent.add_subcommand(
      "trace",
      "Writes what every device does for some seconds, for ui.perfetto.dev or chrome://tracing: "
      "steps, layers and micro-batches by stage, hand-offs, waits and their causes");
  command
      ->add_option("--seconds", options->seconds,
                   "How long, of the machine's time [2]; above 0, at most 60")
      ->check(CLI::Range(1e-3, kMaxTraceSeconds));
  command->add_option("-o,--out", options->out, "File to write; - is stdout")->required();
  AddRouterOptions(*command, options->router);
  command->callback([options, &exit_code] { exit_code = Report(Trace(*options)); });
}

}  // namespace tandem::ctl
