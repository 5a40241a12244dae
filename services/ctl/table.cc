#include "services/ctl/table.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>
#include <absl/strings/strip.h>

#include <algorithm>
#include <utility>

#include "scheduler/base/check.h"

namespace tandem::ctl {
namespace {

constexpr size_t kGap = 2;
constexpr size_t kNarrowest = 20;  // a last column is not broken into less
constexpr const char* kNoteIndent = "    ";

// Characters, of well-formed UTF-8: all bytes but those that continue one.
size_t WidthOf(absl::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

void AppendCell(absl::string_view cell, Align align, size_t width, std::string& line) {
  const std::string padding(width - std::min(width, WidthOf(cell)), ' ');
  if (align == Align::kLeft) {
    absl::StrAppend(&line, cell, padding);
  } else {
    absl::StrAppend(&line, padding, cell);
  }
}

void AppendLine(absl::string_view line, std::string& text) {
  absl::StrAppend(&text, absl::StripTrailingAsciiWhitespace(line), "\n");
}

}  // namespace

std::vector<std::string> WrapText(absl::string_view text, size_t width) {
  std::vector<std::string> lines(1);
  for (const absl::string_view word : absl::StrSplit(text, ' ', absl::SkipEmpty())) {
    std::string& line = lines.back();
    if (line.empty()) {
      line = std::string(word);
    } else if (WidthOf(line) + 1 + WidthOf(word) <= width) {
      absl::StrAppend(&line, " ", word);
    } else {
      lines.emplace_back(word);
    }
  }
  return lines;
}

TextTable::TextTable(std::vector<Column> columns, size_t width)
    : columns_(std::move(columns)), width_(width) {
  TANDEM_CHECK(!columns_.empty());
}

void TextTable::AddRow(std::vector<std::string> cells) {
  TANDEM_CHECK(cells.size() == columns_.size());
  rows_.push_back({std::move(cells), std::exchange(headings_, {}), {}});
}

void TextTable::AddNote(absl::string_view text) {
  TANDEM_CHECK(!rows_.empty());
  rows_.back().notes.emplace_back(text);
}

std::vector<size_t> TextTable::Widths() const {
  std::vector<size_t> widths;
  for (const Column& column : columns_) widths.push_back(WidthOf(column.name));
  for (const Row& row : rows_) {
    for (size_t i = 0; i < widths.size(); i++)
      widths[i] = std::max(widths[i], WidthOf(row.cells[i]));
  }
  if (columns_.back().align == Align::kRight) return widths;
  size_t before = 0;
  for (size_t i = 0; i + 1 < widths.size(); i++) before += widths[i] + kGap;
  const size_t left = std::max(kNarrowest, width_ - std::min(width_, before));
  widths.back() = std::min(widths.back(), left);
  return widths;
}

void TextTable::AppendRow(const std::vector<std::string>& cells, const std::vector<size_t>& widths,
                          std::string& text) const {
  const bool wraps = columns_.back().align == Align::kLeft;
  const std::vector<std::string> last =
      wraps ? WrapText(cells.back(), widths.back()) : std::vector<std::string>{cells.back()};
  std::string line;
  for (size_t i = 0; i + 1 < cells.size(); i++) {
    AppendCell(cells[i], columns_[i].align, widths[i], line);
    line.append(kGap, ' ');
  }
  const std::string below(WidthOf(line), ' ');
  for (size_t i = 0; i < last.size(); i++) {
    if (i > 0) line = below;
    AppendCell(last[i], columns_.back().align, widths.back(), line);
    AppendLine(line, text);
  }
}

std::string TextTable::ToString() const {
  const std::vector<size_t> widths = Widths();
  std::vector<std::string> names;
  for (const Column& column : columns_) names.push_back(column.name);
  std::string text;
  AppendRow(names, widths, text);
  for (const Row& row : rows_) {
    for (const std::string& heading : row.headings) AppendLine(heading, text);
    AppendRow(row.cells, widths, text);
    for (const std::string& note : row.notes) AppendLine(absl::StrCat(kNoteIndent, note), text);
  }
  return text;
}

}  // namespace tandem::ctl
