#include "services/ctl/conformance_report.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <boost/json.hpp>

#include "services/ctl/table.h"
#include "services/ctl/terminal_text.h"

namespace tandem::ctl {
namespace {

namespace json = boost::json;

std::string Word(const json::object& object, const char* key) {
  return EscapeForTerminal(json::value_to<std::string>(object.at(key)));
}

}  // namespace

size_t ConformanceReport::failed() const {
  return static_cast<size_t>(std::count_if(cases.begin(), cases.end(),
                                           [](const ConformanceCase& c) { return !c.passed; }));
}

absl::StatusOr<ConformanceReport> ReadConformanceReport(absl::string_view text) {
  try {
    const json::value value = json::parse({text.data(), text.size()});
    const json::object& object = value.as_object();
    ConformanceReport report{
        Word(object, "address"), Word(object, "model"), Word(object, "reference"), {}};
    for (const json::value& entry : object.at("cases").as_array()) {
      const json::object& one = entry.as_object();
      report.cases.push_back({Word(one, "name"), one.at("passed").as_bool(), Word(one, "what"),
                              Word(one, "first_difference")});
    }
    return report;
  } catch (const std::exception& error) {  // Boost.JSON's
    return absl::InvalidArgumentError(
        absl::StrCat("not what a conformance run writes: ", error.what()));
  }
}

std::string ConformanceText(const ConformanceReport& report) {
  TextTable table({{"case"}, {"verdict"}, {"what"}});
  for (const ConformanceCase& one : report.cases) {
    table.AddRow({one.name, one.passed ? "pass" : "FAIL", one.what});
    if (!one.first_difference.empty())
      table.AddNote(absl::StrCat("first difference: ", one.first_difference));
  }
  return absl::StrCat(table.ToString(), "\n", report.cases.size() - report.failed(), " of ",
                      report.cases.size(), " cases passed: ", report.model, " at ", report.address,
                      ", against ", report.reference, "\n");
}

}  // namespace tandem::ctl
