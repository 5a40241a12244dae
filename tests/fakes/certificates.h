#pragma once

// Certificates made while a test runs: an authority, what it issues, and the files that daemons
// read.

#include <memory>
#include <string>

#include "scheduler/base/time.h"
#include "services/runtime/tls_files.h"

struct evp_pkey_st;
struct x509_st;

namespace tandem::test {

struct PemPair {
  std::string certificate, key;
};

class TestAuthority {
 public:
  explicit TestAuthority(const std::string& name);

  // For one DNS name, valid since a day and for `valid` from now on: below 0 it has expired.
  PemPair Issue(const std::string& dns_name, Duration valid = Duration::Seconds(3600)) const;
  const std::string& pem() const { return pem_; }

 private:
  std::shared_ptr<evp_pkey_st> key_;
  std::shared_ptr<x509_st> certificate_;
  std::string pem_;
};

// Replaces `path` whole, by a rename.
void ReplaceFile(const std::string& path, const std::string& text);

// A folder of its own, named after the running test, with tls.crt, tls.key and ca.crt in it.
class TestTlsFiles {
 public:
  TestTlsFiles(const std::string& folder, const PemPair& own, const TestAuthority& authority);
  void Replace(const PemPair& own, const TestAuthority& authority);
  TlsFiles files;
};

}  // namespace tandem::test
