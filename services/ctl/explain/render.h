#pragma once

// An ExplainReport for three readers. What the request's text holds is escaped in each. Pure.

#include <boost/json/value.hpp>

#include <optional>
#include <string>

#include "services/ctl/explain/report.h"

namespace tandem::ctl {

// Lines of kTerminalColumns at most, ended by a line break. Layers that are alike are shown once;
// `open_layer` beside them with its own times, and must be one of the report's.
std::string ExplainText(const ExplainReport& report, std::optional<uint32_t> open_layer);

// Every operation of every layer.
boost::json::object ExplainJson(const ExplainReport& report);

// One page that needs nothing else: its style, its script and the report are in it.
std::string ExplainHtml(const ExplainReport& report);

}  // namespace tandem::ctl
