#pragma once

// Who may ask: a file of API keys' names and hashes, read again when it is replaced.
//
// A line a key, NAME SHA256HEX; blank lines and those that begin with # are passed over:
//
//   # made by: printf %s "$KEY" | sha256sum
//   alice 5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8
//
// Keys themselves are never kept or logged. A name may stand twice, so that its key can be changed
// while both are known.

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "scheduler/base/time.h"
#include "services/runtime/file_watch.h"
#include "services/runtime/mutex.h"

namespace tandem::gateway {

inline constexpr size_t kMaxApiKeys = 1024;        // of one file
inline constexpr size_t kMaxApiKeyNameBytes = 64;  // of letters, digits and . _ - @

// What one file says.
class ApiKeyList {
 public:
  // kInvalidArgument names `path`, the line and what is wrong: a name or hash that is none, a hash
  // that stands twice, too many keys or none at all.
  static absl::StatusOr<ApiKeyList> Parse(absl::string_view text, const std::string& path);

  // Whose key it is. Every hash is compared, each in constant time, whatever the key.
  std::optional<std::string> NameOf(absl::string_view key) const;
  size_t size() const { return keys_.size(); }

 private:
  using Hash = std::array<unsigned char, 32>;  // SHA-256
  struct Key {
    std::string name;
    Hash hash;
  };
  std::vector<Key> keys_;
};

// The list in use. Safe from any thread.
class ApiKeys {
 public:
  // `reloaded` hears of each replacement: OK and how many keys there are now, or why the list
  // before stays in use; from a thread of this object's. Errors are Parse's, and kNotFound.
  static absl::StatusOr<std::unique_ptr<ApiKeys>> Open(
      const std::string& path, std::function<void(const absl::Status&, size_t keys)> reloaded,
      Duration look_every = Duration::Seconds(1));

  std::optional<std::string> NameOf(absl::string_view key) const { return list()->NameOf(key); }
  size_t size() const { return list()->size(); }

 private:
  explicit ApiKeys(ApiKeyList list) : list_(std::make_shared<const ApiKeyList>(std::move(list))) {}
  std::shared_ptr<const ApiKeyList> list() const TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    return list_;
  }

  mutable Mutex mu_;
  std::shared_ptr<const ApiKeyList> list_ TANDEM_GUARDED_BY(mu_);
  std::unique_ptr<FileWatch> watch_;  // last: its thread uses the above
};

}  // namespace tandem::gateway
