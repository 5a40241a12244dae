#pragma once

// The catalog's figures as people and programs read them, with the mark of how well each is known.

#include <absl/types/span.h>
#include <boost/json/value.hpp>

#include <string>

#include "scheduler/model/figures.h"

namespace tandem::ctl {

// "3.35 TB/s", "0.81 +-3 %" with the standard error of a fit, or "unknown".
std::string FigureText(const model::NamedFigure& figure);

// {name, value, unit, mark, source, error}; the error is a share of the value, null where it is not
// known; the value is null where it is unknown, its unit one of B, B/s,
// FLOP/s, s, W, $/h and "".
boost::json::value FigureJson(const model::NamedFigure& figure);

// How many are measured, fitted, stated, assumed and unknown: "0/12/5/1/2".
inline constexpr const char* kMarkCountsLegend =
    "marks: figures that are measured/fitted/stated/assumed/unknown";
std::string MarkCounts(absl::Span<const model::NamedFigure> figures);

// Which ones: "stated: memory_bytes, peak_flops; unknown: dollars_per_hour".
std::string MarkLegend(absl::Span<const model::NamedFigure> figures);

// "B/s" of Unit::kBytesPerSecond: of values in JSON.
const char* UnitName(model::Unit unit);

}  // namespace tandem::ctl
