#include "services/runtime/tco_words.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>

#include <array>
#include <utility>

#include "scheduler/base/status.h"
#include "services/runtime/proto_words.h"
#include "services/runtime/utf8.h"

namespace tandem {
namespace {

using ledger::LedgerCell;

constexpr int kMaxEntries = ledger::kStages * ledger::kCauses;
constexpr std::array<std::pair<absl::string_view, double>, 4> kUnits = {
    {{"ms", 1e-3}, {"s", 1}, {"m", 60}, {"h", 3600}}};

// A peer's word, for a message.
std::string Word(const std::string& word) { return ToValidUtf8(word.substr(0, 32)); }

absl::StatusOr<Duration> ToTime(absl::string_view what, double seconds) {
  if (seconds >= 0 && seconds <= ledger::kMaxLedgerTime.seconds())
    return Duration::FromSeconds(seconds);
  return absl::InvalidArgumentError(absl::StrCat("ledger: ", what, " is ", seconds, " s"));
}

absl::StatusOr<std::vector<LedgerCell>> ToCells(
    const google::protobuf::RepeatedPtrField<v1::LedgerEntry>& entries) {
  if (entries.size() > kMaxEntries) {
    return absl::InvalidArgumentError(
        absl::StrCat("ledger: ", entries.size(), " entries; a device has at most ", kMaxEntries));
  }
  std::vector<LedgerCell> cells;
  for (const v1::LedgerEntry& entry : entries) {
    std::optional<LedgerCell> cell = ledger::CellOf(entry.stage(), entry.state(), entry.cause());
    if (!cell.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat("ledger: an entry of stage '", Word(entry.stage()), "', state '",
                       Word(entry.state()), "', cause '", Word(entry.cause()), "'"));
    }
    ASSIGN_OR_RETURN(cell->time, ToTime(ledger::ToString(cell->cause), entry.seconds()));
    cells.push_back(*cell);
  }
  return cells;
}

}  // namespace

absl::StatusOr<Duration> ParseWindow(absl::string_view text) {
  absl::string_view number = text;
  double unit = 1, seconds = 0;
  const size_t digits = text.find_last_of("0123456789.");
  if (digits != absl::string_view::npos) {
    number = text.substr(0, digits + 1);
    const absl::string_view word = text.substr(digits + 1);
    bool known = word.empty();
    for (const auto& [name, factor] : kUnits) {
      if (word != name) continue;
      unit = factor;
      known = true;
    }
    if (!known) number = "";
  }
  if (!absl::SimpleAtod(number, &seconds) ||
      !(seconds * unit > 0 && seconds * unit <= kMaxWindow.seconds())) {
    return absl::InvalidArgumentError(absl::StrCat("window: '", text, "' is no time in (0 s, ",
                                                   kMaxWindow.seconds(),
                                                   " s], such as 60s, 5m or 1h"));
  }
  return Duration::FromSeconds(seconds * unit);
}

absl::Status CheckWindow(Duration window) {
  if (window > Duration() && window <= kMaxWindow) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("window_seconds: ", window.seconds(),
                                                 " is not in (0, ", kMaxWindow.seconds(), "]"));
}

absl::StatusOr<ledger::LedgerReport> ToLedgerReport(const v1::Heartbeat& heartbeat) {
  ledger::LedgerReport report;
  ASSIGN_OR_RETURN(report.ledger.cells, ToCells(heartbeat.ledger()));
  ASSIGN_OR_RETURN(report.ledger.elapsed, ToTime("elapsed", heartbeat.elapsed_seconds()));
  report.tokens = {heartbeat.prompts_total(), heartbeat.prompt_tokens_total(),
                   heartbeat.tokens_total()};
  return report;
}

void ToProto(const LedgerCell& cell, v1::LedgerEntry* out) {
  out->set_stage(ledger::ToString(cell.stage));
  out->set_state(ledger::ToString(cell.state));
  if (cell.cause != ledger::Cause::kNone) out->set_cause(ledger::ToString(cell.cause));
  out->set_seconds(cell.time.seconds());
}

void ToProto(const ledger::DeviceAccount& account, v1::DeviceAccount* out) {
  out->set_worker_id(account.worker);
  out->set_pool(account.pool);
  out->set_memory_class(account.memory_class == MemoryClass::kSram ? v1::MEMORY_CLASS_SRAM
                                                                   : v1::MEMORY_CLASS_HBM);
  out->set_device(account.device);
  out->set_time_scale(account.time_scale);
  out->set_lost(account.lost);
  out->set_wall_seconds(account.wall.seconds());
  out->set_elapsed_seconds(account.elapsed.seconds());
  for (const LedgerCell& cell : account.cells) ToProto(cell, out->add_ledger());
  out->set_prompts(account.tokens.prompts);
  out->set_tokens_in(account.tokens.tokens_in);
  out->set_tokens_out(account.tokens.tokens_out);
  ToProto(account.price.dollars_per_hour, out->mutable_dollars_per_hour());
  ToProto(account.price.watts, out->mutable_watts());
  for (const ledger::Input& input : account.price.inputs) {
    v1::NamedFigure& named = *out->add_price_inputs();
    named.set_name(input.name);
    ToProto(input.figure, named.mutable_figure());
  }
  out->set_model_shape(account.model_shape);
  out->set_weights(account.weights);
}

absl::StatusOr<ledger::DeviceAccount> ToAccount(const v1::DeviceAccount& in) {
  ledger::DeviceAccount out;
  out.worker = in.worker_id();
  out.pool = in.pool();
  out.memory_class =
      in.memory_class() == v1::MEMORY_CLASS_SRAM ? MemoryClass::kSram : MemoryClass::kHbm;
  out.device = in.device();
  if (!(in.time_scale() >= 0 && in.time_scale() <= kMaxTimeScale)) {
    return absl::InvalidArgumentError(
        absl::StrCat("device ", in.worker_id(), ": time_scale is ", in.time_scale()));
  }
  out.time_scale = in.time_scale();
  out.lost = in.lost();
  ASSIGN_OR_RETURN(out.wall, ToTime("wall", in.wall_seconds()));
  ASSIGN_OR_RETURN(out.elapsed, ToTime("elapsed", in.elapsed_seconds()));
  ASSIGN_OR_RETURN(out.cells, ToCells(in.ledger()));
  out.tokens = {in.prompts(), in.tokens_in(), in.tokens_out()};
  ASSIGN_OR_RETURN(out.price.dollars_per_hour, ToFigure("dollars_per_hour", in.dollars_per_hour()));
  ASSIGN_OR_RETURN(out.price.watts, ToFigure("watts", in.watts()));
  for (const v1::NamedFigure& named : in.price_inputs()) {
    ASSIGN_OR_RETURN(model::Figure figure, ToFigure(named.name(), named.figure()));
    out.price.inputs.push_back({named.name(), std::move(figure)});
  }
  out.model_shape = in.model_shape();
  out.weights = in.weights();
  return out;
}

}  // namespace tandem
