#pragma once

// Holds a transition table of the code against the one in ARCHITECTURE.md, both ways.
//
//   test::ExpectDocumented("MicroBatch", step::kMicroBatchTransitions);
//
// reads the rows `| from | event | to |` below the heading `### MicroBatch`; words are those of
// ToString(State) and ToString(Event), found in the enums' namespace.

#include <absl/strings/ascii.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>
#include <absl/strings/string_view.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "scheduler/base/transitions.h"

namespace tandem::test {

// "from event to" of each row below the heading, up to the next one. Header and ruler rows are left
// out.
inline std::multiset<std::string> DocumentedTransitions(std::istream& document,
                                                        absl::string_view machine) {
  std::multiset<std::string> rows;
  bool inside = false;
  for (std::string line; std::getline(document, line);) {
    if (!line.empty() && line[0] == '#') inside = line == absl::StrCat("### ", machine);
    if (!inside || line.empty() || line[0] != '|') continue;
    std::vector<std::string> cells;
    for (absl::string_view cell : absl::StrSplit(line, '|')) {
      std::string word(absl::StripAsciiWhitespace(cell));
      std::erase(word, '`');
      if (!word.empty()) cells.push_back(word);
    }
    if (cells.size() != 3) {
      rows.insert(absl::StrCat("not a transition: ", line));
    } else if (cells[0] != "from" && cells[0].find_first_not_of("-:") != std::string::npos) {
      rows.insert(absl::StrCat(cells[0], " ", cells[1], " ", cells[2]));
    }
  }
  return rows;
}

template <typename State, typename Event, size_t N>
void ExpectDocumented(absl::string_view machine, const Transition<State, Event> (&table)[N]) {
  const char* const source = std::getenv("TANDEM_SOURCE_DIR");
  ASSERT_NE(source, nullptr) << "TANDEM_SOURCE_DIR is not set: run the test with ctest";
  const std::string path = absl::StrCat(source, "/ARCHITECTURE.md");
  std::ifstream document(path);
  ASSERT_TRUE(document.is_open()) << path;
  std::multiset<std::string> coded;
  for (const auto& row : table) {
    coded.insert(absl::StrCat(ToString(row.from), " ", ToString(row.event), " ", ToString(row.to)));
  }
  EXPECT_EQ(DocumentedTransitions(document, machine), coded) << path << ", section ### " << machine;
}

}  // namespace tandem::test
