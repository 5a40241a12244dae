#include "scheduler/step/ffn_holders.h"

#include <algorithm>
#include <iterator>
#include <set>

#include "scheduler/base/check.h"

namespace tandem::step {

FfnHolders::FfnHolders(uint32_t layers, uint64_t hidden_bytes)
    : layers_(layers), hidden_bytes_(hidden_bytes) {
  TANDEM_CHECK(layers >= 1 && hidden_bytes >= 1);
}

void FfnHolders::SetGroup(std::vector<GroupHolder> holders) {
  group_ = std::move(holders);
  FindRowLimit();
}

void FfnHolders::Up(const std::string& holder, uint64_t credit_bytes, uint32_t max_rows) {
  Stream& stream = open_[holder];
  stream.credit_bytes = std::max(credit_bytes, stream.outstanding_bytes);
  stream.max_rows =
      static_cast<uint32_t>(std::min<uint64_t>(max_rows, credit_bytes / hidden_bytes_));
  FindRowLimit();
}

bool FfnHolders::Down(const std::string& holder) {
  const bool was_open = open_.erase(holder) > 0;
  FindRowLimit();
  return was_open;
}

bool FfnHolders::Takes(const GroupHolder& holder, uint32_t layer, uint32_t rows,
                       const std::string& except) const {
  if (holder.name == except || !holder.shard.HoldsLayer(layer)) return false;
  const auto stream = open_.find(holder.name);
  return stream != open_.end() && stream->second.max_rows >= rows;
}

const std::string* FfnHolders::PickPiece(uint32_t layer, uint32_t column, uint32_t columns,
                                         uint32_t rows, const std::string& except) const {
  for (const GroupHolder& holder : group_) {
    if (holder.shard.column == column && holder.shard.columns == columns &&
        Takes(holder, layer, rows, except)) {
      return &holder.name;
    }
  }
  return nullptr;
}

std::vector<std::string> FfnHolders::PickSet(uint32_t layer, uint32_t rows,
                                             const std::string& except) const {
  std::set<uint32_t> incomplete;  // cuts
  for (const GroupHolder& first : group_) {
    const uint32_t columns = first.shard.columns;
    if (!Takes(first, layer, rows, except) || incomplete.contains(columns)) continue;
    std::vector<std::string> pieces;
    for (uint32_t column = 0; column < columns; column++) {
      const std::string* const holder = PickPiece(layer, column, columns, rows, except);
      if (holder == nullptr) break;
      pieces.push_back(*holder);
    }
    if (pieces.size() == columns) return pieces;
    incomplete.insert(columns);
  }
  return {};
}

void FfnHolders::FindRowLimit() {
  row_limit_.reset();
  for (uint32_t layer = 0; layer < layers_; layer++) {
    if (PickSet(layer, 1, "").empty()) return;
  }
  for (const GroupHolder& holder : group_) {
    const auto stream = open_.find(holder.name);
    if (stream == open_.end() || stream->second.max_rows == 0) continue;
    row_limit_ = std::min(row_limit_.value_or(stream->second.max_rows), stream->second.max_rows);
  }
}

std::pair<uint32_t, uint32_t> FfnHolders::Phase() const {
  if (group_.empty()) return {0, 1};
  const FfnShard& first = group_.front().shard;
  std::set<uint32_t> ranges;  // first layers
  for (const GroupHolder& holder : group_) {
    if (holder.shard.columns == first.columns) ranges.insert(holder.shard.first_layer);
  }
  const auto turn = std::distance(ranges.begin(), ranges.find(first.first_layer));
  return {static_cast<uint32_t>(turn), static_cast<uint32_t>(ranges.size())};
}

bool FfnHolders::TakeCredits(absl::Span<const std::string> holders, uint32_t rows) {
  const uint64_t bytes = rows * hidden_bytes_;
  for (const std::string& holder : holders) {
    const Stream& stream = open_.at(holder);
    if (bytes > stream.credit_bytes - stream.outstanding_bytes) return false;
  }
  for (const std::string& holder : holders) open_.at(holder).outstanding_bytes += bytes;
  return true;
}

void FfnHolders::GiveCredit(const std::string& holder, uint32_t rows) {
  Stream& stream = open_.at(holder);
  const uint64_t bytes = rows * hidden_bytes_;
  TANDEM_CHECK(stream.outstanding_bytes >= bytes);
  stream.outstanding_bytes -= bytes;
}

void FfnHolders::Abandon(const std::string& holder, const CallId& call, uint32_t rows) {
  TANDEM_CHECK(open_.at(holder).abandoned.emplace(call, rows).second);
}

bool FfnHolders::TakeAbandoned(const std::string& holder, const CallId& call) {
  const auto stream = open_.find(holder);
  if (stream == open_.end()) return false;
  const auto found = stream->second.abandoned.find(call);
  if (found == stream->second.abandoned.end()) return false;
  GiveCredit(holder, found->second);
  stream->second.abandoned.erase(found);
  return true;
}

uint64_t FfnHolders::outstanding_bytes(const std::string& holder) const {
  const auto it = open_.find(holder);
  return it == open_.end() ? 0 : it->second.outstanding_bytes;
}

}  // namespace tandem::step
