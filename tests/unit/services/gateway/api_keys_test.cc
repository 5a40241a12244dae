#include "services/gateway/keys/api_keys.h"

#include <absl/strings/ascii.h>
#include <absl/strings/str_cat.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

namespace tandem::gateway {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// Of "key-one" and "key-two", by sha256sum.
constexpr char kOne[] = "9b346041bc9a49574eb2665b2ad2a0a3f9f9cce4e42f5d1f26deb8a256b5966a";
constexpr char kTwo[] = "c8df51469c308a59bfbd48a3e0bdd228ca922d6032035f5ef6e4ad45f473a9f3";

std::string WhyNot(const std::string& text) {
  const absl::Status status = ApiKeyList::Parse(text, "keys").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  return std::string(status.message());
}

TEST(ApiKeyList, KnowsKeysByTheirHash) {
  const auto list = ApiKeyList::Parse(
      absl::StrCat("# who may ask\n\none ", kOne, "\r\n  two\t", absl::AsciiStrToUpper(kTwo), " "),
      "keys");
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_EQ(list->size(), 2u);
  EXPECT_EQ(list->NameOf("key-one"), "one");
  EXPECT_EQ(list->NameOf("key-two"), "two");
  for (const char* stranger : {"", "key-on", "key-one ", "KEY-ONE", "one", kOne})
    EXPECT_EQ(list->NameOf(stranger), std::nullopt) << stranger;
}

TEST(ApiKeyList, ANameMayHaveTwoKeys) {
  const auto list = ApiKeyList::Parse(absl::StrCat("a ", kOne, "\na ", kTwo), "keys");
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_EQ(list->NameOf("key-one"), "a");
  EXPECT_EQ(list->NameOf("key-two"), "a");
}

TEST(ApiKeyList, WhatIsNoListIsRefusedByItsLine) {
  EXPECT_THAT(WhyNot(""), HasSubstr("keys: holds no key"));
  EXPECT_THAT(WhyNot("# nobody\n"), HasSubstr("keys: holds no key"));
  EXPECT_THAT(WhyNot(absl::StrCat("a ", kOne, "\nb\n")), HasSubstr("keys:2: a line is NAME"));
  EXPECT_THAT(WhyNot(absl::StrCat("a ", kOne, " more")), HasSubstr("keys:1: a line is NAME"));
  EXPECT_THAT(WhyNot("a 1234"), HasSubstr("keys:1: the hash of a is not 64 hexadecimal digits"));
  EXPECT_THAT(WhyNot(absl::StrCat("a ", std::string(64, 'g'))), HasSubstr("not 64 hexadecimal"));
  EXPECT_THAT(WhyNot(absl::StrCat("a\"b ", kOne)), HasSubstr("keys:1: a name is"));
  EXPECT_THAT(WhyNot(absl::StrCat(std::string(65, 'a'), " ", kOne)), HasSubstr("keys:1: a name"));
  EXPECT_THAT(WhyNot(absl::StrCat("a ", kOne, "\nb ", kOne)),
              HasSubstr("keys:2: the hash of b stands in the file already"));
}

TEST(ApiKeyList, AKeyThatWasPutInByMistakeIsNotTold) {
  EXPECT_THAT(WhyNot("alice sk-secret"), AllOf(HasSubstr("alice"), Not(HasSubstr("secret"))));
  EXPECT_THAT(WhyNot("sk-secret"), Not(HasSubstr("secret")));
}

TEST(ApiKeyList, HoldsSoManyAndNoMore) {
  std::string text;
  for (size_t i = 0; i < kMaxApiKeys; ++i)
    absl::StrAppend(&text, "a ", absl::Hex(i, absl::kZeroPad16), std::string(48, '0'), "\n");
  const auto full = ApiKeyList::Parse(text, "keys");
  ASSERT_TRUE(full.ok()) << full.status();
  EXPECT_EQ(full->size(), kMaxApiKeys);
  EXPECT_THAT(WhyNot(text + "b " + kOne), HasSubstr("keys:1025: more than 1024 keys"));
}

class ApiKeysTest : public testing::Test {
 protected:
  ApiKeysTest()
      : path_(absl::StrCat(testing::TempDir(), "api_keys_",
                           testing::UnitTest::GetInstance()->current_test_info()->name())) {}
  void Replace(const std::string& text) const {
    std::ofstream(path_ + ".new") << text;
    std::filesystem::rename(path_ + ".new", path_);
  }
  void Open() {
    auto opened = ApiKeys::Open(
        path_,
        [this](const absl::Status& status, size_t keys) {
          MutexLock lock(mu_);
          told_.emplace_back(status, keys);
          changed_.NotifyAll();
        },
        Duration::Milliseconds(2));
    ASSERT_TRUE(opened.ok()) << opened.status();
    keys_ = *std::move(opened);
  }
  std::pair<absl::Status, size_t> Await(size_t index) {
    MutexLock lock(mu_);
    while (told_.size() <= index) changed_.Wait(lock);
    return told_[index];
  }

  const std::string path_;
  Mutex mu_;
  CondVar changed_;
  std::vector<std::pair<absl::Status, size_t>> told_ TANDEM_GUARDED_BY(mu_);
  std::unique_ptr<ApiKeys> keys_;
};

TEST_F(ApiKeysTest, AReplacedFileCountsWhileRequestsAreAnswered) {
  Replace(absl::StrCat("one ", kOne));
  Open();
  std::atomic<bool> stop = false;
  std::thread asker([&] {
    while (!stop) {
      const auto one = keys_->NameOf("key-one");
      EXPECT_TRUE(!one.has_value() || *one == "one");
    }
  });
  Replace(absl::StrCat("two ", kTwo));
  EXPECT_EQ(Await(0), std::pair(absl::OkStatus(), size_t{1}));
  EXPECT_EQ(keys_->NameOf("key-one"), std::nullopt);
  EXPECT_EQ(keys_->NameOf("key-two"), "two");
  stop = true;
  asker.join();
}

TEST_F(ApiKeysTest, ABadReplacementLeavesTheListBefore) {
  Replace(absl::StrCat("one ", kOne, "\ntwo ", kTwo));
  Open();
  size_t told = 0;
  for (const char* bad : {"", "one key-one", "one HASH two"}) {
    Replace(bad);
    const auto [status, keys] = Await(told++);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_EQ(keys, 2u);
    EXPECT_EQ(keys_->NameOf("key-one"), "one");
  }
  std::filesystem::remove(path_);
  EXPECT_EQ(Await(told++).first.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(keys_->NameOf("key-two"), "two");
  Replace(absl::StrCat("one ", kOne));
  EXPECT_EQ(Await(told), std::pair(absl::OkStatus(), size_t{1}));
  EXPECT_EQ(keys_->NameOf("key-two"), std::nullopt);
}

TEST_F(ApiKeysTest, AFileThatIsNotThereIsNamed) {
  const absl::Status status =
      ApiKeys::Open(path_ + ".away", [](const absl::Status&, size_t) {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr(path_ + ".away"));
}

}  // namespace
}  // namespace tandem::gateway
