#pragma once

// How the gRPC links of a process are secured: plain text, or TLS asked of both sides. Made once in
// main and handed to whatever listens or dials.

#include <absl/status/statusor.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/support/channel_arguments.h>
#include <prometheus/labels.h>
#include <prometheus/registry.h>

#include <memory>

#include "scheduler/base/time.h"
#include "services/runtime/tls_files.h"

namespace tandem {

// A handle; copies are of the same object. Safe from any thread.
//
// With TLS both sides show a certificate, and take one only if it leads to the authority, is valid
// now and carries the DNS name. Files that are replaced count within some seconds, for connections
// made from then on; open ones stay. A replacement that is no good (tls_files.h) leaves what was
// there in use, is logged and counted.
class LinkSecurity {
 public:
  LinkSecurity() = default;  // plain text

  // Plain text if no file is given. kNotFound or kInvalidArgument name the file and what is wrong
  // with it. `look_every` is how often the files are read.
  static absl::StatusOr<LinkSecurity> Make(const TlsFiles& files,
                                           Duration look_every = Duration::Seconds(1));

  bool tls() const { return tls_ != nullptr; }
  std::shared_ptr<grpc::ServerCredentials> ForServers() const;
  std::shared_ptr<grpc::ChannelCredentials> ForChannels() const;
  void Configure(grpc::ChannelArguments& arguments) const;  // of a channel with ForChannels()

  // tandem_tls_reload_failures_total and tandem_tls_certificate_not_after_seconds, with `labels`;
  // the latter is 0 with plain text. The registry lives as long as this does.
  void Export(const std::shared_ptr<prometheus::Registry>& registry,
              const prometheus::Labels& labels) const;

 private:
  class Tls;
  std::shared_ptr<Tls> tls_;
};

}  // namespace tandem
