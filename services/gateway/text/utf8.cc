#include "services/gateway/text/utf8.h"

#include <cstddef>
#include <cstdint>

namespace tandem::gateway {
namespace {

constexpr char kReplacement[] = "\xEF\xBF\xBD";

struct Sequence {
  enum Kind { kWhole, kBad, kCut } kind;  // kCut: well-formed so far, but the text ends
  size_t bytes;                           // of the character, of the bad part, or held back
};

// Reads the character at the start of `text`, which is not empty. Table 3-7 of the Unicode
// standard.
Sequence ReadOne(absl::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return {Sequence::kWhole, 1};
  size_t need = 0;
  uint8_t low = 0x80, high = 0xBF;  // range of the second byte
  if (lead >= 0xC2 && lead <= 0xDF) {
    need = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    need = 3;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    need = 4;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {Sequence::kBad, 1};
  }
  for (size_t i = 1; i < need; ++i) {
    if (i == text.size()) return {Sequence::kCut, i};
    if (byte(i) < low || byte(i) > high) return {Sequence::kBad, i};
    low = 0x80;
    high = 0xBF;
  }
  return {Sequence::kWhole, need};
}

}  // namespace

std::string Utf8Joiner::Push(absl::string_view bytes) {
  held_.append(bytes.data(), bytes.size());
  absl::string_view rest = held_;
  std::string out;
  while (!rest.empty()) {
    const Sequence one = ReadOne(rest);
    if (one.kind == Sequence::kCut) break;
    if (one.kind == Sequence::kWhole) {
      out.append(rest.data(), one.bytes);
    } else {
      out += kReplacement;
    }
    rest.remove_prefix(one.bytes);
  }
  held_.erase(0, held_.size() - rest.size());
  return out;
}

std::string Utf8Joiner::Finish() {
  if (held_.empty()) return "";
  held_.clear();
  return kReplacement;
}

}  // namespace tandem::gateway
