#include "services/ctl/figure_view.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/str_join.h>

#include <array>
#include <vector>

#include "scheduler/base/check.h"

namespace tandem::ctl {
namespace {

using model::Mark;
using model::NamedFigure;
using model::Unit;

// The best known first; what the user supposes stands before all.
constexpr std::array<Mark, 6> kMarks = {Mark::kWhatIf, Mark::kMeasured, Mark::kFitted,
                                        Mark::kStated, Mark::kAssumed,  Mark::kUnknown};

std::vector<std::string> NamesOf(absl::Span<const NamedFigure> figures, Mark mark) {
  std::vector<std::string> names;
  for (const NamedFigure& figure : figures) {
    if (figure.figure.mark == mark) names.push_back(figure.name);
  }
  return names;
}

}  // namespace

std::string FigureText(const NamedFigure& figure) {
  if (!figure.figure.known()) return "unknown";
  std::string text = model::FormatQuantity(figure.figure.value, figure.unit);
  if (figure.figure.error > 0)
    absl::StrAppend(&text, absl::StrFormat(" +-%.2g %%", 100 * figure.figure.error));
  return text;
}

const char* UnitName(Unit unit) {
  switch (unit) {
    case Unit::kNone:
      return "";
    case Unit::kBytes:
      return "B";
    case Unit::kBytesPerSecond:
      return "B/s";
    case Unit::kFlopCount:
      return "FLOP";
    case Unit::kFlops:
      return "FLOP/s";
    case Unit::kSeconds:
      return "s";
    case Unit::kWatts:
      return "W";
    case Unit::kDollarsPerHour:
      return "$/h";
    case Unit::kDollars:
      return "$";
  }
  TANDEM_CHECK(false);
}

boost::json::value FigureJson(const NamedFigure& figure) {
  boost::json::value value;
  if (figure.figure.known()) value = figure.figure.value;
  boost::json::value error;
  if (figure.figure.error > 0) error = figure.figure.error;
  return {{"name", figure.name},
          {"value", std::move(value)},
          {"unit", UnitName(figure.unit)},
          {"mark", std::string(model::MarkName(figure.figure.mark))},
          {"source", figure.figure.source},
          {"error", std::move(error)}};
}

std::string MarkCounts(absl::Span<const NamedFigure> figures) {
  const auto count = [&](Mark mark) { return NamesOf(figures, mark).size(); };
  return absl::StrCat(count(Mark::kMeasured), "/", count(Mark::kFitted), "/", count(Mark::kStated),
                      "/", count(Mark::kAssumed), "/", count(Mark::kUnknown));
}

std::string MarkLegend(absl::Span<const NamedFigure> figures) {
  std::vector<std::string> parts;
  for (const Mark mark : kMarks) {
    const std::vector<std::string> names = NamesOf(figures, mark);
    if (!names.empty())
      parts.push_back(absl::StrCat(model::MarkName(mark), ": ", absl::StrJoin(names, ", ")));
  }
  return absl::StrJoin(parts, "; ");
}

}  // namespace tandem::ctl
