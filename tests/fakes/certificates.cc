#include "tests/fakes/certificates.h"

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <cstdint>
#include <filesystem>
#include <fstream>

#include "scheduler/base/check.h"

namespace tandem::test {
namespace {

constexpr long kDay = 24 * 3600;

template <typename Write>
std::string Pem(Write&& write) {
  const std::unique_ptr<BIO, decltype(&BIO_free)> out(BIO_new(BIO_s_mem()), &BIO_free);
  TANDEM_CHECK(write(out.get()) == 1);
  char* data = nullptr;
  const long size = BIO_get_mem_data(out.get(), &data);
  return std::string(data, static_cast<size_t>(size));
}

std::string Pem(X509* certificate) {
  return Pem([&](BIO* out) { return PEM_write_bio_X509(out, certificate); });
}

void Extend(X509* certificate, int nid, const std::string& value) {
  X509_EXTENSION* const extension = X509V3_EXT_conf_nid(nullptr, nullptr, nid, value.c_str());
  TANDEM_CHECK(extension != nullptr && X509_add_ext(certificate, extension, -1) == 1);
  X509_EXTENSION_free(extension);
}

std::shared_ptr<X509> NewCertificate(const std::string& name, EVP_PKEY* key, long valid_seconds) {
  std::shared_ptr<X509> made(X509_new(), &X509_free);
  uint32_t serial = 0;
  TANDEM_CHECK(RAND_bytes(reinterpret_cast<unsigned char*>(&serial), sizeof(serial)) == 1);
  X509_set_version(made.get(), X509_VERSION_3);
  ASN1_INTEGER_set_uint64(X509_get_serialNumber(made.get()), serial);
  X509_gmtime_adj(X509_getm_notBefore(made.get()), -2 * kDay);
  X509_gmtime_adj(X509_getm_notAfter(made.get()), valid_seconds);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(made.get()), "CN", MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  X509_set_pubkey(made.get(), key);
  return made;
}

std::shared_ptr<EVP_PKEY> NewKey() {
  return std::shared_ptr<EVP_PKEY>(EVP_EC_gen("P-256"), &EVP_PKEY_free);
}

}  // namespace

TestAuthority::TestAuthority(const std::string& name) : key_(NewKey()) {
  certificate_ = NewCertificate(name, key_.get(), kDay);
  X509_set_issuer_name(certificate_.get(), X509_get_subject_name(certificate_.get()));
  Extend(certificate_.get(), NID_basic_constraints, "critical,CA:TRUE");
  TANDEM_CHECK(X509_sign(certificate_.get(), key_.get(), EVP_sha256()) > 0);
  pem_ = Pem(certificate_.get());
}

PemPair TestAuthority::Issue(const std::string& dns_name, Duration valid) const {
  const auto key = NewKey();
  // The common name is the one that everybody asks for: it must not count.
  const auto made = NewCertificate("tandem", key.get(), static_cast<long>(valid.seconds()));
  X509_set_issuer_name(made.get(), X509_get_subject_name(certificate_.get()));
  Extend(made.get(), NID_subject_alt_name, absl::StrCat("DNS:", dns_name));
  TANDEM_CHECK(X509_sign(made.get(), key_.get(), EVP_sha256()) > 0);
  return {Pem(made.get()), Pem([&](BIO* out) {
            return PEM_write_bio_PrivateKey(out, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
          })};
}

void ReplaceFile(const std::string& path, const std::string& text) {
  const std::string fresh = path + ".new";
  std::ofstream(fresh) << text;
  std::filesystem::rename(fresh, path);
}

TestTlsFiles::TestTlsFiles(const std::string& folder, const PemPair& own,
                           const TestAuthority& authority) {
  const testing::TestInfo& test = *testing::UnitTest::GetInstance()->current_test_info();
  const std::string at =
      absl::StrCat(testing::TempDir(), test.test_suite_name(), ".", test.name(), ".", folder);
  std::filesystem::create_directories(at);
  files.certificate = at + "/tls.crt";
  files.key = at + "/tls.key";
  files.authority = at + "/ca.crt";
  Replace(own, authority);
}

void TestTlsFiles::Replace(const PemPair& own, const TestAuthority& authority) {
  ReplaceFile(files.key, own.key);
  ReplaceFile(files.certificate, own.certificate);
  ReplaceFile(files.authority, authority.pem());
}

}  // namespace tandem::test
