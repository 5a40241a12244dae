#include "services/gateway/keys/api_keys.h"

#include <absl/strings/ascii.h>
#include <absl/strings/escaping.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>
#include <set>
#include <utility>

#include "scheduler/base/check.h"
#include "scheduler/base/status.h"

namespace tandem::gateway {
namespace {

bool IsName(absl::string_view text) {
  return !text.empty() && text.size() <= kMaxApiKeyNameBytes &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-' || c == '@';
         });
}

bool IsSha256(absl::string_view text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(), absl::ascii_isxdigit);
}

}  // namespace

absl::StatusOr<ApiKeyList> ApiKeyList::Parse(absl::string_view text, const std::string& path) {
  ApiKeyList list;
  std::set<Hash> seen;
  int number = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    number++;
    const std::vector<absl::string_view> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (words.empty() || words[0][0] == '#') continue;
    // What stands there may be a key, put in by mistake: it is not told.
    const auto wrong = [&](absl::string_view why) {
      return absl::InvalidArgumentError(absl::StrCat(path, ":", number, ": ", why));
    };
    if (words.size() != 2) return wrong("a line is NAME SHA256HEX");
    if (!IsName(words[0])) {
      return wrong(
          absl::StrCat("a name is 1 to ", kMaxApiKeyNameBytes, " letters, digits and . _ - @"));
    }
    if (!IsSha256(words[1]))
      return wrong(absl::StrCat("the hash of ", words[0], " is not 64 hexadecimal digits"));
    if (list.keys_.size() == kMaxApiKeys)
      return wrong(absl::StrCat("more than ", kMaxApiKeys, " keys"));
    Key key{std::string(words[0]), {}};
    const std::string bytes = absl::HexStringToBytes(words[1]);
    std::copy(bytes.begin(), bytes.end(), key.hash.begin());
    if (!seen.insert(key.hash).second)
      return wrong(absl::StrCat("the hash of ", words[0], " stands in the file already"));
    list.keys_.push_back(std::move(key));
  }
  if (list.keys_.empty())
    return absl::InvalidArgumentError(absl::StrCat(path, ": holds no key, so nobody could ask"));
  return list;
}

std::optional<std::string> ApiKeyList::NameOf(absl::string_view key) const {
  Hash hash;
  unsigned int size = 0;
  TANDEM_CHECK(EVP_Digest(key.data(), key.size(), hash.data(), &size, EVP_sha256(), nullptr) == 1);
  TANDEM_CHECK(size == hash.size());
  const Key* found = nullptr;
  for (const Key& known : keys_) {
    if (CRYPTO_memcmp(known.hash.data(), hash.data(), hash.size()) == 0) found = &known;
  }
  if (found == nullptr) return std::nullopt;
  return found->name;
}

absl::StatusOr<std::unique_ptr<ApiKeys>> ApiKeys::Open(
    const std::string& path, std::function<void(const absl::Status&, size_t keys)> reloaded,
    Duration look_every) {
  FileTexts texts = ReadTextFiles({path});
  RETURN_IF_ERROR(texts.status());
  ASSIGN_OR_RETURN(ApiKeyList list, ApiKeyList::Parse(texts->at(0), path));
  std::unique_ptr<ApiKeys> keys(new ApiKeys(std::move(list)));
  keys->watch_ = std::make_unique<FileWatch>(
      std::vector<std::string>{path}, std::move(texts), look_every,
      [keys = keys.get(), path, reloaded = std::move(reloaded)](const FileTexts& changed) {
        absl::StatusOr<ApiKeyList> next =
            changed.ok() ? ApiKeyList::Parse(changed->at(0), path) : changed.status();
        const absl::Status status = next.status();
        if (status.ok()) {
          MutexLock lock(keys->mu_);
          keys->list_ = std::make_shared<const ApiKeyList>(*std::move(next));
        }
        reloaded(status, keys->size());
      });
  return keys;
}

}  // namespace tandem::gateway
