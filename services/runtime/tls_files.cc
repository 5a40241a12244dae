#include "services/runtime/tls_files.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/str_join.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <ctime>
#include <memory>

#include "scheduler/base/check.h"
#include "scheduler/base/status.h"

namespace tandem {
namespace {

using Bio = std::unique_ptr<BIO, decltype(&BIO_free)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;
using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;

Bio Reading(const std::string& text) {
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())), &BIO_free);
}

// OpenSSL's first complaint; its queue is empty then.
std::string Complaint() {
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  const char* const reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  return reason != nullptr ? reason : "unknown";
}

// The default asks the terminal.
int NoPassword(char*, int, int, void*) { return -1; }

// The first certificate of a file, of which all must be whole.
absl::StatusOr<Certificate> FirstCertificate(const std::string& path, const std::string& text) {
  ERR_clear_error();
  const Bio bio = Reading(text);
  Certificate first(PEM_read_bio_X509(bio.get(), nullptr, NoPassword, nullptr), &X509_free);
  Certificate next(nullptr, &X509_free);
  if (first != nullptr) {
    do {
      next.reset(PEM_read_bio_X509(bio.get(), nullptr, NoPassword, nullptr));
    } while (next != nullptr);
  }
  const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  if (first == nullptr && at_end) {
    ERR_clear_error();
    return absl::InvalidArgumentError(absl::StrCat(path, ": holds no PEM certificate"));
  }
  if (!at_end) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": a certificate cannot be read: ", Complaint()));
  }
  ERR_clear_error();
  return first;
}

absl::Status CheckKey(const TlsFiles& files, const std::string& text, const X509& certificate) {
  const Bio bio = Reading(text);
  const Key key(PEM_read_bio_PrivateKey(bio.get(), nullptr, NoPassword, nullptr), &EVP_PKEY_free);
  if (key == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        files.key, ": holds no PEM key that can be read without a password: ", Complaint()));
  }
  if (X509_check_private_key(&certificate, key.get()) == 1) return absl::OkStatus();
  ERR_clear_error();
  return absl::InvalidArgumentError(absl::StrCat(
      files.key, ": the key does not belong to the certificate of ", files.certificate));
}

// When it expires, in seconds since 1970.
absl::StatusOr<int64_t> NotAfter(const std::string& path, const X509& certificate) {
  const ASN1_TIME* const end = X509_get0_notAfter(&certificate);
  std::tm when{};
  if (ASN1_TIME_to_tm(end, &when) != 1) {
    ERR_clear_error();
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": the certificate does not say until when it is valid"));
  }
  if (X509_cmp_current_time(end) < 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: the certificate has expired, on %04d-%02d-%02d", path,
                        when.tm_year + 1900, when.tm_mon + 1, when.tm_mday));
  }
  return timegm(&when);
}

}  // namespace

absl::Status CheckTlsFiles(const TlsFiles& files) {
  std::vector<std::string> given, missing;
  for (const auto& [flag, path] :
       {std::pair("--tls-cert", files.certificate), std::pair("--tls-key", files.key),
        std::pair("--tls-ca", files.authority)}) {
    (path.empty() ? missing : given).emplace_back(flag);
  }
  if (!given.empty() && !missing.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        absl::StrJoin(missing, " and "), missing.size() == 1 ? " is" : " are", " missing: ",
        absl::StrJoin(given, " and "), given.size() == 1 ? " needs" : " need", " all three"));
  }
  if (files.name.empty())
    return absl::InvalidArgumentError("tls_name is empty: peers must have some name");
  return absl::OkStatus();
}

absl::StatusOr<TlsTexts> CheckTlsTexts(const TlsFiles& files,
                                       const std::vector<std::string>& texts) {
  TANDEM_CHECK(texts.size() == files.Paths().size());
  ASSIGN_OR_RETURN(const Certificate own, FirstCertificate(files.certificate, texts[0]));
  RETURN_IF_ERROR(CheckKey(files, texts[1], *own));
  RETURN_IF_ERROR(FirstCertificate(files.authority, texts[2]).status());
  ASSIGN_OR_RETURN(const int64_t not_after, NotAfter(files.certificate, *own));
  return TlsTexts{texts[0], texts[1], texts[2], not_after};
}

}  // namespace tandem
