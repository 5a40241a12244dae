#include "services/ctl/top/frame.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/str_join.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "scheduler/model/quantity.h"
#include "services/ctl/cost_report.h"
#include "services/ctl/terminal_text.h"

namespace tandem::ctl {
namespace {

using model::FormatQuantity;
using model::Unit;

constexpr size_t kAnything = 4096;  // columns of a text that is clipped later
constexpr size_t kMinBar = 10, kMaxBar = 60;
constexpr double kLeastShare = 0.0005;  // of a cause, to be named

size_t WidthOf(absl::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

// Text from outside.
std::string Name(absl::string_view text, size_t width = kAnything) {
  return NameForTerminal(text, width);
}

// `text` in exactly `width` columns.
std::string Padded(std::string text, size_t width, bool right = false) {
  const size_t have = WidthOf(text);
  if (have >= width) return text;
  const std::string blanks(width - have, ' ');
  return right ? blanks + text : text + blanks;
}

std::string Percent(double share) { return absl::StrFormat("%.1f%%", 100 * share); }

std::string Number(double value) {
  return value >= 1000 ? absl::StrFormat("%.0f", value) : absl::StrFormat("%.3g", value);
}

std::string MoneyIfKnown(const std::optional<double>& dollars) {
  return dollars.has_value() ? Money(*dollars) : "-";
}

std::string Time(const std::optional<double>& seconds) {
  return seconds.has_value() ? FormatQuantity(*seconds, Unit::kSeconds) : "-";
}

// "<= 40 ms", "> 80 s".
std::string Bound(const std::optional<double>& seconds) {
  if (!seconds.has_value()) return "-";
  return std::isinf(*seconds) ? "past the last bucket" : absl::StrCat("<= ", Time(seconds));
}

// Cuts what is past `width` columns, between characters.
TopLine Clip(const TopLine& line, size_t width) {
  TopLine out;
  size_t left = width;
  for (const TopSpan& span : line) {
    if (left == 0) break;
    const size_t columns = WidthOf(span.text);
    if (columns <= left) {
      out.push_back(span);
      left -= columns;
      continue;
    }
    std::string kept;
    for (const char c : span.text) {
      if ((c & 0xC0) != 0x80 && left-- == 0) break;
      kept += c;
    }
    out.push_back({std::move(kept), span.style});
    break;
  }
  return out;
}

class Frame {
 public:
  Frame(const TopSnapshot& snapshot, const FrameSize& size) : top_(snapshot), size_(size) {}

  std::vector<TopLine> Draw() {
    AddHead();
    AddFigures();
    const std::vector<TopLine> keys = Keys();
    Blank();
    AddPools();
    const size_t used = lines_.size() + keys.size();
    // Workers below their pools, as far as there is room for a heading and at least one.
    if (used + 3 <= size_.height && !top_.workers.empty()) AddWorkers(size_.height - used - 2);
    if (lines_.size() + keys.size() > size_.height)
      lines_.resize(size_.height > keys.size() ? size_.height - keys.size() : 0);
    if (lines_.size() + keys.size() <= size_.height)
      lines_.insert(lines_.end(), keys.begin(), keys.end());
    for (TopLine& line : lines_) line = Clip(line, size_.width);
    return std::move(lines_);
  }

 private:
  void Add(TopLine line) { lines_.push_back(std::move(line)); }
  void Blank() { Add({}); }

  std::vector<TopLine> Keys() const {
    // Where even the figures have no room, the keys have none.
    if (!size_.keys || size_.height < 6) return {};
    return {{{"q quit", TopStyle::kDim}}};
  }

  void AddHead() {
    Add({{"tandem top ", TopStyle::kTitle},
         {absl::StrCat(Name(top_.router_id.empty() ? "router" : top_.router_id, 24), " at ",
                       Name(top_.address, 40)),
          TopStyle::kPlain},
         {top_.router_id.empty() ? ""
          : top_.ready           ? "  ready"
                                 : "  not ready",
          top_.ready ? TopStyle::kBusy : TopStyle::kWarn}});
    if (!top_.lost.empty()) {
      Add({{absl::StrFormat("NO ANSWER for %.0f s, trying on; below is its last word. ",
                            top_.lost_seconds),
            TopStyle::kWarn}});
      Add({{Name(top_.lost), TopStyle::kWarn}});
    } else if (!top_.ready) {
      Add({{Name(top_.reason), TopStyle::kWarn}});
    }
    if (top_.time_scale > 0) {
      Add({{absl::StrFormat("emulated: times, rates and dollars are the devices', whose second "
                            "takes %g s here",
                            top_.time_scale),
            TopStyle::kDim}});
    }
  }

  void AddPair(TopLine& line, const std::string& name, const std::string& value) const {
    line.push_back({absl::StrCat(line.empty() ? "" : "   ", name, " "), TopStyle::kDim});
    line.push_back({value, TopStyle::kBold});
  }

  // `value` below each other where two do not fit beside each other.
  void AddPairs(const std::vector<std::pair<std::string, std::string>>& pairs) {
    TopLine line;
    for (const auto& [name, value] : pairs) {
      const size_t more = name.size() + 1 + WidthOf(value) + (line.empty() ? 0 : 3);
      if (!line.empty() && Columns(line) + more > size_.width) Add(std::exchange(line, {}));
      AddPair(line, name, value);
    }
    Add(std::move(line));
  }

  void AddFigures() {
    AddPairs({{"queued", absl::StrCat(top_.queued_requests)},
              {"sequences", absl::StrCat(top_.live_sequences)},
              {"tok/s out", Number(top_.tokens_out_per_s)},
              {"in", Number(top_.tokens_in_per_s)},
              {"over", absl::StrFormat("%.0f s", top_.window_seconds)}});
    AddLatency();
    if (!top_.account_error.empty()) {
      Add({{Name(top_.account_error), TopStyle::kWarn}});
    } else if (!top_.unpriced.empty()) {
      std::vector<std::string> names;
      for (const std::string& device : top_.unpriced) names.push_back(Name(device, 30));
      Add({{"$/Mtok ", TopStyle::kDim},
           {absl::StrCat("unknown: no price of ", absl::StrJoin(names, ", ")), TopStyle::kPlain}});
    } else {
      AddPairs({{"$/Mtok in", MoneyIfKnown(top_.per_mtok_in)},
                {"out", MoneyIfKnown(top_.per_mtok_out)},
                {"total", MoneyIfKnown(top_.per_mtok_total)},
                {"$/h", MoneyIfKnown(top_.dollars_per_hour)},
                {"prices", top_.mark}});
    }
  }

  void AddLatency() {
    const LatencyView& view = top_.latency;
    const std::string of = view.window_seconds > 0
                               ? absl::StrFormat("in the last %.0f s", view.window_seconds)
                               : "since the gateways started";
    if (!view.why_not.empty()) {
      Add({{"TTFT, TPOT ", TopStyle::kDim}, {Name(view.why_not), TopStyle::kPlain}});
    } else if (!view.ttft_mean.has_value()) {
      Add({{"TTFT, TPOT ", TopStyle::kDim},
           {absl::StrCat("no request finished ", of), TopStyle::kPlain}});
    } else {
      AddPairs({{"TTFT mean", Time(view.ttft_mean)},
                {"p99", Bound(view.ttft_p99)},
                {"TPOT mean", Time(view.tpot_mean)},
                {"gap p99", Bound(view.itl_p99)},
                {"finished", absl::StrCat(Number(view.requests), " ", of)}});
      if (view.gateways_silent > 0) {
        Add({{absl::StrCat(view.gateways_silent, " of ", view.gateways, " gateways do not answer"),
              TopStyle::kWarn}});
      }
    }
  }

  // Busy, stall and idle side by side.
  TopLine Bar(const CauseShares& shares, size_t columns) const {
    const double busy = BusyShare(shares), stall = StallShare(shares), idle = IdleShare(shares);
    if (busy + stall + idle <= 0) return {{std::string(columns, ' ')}};
    const auto at = [&](double share) {
      return static_cast<size_t>(
          std::lround(std::clamp(share, 0.0, 1.0) * static_cast<double>(columns)));
    };
    const size_t busy_end = at(busy), stall_end = std::max(busy_end, at(busy + stall));
    const auto run = [](const char* piece, size_t count) {
      std::string text;
      for (size_t i = 0; i < count; i++) text += piece;
      return text;
    };
    return {{run(size_.unicode ? "\u2588" : "#", busy_end), TopStyle::kBusy},
            {run(size_.unicode ? "\u2592" : "=", stall_end - busy_end), TopStyle::kStall},
            {run(size_.unicode ? "\u00b7" : ".", columns - stall_end), TopStyle::kIdle}};
  }

  static std::string KvText(const TopRow& row) {
    if (row.kv_blocks == 0) return "-";
    return Percent(static_cast<double>(row.kv_blocks_used) / static_cast<double>(row.kv_blocks));
  }

  struct Widths {
    size_t name = 0, bar = kMinBar;
    static constexpr size_t kBusy = 7, kStall = 7, kIdle = 7, kSeqs = 6, kKv = 7, kRate = 8;
  };
  // The columns of figures have a fixed width; names and bars share the rest.
  Widths WidthsOf(const std::vector<TopRow>& rows) const {
    Widths widths;
    for (const TopRow& row : rows) widths.name = std::max(widths.name, Name(row.name).size());
    const size_t figures = Widths::kBusy + Widths::kStall + Widths::kIdle + Widths::kSeqs +
                           Widths::kKv + Widths::kRate;
    const size_t left = size_.width > figures + 1 ? size_.width - figures - 1 : 0;
    widths.name = std::clamp<size_t>(widths.name, 6, std::max<size_t>(6, left / 2));
    const size_t bar = left > widths.name ? left - widths.name : 0;
    widths.bar = std::clamp(bar, kMinBar, kMaxBar);
    return widths;
  }

  void AddHeading(const char* name, const Widths& widths) {
    const char* const bar = widths.bar < 18 ? "" : "busy, stall, idle";
    Add({{absl::StrCat(Padded(name, widths.name + 1), Padded(bar, widths.bar),
                       Padded("busy", Widths::kBusy, true), Padded("stall", Widths::kStall, true),
                       Padded("idle", Widths::kIdle, true), Padded("seqs", Widths::kSeqs, true),
                       Padded("KV", Widths::kKv, true), Padded("tok/s", Widths::kRate, true)),
          TopStyle::kDim}});
  }

  // A worker that is not ready says so in its bar's place; a pool has a line for that.
  TopLine RowLine(const TopRow& row, const Widths& widths, bool bold) const {
    TopLine line = {{Padded(Name(row.name, widths.name), widths.name + 1),
                     bold ? TopStyle::kBold : TopStyle::kPlain}};
    if (!row.state.empty() && !bold && row.state != "ready") {
      line.push_back({Padded(Name(row.state, widths.bar), widths.bar), TopStyle::kWarn});
    } else {
      for (TopSpan& span : Bar(row.shares, widths.bar)) line.push_back(std::move(span));
    }
    line.push_back({Padded(Percent(BusyShare(row.shares)), Widths::kBusy, true), TopStyle::kBusy});
    line.push_back(
        {Padded(Percent(StallShare(row.shares)), Widths::kStall, true), TopStyle::kStall});
    line.push_back({Padded(Percent(IdleShare(row.shares)), Widths::kIdle, true), TopStyle::kIdle});
    line.push_back({absl::StrCat(
        Padded(absl::StrCat(row.sequences), Widths::kSeqs, true),
        Padded(KvText(row), Widths::kKv, true),
        Padded(row.tokens_per_s > 0 ? Number(row.tokens_per_s) : "-", Widths::kRate, true))});
    return line;
  }

  // "handoff 12.1%, starved 40.0%", the longest first.
  static std::string Waits(const CauseShares& shares) {
    std::vector<std::pair<double, int>> waits;
    for (int cause = 1; cause < ledger::kCauses; cause++)
      waits.emplace_back(-shares[static_cast<size_t>(cause)], cause);
    std::sort(waits.begin(), waits.end());
    std::vector<std::string> words;
    for (const auto& [less, cause] : waits) {
      if (-less < kLeastShare) break;
      words.push_back(
          absl::StrCat(ledger::ToString(static_cast<ledger::Cause>(cause)), " ", Percent(-less)));
    }
    return words.empty() ? "none" : absl::StrJoin(words, ", ");
  }

  void AddPools() {
    if (top_.pools.empty()) return Add({{"no workers yet", TopStyle::kWarn}});
    const Widths widths = WidthsOf(top_.pools);
    AddHeading("POOL", widths);
    for (const TopRow& pool : top_.pools) {
      Add(RowLine(pool, widths, /*bold=*/true));
      Add({{absl::StrCat("  ", Name(pool.stages), " on ", pool.workers, " x ",
                         Name(pool.device, 28), " (", pool.memory_class, "), ", pool.state),
            TopStyle::kDim}});
      Add({{"  waits: ", TopStyle::kDim}, {Waits(pool.shares), TopStyle::kPlain}});
    }
  }

  // At most so many lines below the heading and the blank above it.
  void AddWorkers(size_t room) {
    const Widths widths = WidthsOf(top_.workers);
    Blank();
    AddHeading("WORKER", widths);
    const bool all = top_.workers.size() <= room;
    const size_t shown = all ? top_.workers.size() : room - 1;
    for (size_t i = 0; i < shown; i++) {
      const TopRow& worker = top_.workers[i];
      Add(RowLine(worker, widths, /*bold=*/false));
    }
    if (!all)
      Add({{absl::StrCat("... and ", top_.workers.size() - shown, " more"), TopStyle::kDim}});
  }

  const TopSnapshot& top_;
  const FrameSize size_;
  std::vector<TopLine> lines_;
};

}  // namespace

std::string PlainText(const TopLine& line) {
  std::string text;
  for (const TopSpan& span : line) text += span.text;
  return text;
}

size_t Columns(const TopLine& line) {
  size_t columns = 0;
  for (const TopSpan& span : line) columns += WidthOf(span.text);
  return columns;
}

std::vector<TopLine> TopFrame(const TopSnapshot& snapshot, const FrameSize& size) {
  return Frame(snapshot, size).Draw();
}

}  // namespace tandem::ctl
