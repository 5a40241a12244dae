#include "scheduler/model/figure.h"

#include <absl/strings/str_cat.h>
#include <yaml-cpp/yaml.h>

#include <array>
#include <utility>

namespace tandem::model {
namespace {

constexpr std::array<std::pair<Mark, absl::string_view>, 4> kMarks = {{
    {Mark::kMeasured, "measured"},
    {Mark::kFitted, "fitted"},
    {Mark::kAssumed, "assumed"},
    {Mark::kStated, "stated"},
}};

void RequireMark(YamlReader& reader, Mark& mark) {
  std::string word;
  reader.Require("mark", word);
  for (const auto& [candidate, name] : kMarks) {
    if (name == word) {
      mark = candidate;
      return;
    }
  }
  reader.Refuse("mark",
                absl::StrCat("'", word, "' is none of measured, fitted, assumed and stated"));
}

}  // namespace

absl::string_view MarkName(Mark mark) {
  for (const auto& [candidate, name] : kMarks) {
    if (candidate == mark) return name;
  }
  if (mark == Mark::kWhatIf) return "what-if";
  return "unknown";
}

void RequireText(YamlReader& reader, const std::string& key, std::string& text) {
  reader.Require(key, text);
  if (text.empty()) reader.Refuse(key, "is empty");
}

void RequireFigure(YamlReader& reader, const std::string& key, Range range, Figure& figure,
                   IfUnknown unknown) {
  if (!reader.Needs(key)) return;
  reader.GetMapping(key, [&](const YAML::Node& node) {
    YamlReader fields = reader.Below(node, key);
    std::string text;
    fields.Require("value", text);
    if (text == "unknown" && unknown == IfUnknown::kRefuse) {
      fields.Refuse("value", "must be known: assume a value, and say why");
    } else if (text != "unknown") {
      fields.Get("value", figure.value, range.min, range.max);
      RequireMark(fields, figure.mark);
      fields.Get("error", figure.error, 0, 100);
      if (figure.error > 0 && figure.mark != Mark::kFitted)
        fields.Refuse("error", "stands with fitted values only");
    }
    RequireText(fields, "source", figure.source);
    return fields.Finish();
  });
}

}  // namespace tandem::model
