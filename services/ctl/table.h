#pragma once

// Tables for a terminal: what every command of tandemctl prints its rows with.

#include <absl/strings/string_view.h>

#include <string>
#include <vector>

namespace tandem::ctl {

// Columns that a line shall fit into.
inline constexpr size_t kTerminalColumns = 100;

enum class Align { kLeft, kRight };

// Rows below a header; a column is as wide as its widest cell, two blanks apart. A character counts
// as one column wide, whatever its bytes. Cells hold no line break.
//
//   TextTable table({{"worker"}, {"tokens", Align::kRight}});
//   table.AddRow({"w0", "17"});
//   table.AddNote("device: h100-sxm");
//   std::printf("%s", table.ToString().c_str());
class TextTable {
 public:
  struct Column {
    std::string name;
    Align align = Align::kLeft;
  };

  // At least one column. A last one that is left-aligned is broken between words where the line
  // would exceed `width`, and goes on below itself.
  explicit TextTable(std::vector<Column> columns, size_t width = kTerminalColumns);

  // As many cells as there are columns.
  void AddRow(std::vector<std::string> cells);
  // A line of its own above the next row, as long as it is.
  void AddHeading(absl::string_view text) { headings_.emplace_back(text); }
  // A line of its own below the last row, indented, as long as it is.
  void AddNote(absl::string_view text);

  // Header and rows, each line ended by a line break and free of blanks at its end.
  std::string ToString() const;

 private:
  struct Row {
    std::vector<std::string> cells;
    std::vector<std::string> headings;
    std::vector<std::string> notes;
  };
  std::vector<size_t> Widths() const;
  void AppendRow(const std::vector<std::string>& cells, const std::vector<size_t>& widths,
                 std::string& text) const;

  std::vector<Column> columns_;
  size_t width_;
  std::vector<Row> rows_;
  std::vector<std::string> headings_;  // of the next row
};

// Breaks `text` between words, so that no line exceeds `width` unless one word does; at least one
// line.
std::vector<std::string> WrapText(absl::string_view text, size_t width);

}  // namespace tandem::ctl
