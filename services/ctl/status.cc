#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/str_join.h>
#include <absl/strings/strip.h>
#include <CLI/CLI.hpp>
#include <boost/json.hpp>

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <vector>

#include "scheduler/base/status.h"
#include "services/ctl/admin_client.h"
#include "services/ctl/commands.h"
#include "services/ctl/table.h"
#include "services/runtime/proto_words.h"

namespace tandem::ctl {
namespace {

namespace json = boost::json;

struct Options {
  RouterOptions router;
  bool json = false;
};

std::vector<std::string> StageNames(const v1::Registration& worker) {
  std::vector<std::string> names;
  for (const int stage : worker.stages()) {
    const absl::StatusOr<Stage> known = ToStage(stage);
    names.push_back(known.ok() ? ToString(*known) : absl::StrCat("stage-", stage));
  }
  return names;
}

std::string MemoryClassName(const v1::Registration& worker) {
  if (worker.memory_class() == v1::MEMORY_CLASS_HBM) return "hbm";
  if (worker.memory_class() == v1::MEMORY_CLASS_SRAM) return "sram";
  return "unknown";
}

// Busy seconds of the device; over its elapsed seconds that is its occupancy.
double BusySeconds(const v1::Heartbeat& heartbeat) {
  double busy = 0;
  for (const v1::LedgerEntry& entry : heartbeat.ledger()) {
    if (entry.state() == "busy") busy += entry.seconds();
  }
  return busy;
}

double Occupancy(const v1::Heartbeat& heartbeat) {
  return heartbeat.elapsed_seconds() > 0 ? BusySeconds(heartbeat) / heartbeat.elapsed_seconds() : 0;
}

// "busy 41.2 %, stall handoff 12.0 %, idle no_work 46.8 %": the states that make up a thousandth of
// the device's time or more.
std::string LedgerText(const v1::Heartbeat& heartbeat) {
  std::map<std::string, double> share;
  for (const v1::LedgerEntry& entry : heartbeat.ledger()) {
    const std::string state =
        entry.cause().empty() ? entry.state() : absl::StrCat(entry.state(), " ", entry.cause());
    share[state] += entry.seconds() / std::max(heartbeat.elapsed_seconds(), 1e-9);
  }
  std::vector<std::string> parts;
  for (const auto& [state, part] : share) {
    if (part >= 0.001) parts.push_back(absl::StrFormat("%s %.1f %%", state, 100 * part));
  }
  return parts.empty() ? "none yet" : absl::StrJoin(parts, ", ");
}

// The class of the stages that it runs; equal parts once.
std::string NumericsText(const v1::NumericsClass& numerics) {
  std::vector<std::string> parts;
  for (const std::string* part : {&numerics.prefill(), &numerics.attention(), &numerics.ffn()}) {
    if (!part->empty() && (parts.empty() || parts.back() != *part)) parts.push_back(*part);
  }
  return absl::StrJoin(parts, "  ");
}

// The part of the FFN that it holds; empty without an FFN stage.
std::string ShardText(const v1::Registration& worker) {
  const bool ffn = std::any_of(worker.stages().begin(), worker.stages().end(),
                               [](int stage) { return stage == v1::STAGE_FFN; });
  if (!ffn) return "";
  return ToString(worker.has_shard() ? ToShard(worker.shard()) : FfnShard(),
                  worker.dimensions().layers());
}

json::value ShardJson(const v1::Registration& worker) {
  if (ShardText(worker).empty()) return nullptr;
  const FfnShard shard = ResolveShard(worker.has_shard() ? ToShard(worker.shard()) : FfnShard(),
                                      worker.dimensions().layers());
  return {{"text", ShardText(worker)},
          {"first_layer", shard.first_layer},
          {"last_layer", shard.last_layer},
          {"column", shard.column},
          {"columns", shard.columns}};
}

json::value WorkerJson(const v1::WorkerStatus& worker) {
  const v1::Registration& told = worker.registration();
  const v1::Heartbeat& heartbeat = worker.heartbeat();
  json::array stages, group, ledger;
  for (const std::string& name : StageNames(told)) stages.emplace_back(name);
  for (const std::string& holder : worker.group()) group.emplace_back(holder);
  for (const v1::LedgerEntry& entry : heartbeat.ledger()) {
    ledger.push_back({{"stage", entry.stage()},
                      {"state", entry.state()},
                      {"cause", entry.cause()},
                      {"seconds", entry.seconds()}});
  }
  return {{"id", told.worker_id()},
          {"pool", told.pool()},
          {"model", told.model()},
          {"stages", std::move(stages)},
          {"memory_class", MemoryClassName(told)},
          {"state", worker.state()},
          {"state_reason", worker.state_reason()},
          {"address", told.address()},
          {"metrics_url", told.metrics_url()},
          {"pid", told.pid()},
          {"device", told.device()},
          {"time_scale", told.time_scale()},
          {"incarnation", told.incarnation()},
          {"weights_bytes", told.weights_bytes()},
          {"shard", ShardJson(told)},
          {"numerics",
           {{"prefill", told.numerics().prefill()},
            {"attention", told.numerics().attention()},
            {"ffn", told.numerics().ffn()}}},
          {"kv_blocks", told.capacity().kv_blocks()},
          {"kv_blocks_free", heartbeat.kv_blocks_free()},
          {"block_tokens", told.capacity().block_tokens()},
          {"sequences", heartbeat.sequences()},
          {"prefills", heartbeat.prefills()},
          {"tokens_total", heartbeat.tokens_total()},
          {"busy_seconds", BusySeconds(heartbeat)},
          {"elapsed_seconds", heartbeat.elapsed_seconds()},
          {"occupancy", Occupancy(heartbeat)},
          {"ledger", std::move(ledger)},
          {"group", std::move(group)},
          {"draining", heartbeat.draining()},
          {"heartbeat_age_seconds", worker.heartbeat_age_seconds()}};
}

json::value StatusJson(const v1::StatusReply& reply, const std::string& address) {
  json::array workers;
  for (const v1::WorkerStatus& worker : reply.workers()) workers.push_back(WorkerJson(worker));
  return {{"router",
           {{"id", reply.router_id()},
            {"admin_address", address},
            {"version", reply.version()},
            {"ready", reply.ready()},
            {"reason", reply.reason()},
            {"queued_requests", reply.queued_requests()},
            {"live_sequences", reply.live_sequences()}}},
          {"workers", std::move(workers)}};
}

// A row, and below it what has no column.
void AddWorker(const v1::WorkerStatus& worker, TextTable& table) {
  const v1::Registration& told = worker.registration();
  const v1::Heartbeat& heartbeat = worker.heartbeat();
  const uint32_t blocks = told.capacity().kv_blocks();
  const std::string kv =
      blocks == 0 ? "-" : absl::StrCat(blocks - heartbeat.kv_blocks_free(), "/", blocks);
  table.AddRow({told.worker_id(), told.pool(), absl::StrJoin(StageNames(told), ","),
                MemoryClassName(told), worker.state(), absl::StrCat(heartbeat.sequences()),
                absl::StrFormat("%.1f%%", 100 * Occupancy(heartbeat)), kv,
                absl::StrCat(heartbeat.tokens_total()), told.address()});
  if (!worker.state_reason().empty()) table.AddNote(worker.state_reason());
  const std::string shard = ShardText(told);
  if (!shard.empty() && shard != "whole") {
    table.AddNote(absl::StrCat("FFN shard: ", shard, " of ", told.dimensions().layers(),
                               " layers, ", told.weights_bytes(), " bytes"));
  }
  if (worker.group_size() > 0)
    table.AddNote(absl::StrCat("FFN group: ", absl::StrJoin(worker.group(), ", ")));
  table.AddNote(absl::StrCat(
      "device: ", told.device(),
      told.time_scale() > 0 ? absl::StrCat(", emulated at time_scale ", told.time_scale()) : ""));
  table.AddNote(absl::StrCat("device time: ", LedgerText(heartbeat)));
  table.AddNote(absl::StrCat("numerics: ", NumericsText(told.numerics())));
}

std::string StatusText(const v1::StatusReply& reply, const std::string& address) {
  std::string text =
      absl::StrFormat("router %s (%s, version %s): %s; %u queued requests, %u live sequences\n",
                      reply.router_id(), address, reply.version(),
                      reply.ready() ? "ready" : absl::StrCat("not ready: ", reply.reason()),
                      reply.queued_requests(), reply.live_sequences());
  TextTable table({{"worker"},
                   {"pool"},
                   {"stages"},
                   {"memory"},
                   {"state"},
                   {"seqs", Align::kRight},
                   {"occupancy", Align::kRight},
                   {"KV blocks", Align::kRight},
                   {"tokens", Align::kRight},
                   {"address"}});
  for (const v1::WorkerStatus& worker : reply.workers()) AddWorker(worker, table);
  absl::StrAppend(&text, absl::StripTrailingAsciiWhitespace(table.ToString()));
  return text;
}

absl::Status Status(const Options& options) {
  const std::string address = RouterAddress(options.router);
  ASSIGN_OR_RETURN(const LinkSecurity security, RouterSecurity(options.router));
  ASSIGN_OR_RETURN(const v1::StatusReply reply,
                   AskRouterStatus(address, security, /*timeout_seconds=*/10));
  std::printf("%s\n", options.json ? json::serialize(StatusJson(reply, address)).c_str()
                                   : StatusText(reply, address).c_str());
  return absl::OkStatus();
}

}  // namespace

void AddStatus(CLI::App& parent, int& exit_code) {
  auto options = std::make_shared<Options>();
  CLI::App* command = parent.add_subcommand("status",
                                            "Shows workers, pools, stages, sequences, occupancy, "
                                            "KV use and numerics class, as the router knows them");
  AddRouterOptions(*command, options->router);
  command->add_flag("--json", options->json, "As JSON");
  command->callback([options, &exit_code] { exit_code = Report(Status(*options)); });
}

}  // namespace tandem::ctl
