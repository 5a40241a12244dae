#pragma once

// The screen of `tandemctl top` as lines, for any width and height. Pure.

#include <cstddef>
#include <string>
#include <vector>

#include "services/ctl/top/snapshot.h"

namespace tandem::ctl {

enum class TopStyle { kPlain, kTitle, kBold, kDim, kBusy, kStall, kIdle, kWarn };

struct TopSpan {
  std::string text;  // printable; one column a character
  TopStyle style = TopStyle::kPlain;
};
using TopLine = std::vector<TopSpan>;

struct FrameSize {
  size_t width = 80, height = 24;
  bool unicode = true;  // bars of blocks; else of ASCII
  bool keys = true;     // the last line says which keys there are
};

// At most `height` lines of at most `width` columns each. What does not fit is left out, workers
// first; there is always a first line, where there is room for one.
std::vector<TopLine> TopFrame(const TopSnapshot& snapshot, const FrameSize& size);

std::string PlainText(const TopLine& line);
size_t Columns(const TopLine& line);

}  // namespace tandem::ctl
