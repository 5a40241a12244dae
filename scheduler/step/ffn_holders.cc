#include "scheduler/step/ffn_holders.h"

#include <algorithm>

#include "scheduler/base/check.h"

namespace tandem::step {

FfnHolders::FfnHolders(uint64_t hidden_bytes) : hidden_bytes_(hidden_bytes) {
  TANDEM_CHECK(hidden_bytes >= 1);
}

void FfnHolders::Up(const std::string& holder, uint64_t credit_bytes, uint32_t max_rows) {
  Stream& stream = open_[holder];
  stream.credit_bytes = std::max(credit_bytes, stream.outstanding_bytes);
  stream.max_rows =
      static_cast<uint32_t>(std::min<uint64_t>(max_rows, credit_bytes / hidden_bytes_));
}

bool FfnHolders::Down(const std::string& holder) { return open_.erase(holder) > 0; }

const std::string* FfnHolders::Pick(uint32_t rows, const std::string& except) const {
  for (const std::string& holder : group_) {
    if (holder == except) continue;
    const auto it = open_.find(holder);
    if (it != open_.end() && it->second.max_rows >= rows) return &it->first;
  }
  return nullptr;
}

std::optional<uint32_t> FfnHolders::RowLimit() const {
  std::optional<uint32_t> limit;
  for (const std::string& holder : group_) {
    const auto it = open_.find(holder);
    if (it == open_.end() || it->second.max_rows == 0) continue;
    limit = std::min(limit.value_or(it->second.max_rows), it->second.max_rows);
  }
  return limit;
}

bool FfnHolders::TakeCredit(const std::string& holder, uint32_t rows) {
  Stream& stream = open_.at(holder);
  const uint64_t bytes = rows * hidden_bytes_;
  if (bytes > stream.credit_bytes - stream.outstanding_bytes) return false;
  stream.outstanding_bytes += bytes;
  return true;
}

void FfnHolders::GiveCredit(const std::string& holder, uint32_t rows) {
  Stream& stream = open_.at(holder);
  const uint64_t bytes = rows * hidden_bytes_;
  TANDEM_CHECK(stream.outstanding_bytes >= bytes);
  stream.outstanding_bytes -= bytes;
}

uint64_t FfnHolders::outstanding_bytes(const std::string& holder) const {
  const auto it = open_.find(holder);
  return it == open_.end() ? 0 : it->second.outstanding_bytes;
}

}  // namespace tandem::step
