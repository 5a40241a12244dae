#pragma once

// The FFN holders of one attention worker: who is in the group, whose stream is open, and how much
// reply each may still owe.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace tandem::step {

// Credits are bytes of reply per stream (PROTOCOL section 6): a call is sent only when its reply's
// bytes are held. Invariant: outstanding <= granted, for each holder.
class FfnHolders {
 public:
  explicit FfnHolders(uint64_t hidden_bytes);

  void SetGroup(std::vector<std::string> holders) { group_ = std::move(holders); }
  // A stream opened, or its grant was renewed.
  void Up(const std::string& holder, uint64_t credit_bytes, uint32_t max_rows);
  // Returns whether its stream was open. What was outstanding there is forgotten.
  bool Down(const std::string& holder);

  // The first of the group but `except` whose stream takes calls of so many rows; null: none.
  const std::string* Pick(uint32_t rows, const std::string& except) const;
  // The largest call that every open holder of the group takes; nothing when none is open.
  std::optional<uint32_t> RowLimit() const;

  // False: the credit is not there now.
  bool TakeCredit(const std::string& holder, uint32_t rows);
  void GiveCredit(const std::string& holder, uint32_t rows);
  uint64_t outstanding_bytes(const std::string& holder) const;

 private:
  struct Stream {
    uint64_t credit_bytes = 0, outstanding_bytes = 0;
    uint32_t max_rows = 0;  // as granted, and within the credit
  };
  uint64_t hidden_bytes_;
  std::vector<std::string> group_;  // best first
  std::map<std::string, Stream> open_;
};

}  // namespace tandem::step
