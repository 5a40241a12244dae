#include "scheduler/ledger/history.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "scheduler/base/status.h"

namespace tandem::ledger {
namespace {

constexpr size_t kBusyCells = 3;

// Where a sample keeps a cell: busy ones by stage, the others by cause.
size_t IndexOf(const LedgerCell& cell) {
  if (cell.state == LedgerState::kBusy) return static_cast<size_t>(cell.stage);
  return kBusyCells + static_cast<size_t>(cell.cause) - 1;
}

LedgerCell CellAt(size_t index, LedgerStage own_stage) {
  if (index < kBusyCells)
    return {static_cast<LedgerStage>(index), LedgerState::kBusy, Cause::kNone, Duration()};
  const auto cause = static_cast<Cause>(index - kBusyCells + 1);
  return {own_stage, StateOf(cause), cause, Duration()};
}

// A worker's time scale may be anything.
Duration Bounded(double seconds) {
  return Duration::FromSeconds(std::clamp(seconds, 0.0, kMaxLedgerTime.seconds()));
}

absl::Status CheckSum(Duration sum, Duration elapsed) {
  const double apart = std::abs((sum - elapsed).seconds());
  if (apart <= kLedgerTolerance * elapsed.seconds() + kLedgerSlack.seconds())
    return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("ledger: the states sum to ", sum.seconds(),
                                                 " s of ", elapsed.seconds(), " s elapsed"));
}

absl::Status WentBack(absl::string_view what, double from, double to) {
  return absl::InvalidArgumentError(absl::StrCat("ledger: ", what, " went back from ", from, " to ",
                                                 to, " within an incarnation"));
}

absl::Status CheckForward(const LedgerReport& before, const LedgerReport& after) {
  const auto number = [](uint64_t n) { return static_cast<double>(n); };
  if (after.ledger.elapsed < before.ledger.elapsed)
    return WentBack("elapsed", before.ledger.elapsed.seconds(), after.ledger.elapsed.seconds());
  const TokenCounts &from = before.tokens, &to = after.tokens;
  if (to.prompts < from.prompts)
    return WentBack("prompts", number(from.prompts), number(to.prompts));
  if (to.tokens_in < from.tokens_in)
    return WentBack("prompt tokens", number(from.tokens_in), number(to.tokens_in));
  if (to.tokens_out < from.tokens_out)
    return WentBack("tokens", number(from.tokens_out), number(to.tokens_out));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::array<Duration, DeviceHistory::kCells>> DeviceHistory::ToCells(
    const LedgerSnapshot& ledger) const {
  std::array<Duration, kCells> cells;
  Duration sum;
  for (const LedgerCell& cell : ledger.cells) {
    const bool busy = cell.state == LedgerState::kBusy;
    const auto refuse = [&](absl::string_view why) {
      return absl::InvalidArgumentError(absl::StrCat("ledger: ", ToString(cell.stage), " ",
                                                     ToString(cell.state), " ",
                                                     ToString(cell.cause), " ", why));
    };
    if (StateOf(cell.cause) != cell.state || (busy && cell.stage == LedgerStage::kShared) ||
        (!busy && cell.stage != own_stage_)) {
      return refuse("is no cell of this device");
    }
    // A single one past the most that counts would overflow their sum.
    if (cell.time < Duration() || cell.time > kMaxLedgerTime)
      return refuse(absl::StrCat("is ", cell.time.seconds(), " s"));
    Duration& slot = cells[IndexOf(cell)];
    if (slot > Duration()) return refuse("stands there twice");
    slot = cell.time;
    sum += cell.time;
  }
  if (ledger.elapsed < Duration() || ledger.elapsed > kMaxLedgerTime)
    return absl::InvalidArgumentError(
        absl::StrCat("ledger: ", ledger.elapsed.seconds(), " s elapsed"));
  RETURN_IF_ERROR(CheckSum(sum, ledger.elapsed));
  return cells;
}

LedgerReport DeviceHistory::ToReport(const Sample& sample) const {
  LedgerReport report;
  report.tokens = sample.tokens;
  report.ledger.elapsed = sample.elapsed;
  for (size_t i = 0; i < kCells; i++) {
    if (sample.cells[i] == Duration()) continue;
    report.ledger.cells.push_back(CellAt(i, own_stage_));
    report.ledger.cells.back().time = sample.cells[i];
  }
  return report;
}

absl::Status DeviceHistory::Add(uint64_t incarnation, const LedgerReport& report, Instant now) {
  Sample sample{.at = now,
                .incarnation = incarnation,
                .elapsed = report.ledger.elapsed,
                .cells = {},
                .tokens = report.tokens};
  ASSIGN_OR_RETURN(sample.cells, ToCells(report.ledger));
  const bool goes_on = !samples_.empty() && samples_.back().incarnation == incarnation;
  if (goes_on) RETURN_IF_ERROR(CheckForward(ToReport(samples_.back()), report));
  if (!goes_on && !samples_.empty()) samples_.back().final_word = gone_ == Gone::kForGood;
  gone_ = Gone::kNo;
  const auto second = [](Instant at) { return at.nanoseconds() / kSamplePeriod.nanoseconds(); };
  if (goes_on && second(samples_.back().at) == second(now)) {
    samples_.back() = sample;
    return absl::OkStatus();
  }
  samples_.push_back(sample);
  if (samples_.size() > kMaxSamples) samples_.pop_front();
  return absl::OkStatus();
}

Duration DeviceHistory::Machine(Duration device) const {
  return Bounded(device.seconds() * (time_scale_ > 0 ? time_scale_ : 1));
}

Duration DeviceHistory::Device(Duration machine) const {
  return Bounded(machine.seconds() / (time_scale_ > 0 ? time_scale_ : 1));
}

void DeviceHistory::AddRun(size_t first, size_t last, Instant from, WindowAccount& account) const {
  const Sample& end = samples_[last - 1];
  if (end.at <= from) return;
  const Sample* base = nullptr;
  for (size_t i = first; i < last && samples_[i].at <= from; i++) base = &samples_[i];
  // It may have started within the window, and then all that it counts does; or the history has
  // nothing from before.
  const Instant opened = OpenedAt(samples_[first]);
  if (base == nullptr && opened < from) base = &samples_[first];
  const LedgerReport later = ToReport(end);
  const LedgerReport earlier = base != nullptr ? ToReport(*base) : LedgerReport();
  const LedgerSnapshot difference = Difference(later.ledger, earlier.ledger);
  AddCells(difference.cells, account.cells);
  account.elapsed += difference.elapsed;
  account.wall += end.at - (base != nullptr ? base->at : opened);
  account.tokens += {later.tokens.prompts - earlier.tokens.prompts,
                     later.tokens.tokens_in - earlier.tokens.tokens_in,
                     later.tokens.tokens_out - earlier.tokens.tokens_out};
}

void DeviceHistory::AddDown(Duration machine, WindowAccount& account) const {
  if (machine <= Duration()) return;
  account.wall += machine;
  account.elapsed += Device(machine);
  AddCells({{own_stage_, LedgerState::kIdle, Cause::kDown, Device(machine)}}, account.cells);
}

std::optional<WindowAccount> DeviceHistory::Over(Instant from, Instant now) const {
  WindowAccount account;
  for (size_t first = 0, last = 0; first < samples_.size(); first = last) {
    while (last < samples_.size() && samples_[last].incarnation == samples_[first].incarnation)
      last++;
    if (first > 0 && !samples_[first - 1].final_word)
      AddDown(OpenedAt(samples_[first]) - std::max(samples_[first - 1].at, from), account);
    AddRun(first, last, from, account);
  }
  if (lost() && !samples_.empty()) AddDown(now - std::max(samples_.back().at, from), account);
  if (account.wall <= Duration()) return std::nullopt;
  return account;
}

std::optional<Instant> DeviceHistory::last_sample() const {
  if (samples_.empty()) return std::nullopt;
  return samples_.back().at;
}

}  // namespace tandem::ledger
