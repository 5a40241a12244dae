#pragma once

// The certificate, key and certificate authority that a process shows and asks for on its links, as
// flags and files. No gRPC here: link_security.h makes credentials of them.

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace tandem {

struct TlsFiles {
  std::string certificate;      // PEM; the process's own, and those between it and the authority
  std::string key;              // PEM, without a password
  std::string authority;        // PEM; every peer's certificate must lead to one in it
  std::string name = "tandem";  // DNS name that every peer's certificate must carry

  // Whether links are to have TLS. Of files that CheckTlsFiles has taken.
  bool given() const { return !certificate.empty(); }
  std::vector<std::string> Paths() const { return {certificate, key, authority}; }
  bool operator==(const TlsFiles&) const = default;
};

// Calls bind(flag, value, help) for each flag, named without its dashes.
template <typename Bind>
void BindTlsFiles(TlsFiles& files, Bind&& bind) {
  bind("tls-cert", files.certificate,
       "PEM certificate of this process: TLS on every gRPC link, asked of both sides; needs "
       "--tls-key and --tls-ca");
  bind("tls-key", files.key, "PEM key of --tls-cert");
  bind("tls-ca", files.authority, "PEM certificates of the authority that peers' must come from");
  bind("tls-name", files.name, "DNS name that a peer's certificate must carry");
}

// All three files, or none; a name that is not empty. kInvalidArgument names the flags that are
// missing.
absl::Status CheckTlsFiles(const TlsFiles& files);

// What was read of the files, in their order, and found good.
struct TlsTexts {
  std::string certificate, key, authority;
  int64_t not_after_unix_seconds = 0;  // when `certificate` expires
};

// kInvalidArgument names the file and what is wrong: no PEM, a key that is not the certificate's,
// expired.
//   texts  of files.Paths(), in that order
absl::StatusOr<TlsTexts> CheckTlsTexts(const TlsFiles& files,
                                       const std::vector<std::string>& texts);

}  // namespace tandem
