#include "services/runtime/tls_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>

#include "tests/fakes/certificates.h"

namespace tandem {
namespace {

using testing::HasSubstr;

const TlsFiles& Named() {
  static const TlsFiles files{"/tls.crt", "/tls.key", "/ca.crt", "tandem"};
  return files;
}

std::string WhyNot(const std::vector<std::string>& texts) {
  const absl::Status status = CheckTlsTexts(Named(), texts).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  return std::string(status.message());
}

TEST(CheckTlsFiles, TakesAllThreeOrNoneAndNamesWhatIsMissing) {
  EXPECT_TRUE(CheckTlsFiles(TlsFiles()).ok());
  EXPECT_FALSE(TlsFiles().given());
  EXPECT_TRUE(CheckTlsFiles(Named()).ok());
  EXPECT_TRUE(Named().given());
  TlsFiles files = Named();
  files.key.clear();
  EXPECT_EQ(CheckTlsFiles(files).message(),
            "--tls-key is missing: --tls-cert and --tls-ca need all three");
  files.certificate.clear();
  EXPECT_EQ(CheckTlsFiles(files).message(),
            "--tls-cert and --tls-key are missing: --tls-ca needs all three");
  files = Named();
  files.name.clear();
  EXPECT_THAT(std::string(CheckTlsFiles(files).message()), HasSubstr("tls_name is empty"));
}

TEST(CheckTlsTexts, TakesWhatBelongsTogetherAndKnowsWhenItExpires) {
  const test::TestAuthority authority("authority");
  const test::PemPair own = authority.Issue("tandem", Duration::Seconds(7200));
  const auto checked = CheckTlsTexts(Named(), {own.certificate, own.key, authority.pem()});
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_EQ(checked->certificate, own.certificate);
  EXPECT_EQ(checked->authority, authority.pem());
  EXPECT_NEAR(static_cast<double>(checked->not_after_unix_seconds),
              static_cast<double>(std::time(nullptr) + 7200), 600);
}

TEST(CheckTlsTexts, TakesAChainAndSeveralAuthorities) {
  const test::TestAuthority first("first"), second("second");
  const test::PemPair own = first.Issue("tandem");
  EXPECT_TRUE(
      CheckTlsTexts(Named(), {own.certificate + first.pem(), own.key, first.pem() + second.pem()})
          .ok());
}

TEST(CheckTlsTexts, NamesTheFileThatIsNoGood) {
  const test::TestAuthority authority("authority");
  const test::PemPair own = authority.Issue("tandem"), other = authority.Issue("tandem");
  EXPECT_EQ(WhyNot({"", own.key, authority.pem()}), "/tls.crt: holds no PEM certificate");
  EXPECT_EQ(WhyNot({own.certificate, own.key, "nothing"}), "/ca.crt: holds no PEM certificate");
  EXPECT_THAT(WhyNot({own.certificate, "", authority.pem()}),
              HasSubstr("/tls.key: holds no PEM key"));
  EXPECT_EQ(WhyNot({own.certificate, other.key, authority.pem()}),
            "/tls.key: the key does not belong to the certificate of /tls.crt");
  std::string cut = own.certificate;
  cut.replace(cut.size() / 2, 8, "????????");
  EXPECT_THAT(WhyNot({cut, own.key, authority.pem()}),
              HasSubstr("/tls.crt: a certificate cannot be read"));
  EXPECT_THAT(WhyNot({own.certificate, own.key, authority.pem() + cut}),
              HasSubstr("/ca.crt: a certificate cannot be read"));
}

TEST(CheckTlsTexts, RefusesWhatHasExpired) {
  const test::TestAuthority authority("authority");
  const test::PemPair old = authority.Issue("tandem", Duration::Seconds(-60));
  EXPECT_THAT(WhyNot({old.certificate, old.key, authority.pem()}),
              HasSubstr("/tls.crt: the certificate has expired, on 20"));
}

}  // namespace
}  // namespace tandem
