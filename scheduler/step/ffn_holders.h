#pragma once

// The FFN holders of one attention worker: who is in the group and what each holds, whose stream is
// open, and how much reply each may still owe.

#include <absl/types/span.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/step/types.h"

namespace tandem::step {

// Credits are bytes of reply per stream (PROTOCOL section 6): a call is sent only when its reply's
// bytes are held. Invariant: outstanding <= granted, for each holder.
class FfnHolders {
 public:
  FfnHolders(uint32_t layers, uint64_t hidden_bytes);

  void SetGroup(std::vector<GroupHolder> holders);  // best first
  // A stream opened, or its grant was renewed.
  void Up(const std::string& holder, uint64_t credit_bytes, uint32_t max_rows);
  // Returns whether its stream was open. What was outstanding there is forgotten.
  bool Down(const std::string& holder);

  // Who computes a layer together: by piece, in shard order; one holder where it is whole. The cut
  // is the one of the first holder of the group whose cut is complete; of each piece the first. All
  // of them but `except`, with open streams that take calls of so many rows. Empty: none.
  std::vector<std::string> PickSet(uint32_t layer, uint32_t rows, const std::string& except) const;
  // The first that has this piece; null: none.
  const std::string* PickPiece(uint32_t layer, uint32_t column, uint32_t columns, uint32_t rows,
                               const std::string& except) const;
  // The largest call that every open holder of the group takes; nothing while they do not cover
  // every layer.
  std::optional<uint32_t> RowLimit() const { return row_limit_; }

  // This worker's turn among the ranges of layers of its first cut, and how many those are: which
  // range its group begins with, in layer order. (0, 1) where layers are not cut.
  std::pair<uint32_t, uint32_t> Phase() const;

  // Of all of them at once, or of none: a set never holds a part of its credits while it waits for
  // the rest. False: it is not there now.
  bool TakeCredits(absl::Span<const std::string> holders, uint32_t rows);
  void GiveCredit(const std::string& holder, uint32_t rows);
  // The call's reply is of no use any more, but owed: its credit comes back with it.
  void Abandon(const std::string& holder, const CallId& call, uint32_t rows);
  // True: that reply came.
  bool TakeAbandoned(const std::string& holder, const CallId& call);
  uint64_t outstanding_bytes(const std::string& holder) const;

 private:
  struct Stream {
    uint64_t credit_bytes = 0, outstanding_bytes = 0;
    uint32_t max_rows = 0;                 // as granted, and within the credit
    std::map<CallId, uint32_t> abandoned;  // rows
  };
  bool Takes(const GroupHolder& holder, uint32_t layer, uint32_t rows,
             const std::string& except) const;
  void FindRowLimit();

  const uint32_t layers_;
  const uint64_t hidden_bytes_;
  std::vector<GroupHolder> group_;  // best first
  std::map<std::string, Stream> open_;
  std::optional<uint32_t> row_limit_;
};

}  // namespace tandem::step
