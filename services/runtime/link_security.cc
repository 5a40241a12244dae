#include "services/runtime/link_security.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <fcntl.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/base/check.h"
#include "scheduler/base/status.h"
#include "services/runtime/file_watch.h"
#include "services/runtime/log.h"
#include "services/runtime/mutex.h"

namespace tandem {
namespace {

namespace tls = grpc::experimental;

constexpr unsigned kGrpcLooksEverySeconds = 1;  // the least that it takes

// A file of this process's memory, at a path that is this process's own. gRPC 1.51 reloads
// certificates from files alone, and takes whatever it finds in them; so it gets what was checked,
// and none of it ever is on a disk. Never closed: gRPC's thread may read a moment longer than any
// owner lives, and a process has two of them.
class MemoryFile {
 public:
  MemoryFile() : fd_(memfd_create("tandem-tls", MFD_CLOEXEC)) { TANDEM_CHECK(fd_ >= 0); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  std::string path() const { return absl::StrCat("/proc/self/fd/", fd_); }

  // All of it at once: a reader sees what was there or what is there. Its time of modification is
  // `version`, by which gRPC knows that it read two files of one version.
  absl::Status Replace(absl::string_view text, int64_t version) {
    const int next = memfd_create("tandem-tls", MFD_CLOEXEC);
    if (next < 0) return absl::ErrnoToStatus(errno, "memory for certificates");
    absl::Status status = Fill(next, text, version);
    if (status.ok() && dup3(next, fd_, O_CLOEXEC) < 0)
      status = absl::ErrnoToStatus(errno, "memory for certificates");
    close(next);
    return status;
  }

 private:
  static absl::Status Fill(int fd, absl::string_view text, int64_t version) {
    const timespec times[2] = {{.tv_sec = version, .tv_nsec = 0},
                               {.tv_sec = version, .tv_nsec = 0}};
    if (write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
        futimens(fd, times) == 0) {
      return absl::OkStatus();
    }
    return absl::ErrnoToStatus(errno, "memory for certificates");
  }

  const int fd_;
};

// Asks for one DNS name among the subject's alternative ones; neither wildcards nor the common name
// count. Peers are dialled by address, so the name says what they are and not where.
class PeerNameVerifier final : public tls::ExternalCertificateVerifier {
 public:
  explicit PeerNameVerifier(std::string name) : name_(std::move(name)) {}

  bool Verify(tls::TlsCustomVerificationCheckRequest* request,
              std::function<void(grpc::Status)> /*callback*/, grpc::Status* sync_status) override {
    std::vector<std::string> names;
    for (const grpc::string_ref& name : request->dns_names()) {
      names.emplace_back(name.data(), name.size());
      if (absl::EqualsIgnoreCase(names.back(), name_)) {
        *sync_status = grpc::Status::OK;
        return true;
      }
    }
    const std::string reason =
        absl::StrCat("the peer's certificate is for [", absl::StrJoin(names, ", "),
                     "] and not for the DNS name ", name_);
    LogWarn("tls_peer_refused", {{"reason", reason}});
    *sync_status = grpc::Status(grpc::StatusCode::UNAUTHENTICATED, reason);
    return true;
  }
  void Cancel(tls::TlsCustomVerificationCheckRequest* /*request*/) override {}

 private:
  const std::string name_;
};

}  // namespace

class LinkSecurity::Tls {
 public:
  static absl::StatusOr<std::shared_ptr<Tls>> Make(const TlsFiles& files, Duration look_every) {
    FileTexts texts = ReadTextFiles(files.Paths());
    RETURN_IF_ERROR(texts.status());
    const auto made = std::make_shared<Tls>(files);
    RETURN_IF_ERROR(made->Take(*texts));
    made->MakeCredentials();
    made->watch_ = std::make_unique<FileWatch>(
        files.Paths(), std::move(texts), look_every,
        [made = made.get()](const FileTexts& changed) { made->Changed(changed); });
    return made;
  }
  explicit Tls(const TlsFiles& files) : files_(files) {}

  void Export(const std::shared_ptr<prometheus::Registry>& registry, prometheus::Counter& failures,
              prometheus::Gauge& not_after) TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    told_.push_back({registry, &failures, &not_after});
    not_after.Set(static_cast<double>(not_after_));
  }

  const std::string& name() const { return files_.name; }
  std::shared_ptr<grpc::ServerCredentials> server_credentials;
  std::shared_ptr<grpc::ChannelCredentials> channel_credentials;

 private:
  struct Told {
    std::shared_ptr<prometheus::Registry> registry;  // whose the others are
    prometheus::Counter* failures;
    prometheus::Gauge* not_after;
  };

  absl::Status Take(const std::vector<std::string>& texts) TANDEM_EXCLUDES(mu_) {
    ASSIGN_OR_RETURN(const TlsTexts checked, CheckTlsTexts(files_, texts));
    version_++;
    RETURN_IF_ERROR(authority_.Replace(checked.authority, version_));
    // One file, so that nobody sees a new key beside an old certificate.
    RETURN_IF_ERROR(
        identity_.Replace(absl::StrCat(checked.key, "\n", checked.certificate), version_));
    MutexLock lock(mu_);
    not_after_ = checked.not_after_unix_seconds;
    for (const Told& told : told_) told.not_after->Set(static_cast<double>(not_after_));
    return absl::OkStatus();
  }

  void Changed(const FileTexts& texts) TANDEM_EXCLUDES(mu_) {
    const absl::Status taken = texts.ok() ? Take(*texts) : texts.status();
    if (taken.ok()) {
      return LogInfo(
          "tls_reloaded",
          {{"certificate", files_.certificate}, {"key", files_.key}, {"ca", files_.authority}});
    }
    LogError("tls_reload_failed", {{"reason", taken.message()}, {"in_use", "the ones before"}});
    MutexLock lock(mu_);
    for (const Told& told : told_) told.failures->Increment();
  }

  void MakeCredentials() {
    const auto provider = std::make_shared<tls::FileWatcherCertificateProvider>(
        identity_.path(), identity_.path(), authority_.path(), kGrpcLooksEverySeconds);
    const auto verifier = tls::ExternalCertificateVerifier::Create<PeerNameVerifier>(files_.name);
    const auto set = [&](tls::TlsCredentialsOptions& options) {
      options.set_certificate_provider(provider);
      options.watch_root_certs();
      options.watch_identity_key_cert_pairs();
      options.set_certificate_verifier(verifier);
      options.set_check_call_host(false);  // the verifier has looked for the name
    };
    tls::TlsServerCredentialsOptions server(provider);
    set(server);
    server.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
    server_credentials = tls::TlsServerCredentials(server);
    tls::TlsChannelCredentialsOptions channel;
    set(channel);
    channel_credentials = tls::TlsCredentials(channel);
  }

  const TlsFiles files_;
  MemoryFile identity_, authority_;
  int64_t version_ = 0;  // of the thread that takes
  Mutex mu_;
  int64_t not_after_ TANDEM_GUARDED_BY(mu_) = 0;
  std::vector<Told> told_ TANDEM_GUARDED_BY(mu_);
  std::unique_ptr<FileWatch> watch_;  // last: its thread uses all of the above
};

absl::StatusOr<LinkSecurity> LinkSecurity::Make(const TlsFiles& files, Duration look_every) {
  RETURN_IF_ERROR(CheckTlsFiles(files));
  LinkSecurity security;
  if (!files.given()) return security;
  ASSIGN_OR_RETURN(security.tls_, Tls::Make(files, look_every));
  return security;
}

std::shared_ptr<grpc::ServerCredentials> LinkSecurity::ForServers() const {
  return tls() ? tls_->server_credentials : grpc::InsecureServerCredentials();
}

std::shared_ptr<grpc::ChannelCredentials> LinkSecurity::ForChannels() const {
  return tls() ? tls_->channel_credentials : grpc::InsecureChannelCredentials();
}

// The server hears which name is asked for: of an address it would complain in its log.
void LinkSecurity::Configure(grpc::ChannelArguments& arguments) const {
  if (tls()) arguments.SetSslTargetNameOverride(tls_->name());
}

void LinkSecurity::Export(const std::shared_ptr<prometheus::Registry>& registry,
                          const prometheus::Labels& labels) const {
  prometheus::Counter& failures =
      prometheus::BuildCounter()
          .Name("tandem_tls_reload_failures_total")
          .Help("Replaced certificates, keys or authorities that were no good and not taken.")
          .Register(*registry)
          .Add(labels);
  prometheus::Gauge& not_after =
      prometheus::BuildGauge()
          .Name("tandem_tls_certificate_not_after_seconds")
          .Help("When the certificate in use expires, in seconds since 1970; 0: plain text.")
          .Register(*registry)
          .Add(labels);
  if (tls()) tls_->Export(registry, failures, not_after);
}

}  // namespace tandem
