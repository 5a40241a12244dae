#include "services/ctl/top/latency.h"

#include <absl/strings/match.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_split.h>
#include <absl/strings/strip.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace tandem::ctl {
namespace {

constexpr size_t kMaxBuckets = 1024;  // of one histogram; further ones are passed over
constexpr double kMaxValue = 1e15;    // seconds or observations; sums of them stay numbers

std::optional<double> Number(absl::string_view text) {
  double value = 0;
  // Not the other way round: NaN compares false.
  if (!absl::SimpleAtod(text, &value) || !(value >= 0 && value <= kMaxValue)) return std::nullopt;
  return value;
}

// The value of label `le` in {a="b",le="0.1"}; our gateways' label values hold no quotes.
std::optional<double> BoundOf(absl::string_view labels) {
  const size_t at = labels.find("le=\"");
  if (at == absl::string_view::npos || (at > 0 && labels[at - 1] != ',' && labels[at - 1] != '{'))
    return std::nullopt;
  const absl::string_view rest = labels.substr(at + 4);
  const absl::string_view bound = rest.substr(0, rest.find('"'));
  return bound == "+Inf" ? std::numeric_limits<double>::infinity() : Number(bound);
}

// `line` begins with the histogram's name.
void ReadLine(absl::string_view line, HistogramView& out) {
  const size_t value_at = line.rfind(' ');
  if (value_at == absl::string_view::npos) return;
  const std::optional<double> value = Number(line.substr(value_at + 1));
  if (!value.has_value()) return;
  if (absl::StartsWith(line, "_sum")) {
    out.sum += *value;
  } else if (absl::StartsWith(line, "_count")) {
    out.count += *value;
  } else if (absl::StartsWith(line, "_bucket{")) {
    const std::optional<double> bound = BoundOf(line.substr(7, value_at - 7));
    if (bound.has_value() && (out.below.size() < kMaxBuckets || out.below.contains(*bound)))
      out.below[*bound] += *value;
  }
}

std::optional<double> Scaled(const std::optional<double>& seconds, double scale) {
  if (!seconds.has_value()) return std::nullopt;
  return *seconds / scale;
}

}  // namespace

void HistogramView::Add(const HistogramView& other) {
  for (const auto& [bound, observations] : other.below) below[bound] += observations;
  sum += other.sum;
  count += other.count;
}

HistogramView HistogramView::Since(const HistogramView& earlier) const {
  if (count < earlier.count) return *this;
  HistogramView since = *this;
  since.sum = std::max(0.0, sum - earlier.sum);
  since.count -= earlier.count;
  for (auto& [bound, observations] : since.below) {
    const auto before = earlier.below.find(bound);
    if (before != earlier.below.end()) observations = std::max(0.0, observations - before->second);
  }
  return since;
}

std::optional<double> HistogramView::Mean() const {
  if (count < 1) return std::nullopt;
  return sum / count;
}

std::optional<double> HistogramView::Below(double quantile) const {
  if (count < 1) return std::nullopt;
  for (const auto& [bound, observations] : below) {
    if (observations >= quantile * count) return bound;
  }
  return std::numeric_limits<double>::infinity();
}

GatewayScrape ReadGatewayPage(absl::string_view page) {
  GatewayScrape scrape;
  for (absl::string_view line : absl::StrSplit(page, '\n')) {
    if (absl::ConsumePrefix(&line, "tandem_gateway_ttft_seconds")) {
      ReadLine(line, scrape.ttft);
    } else if (absl::ConsumePrefix(&line, "tandem_gateway_itl_seconds")) {
      ReadLine(line, scrape.itl);
    } else if (absl::StartsWith(line, "tandem_gateway_time_scale")) {
      scrape.device_time = true;  // a gateway that tells its scale has divided by it
    }
  }
  return scrape;
}

LatencyView ViewLatency(const GatewayScrape& scrape, double window_seconds, double time_scale) {
  const double scale = time_scale > 0 && !scrape.device_time ? time_scale : 1;
  LatencyView view;
  view.window_seconds = window_seconds;
  view.requests = scrape.ttft.count;
  view.ttft_mean = Scaled(scrape.ttft.Mean(), scale);
  view.ttft_p50 = Scaled(scrape.ttft.Below(0.5), scale);
  view.ttft_p99 = Scaled(scrape.ttft.Below(0.99), scale);
  view.tpot_mean = Scaled(scrape.itl.Mean(), scale);
  view.itl_p50 = Scaled(scrape.itl.Below(0.5), scale);
  view.itl_p99 = Scaled(scrape.itl.Below(0.99), scale);
  return view;
}

void LatencyWindow::Add(const std::string& gateway, GatewayScrape scrape, Instant now) {
  std::deque<Page>& pages = pages_[gateway];
  pages.push_back({now, std::move(scrape)});
  // The first stays as old as the window: what came since then is what is asked for.
  while (pages.size() > 2 && now - pages[1].at >= window_) pages.pop_front();
}

void LatencyWindow::Keep(const std::set<std::string>& gateways) {
  std::erase_if(pages_, [&](const auto& each) { return !gateways.contains(each.first); });
}

LatencyView LatencyWindow::View(double time_scale) const {
  GatewayScrape all;
  double seconds = 0;
  for (const auto& [gateway, pages] : pages_) {
    const Page& first = pages.front();
    const Page& last = pages.back();
    const bool alone = pages.size() == 1;
    all.ttft.Add(alone ? last.scrape.ttft : last.scrape.ttft.Since(first.scrape.ttft));
    all.itl.Add(alone ? last.scrape.itl : last.scrape.itl.Since(first.scrape.itl));
    all.device_time = all.device_time || last.scrape.device_time;
    seconds = std::max(seconds, (last.at - first.at).seconds());
  }
  LatencyView view = ViewLatency(all, seconds, time_scale);
  view.gateways = static_cast<uint32_t>(pages_.size());
  return view;
}

}  // namespace tandem::ctl
