#pragma once

// A figure of the catalog: a number, where it comes from, and how well it is known.

#include <absl/strings/string_view.h>

#include <string>

#include "scheduler/model/yaml_reader.h"

namespace tandem::model {

// What a reader may think of a figure.
enum class Mark {
  kUnknown,   // looked for and not found; there is no value
  kMeasured,  // somebody measured it
  kFitted,    // solved from measurements, so that a formula of scheduler/cost reproduces them
  kAssumed,   // nobody measured or stated it; the source says why this value
  kStated,    // a data sheet, a vendor's or a third party's published figure that nobody measured
  kWhatIf,    // what the user asks to be supposed (what_if.h); no file may say so
};

struct Figure {
  double value = 0;  // 0 where unknown; unit: the last words of the figure's name
  Mark mark = Mark::kUnknown;
  std::string source;
  // Of a fitted figure: one standard error, as a share of the value; 0: not known.
  double error = 0;

  bool known() const { return mark != Mark::kUnknown; }
};

absl::string_view MarkName(Mark mark);  // "measured"

enum class IfUnknown { kAllow, kRefuse };

// What a figure of a file, or one that replaces it, may be.
struct Range {
  double min = 0, max = 0;
};

// Reads {value: 3.35e12, mark: stated, source: "..."}, where fitted with an `error`, or, if
// allowed, {value: unknown, source: ...}. The key must be there, the value a number in `range`, the
// source not empty; else the reader's error names file, line and key ("memory_bytes.value").
void RequireFigure(YamlReader& reader, const std::string& key, Range range, Figure& figure,
                   IfUnknown unknown = IfUnknown::kRefuse);

// A text that must be there and not be empty.
void RequireText(YamlReader& reader, const std::string& key, std::string& text);

}  // namespace tandem::model
