// TLS on gRPC links in one process: who is let in, and what a reload does to open and new
// connections.

#include <absl/strings/str_cat.h>
#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

#include <fstream>

#include "services/runtime/link_security.h"
#include "services/runtime/real_time.h"
#include "tandem/v1/trace.grpc.pb.h"
#include "tests/fakes/certificates.h"
#include "tests/integration/rpc_support.h"

namespace tandem {
namespace {

using test::PemPair;
using test::TestAuthority;
using test::TestTlsFiles;
using testing::HasSubstr;

constexpr Duration kOften = Duration::Milliseconds(5);

// Answers each request of a stream with a message.
class Echo final : public v1::Trace::Service {
  grpc::Status Watch(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<v1::TraceMessage, v1::TraceRequest>* stream) override {
    v1::TraceRequest request;
    while (stream->Read(&request)) stream->Write(v1::TraceMessage());
    return grpc::Status::OK;
  }
};

// A stream to the echo, which says whether it is alive.
class Client {
 public:
  explicit Client(const std::shared_ptr<grpc::Channel>& channel)
      : stub_(v1::Trace::NewStub(channel)) {
    context_.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    stream_ = stub_->Watch(&context_);
  }
  bool Ask() {
    v1::TraceMessage reply;
    return stream_->Write(v1::TraceRequest()) && stream_->Read(&reply);
  }
  grpc::Status Finish() {
    stream_->WritesDone();
    return stream_->Finish();
  }

 private:
  std::unique_ptr<v1::Trace::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::TraceRequest, v1::TraceMessage>> stream_;
};

// How a connection of its own fares: OK, or why not.
grpc::Status Try(const std::shared_ptr<grpc::Channel>& channel) {
  Client client(channel);
  const bool answered = client.Ask();
  const grpc::Status ended = client.Finish();
  EXPECT_EQ(answered, ended.ok()) << ended.error_message();
  return ended;
}
bool LetIn(const std::shared_ptr<grpc::Channel>& channel) {
  const grpc::Status status = Try(channel);
  EXPECT_TRUE(status.ok() || status.error_code() == grpc::StatusCode::UNAVAILABLE)
      << status.error_message();
  return status.ok();
}

// A client of gRPC's own making, which may be as wrong as it likes.
std::shared_ptr<grpc::Channel> OwnChannel(const std::string& address, const PemPair& own,
                                          const TestAuthority& authority) {
  grpc::SslCredentialsOptions options;
  options.pem_cert_chain = own.certificate;
  options.pem_private_key = own.key;
  options.pem_root_certs = authority.pem();
  grpc::ChannelArguments arguments;
  arguments.SetSslTargetNameOverride("tandem");
  return grpc::CreateCustomChannel(address, grpc::SslCredentials(options), arguments);
}

class TlsLinksTest : public testing::Test {
 protected:
  LinkSecurity Secured(const TestTlsFiles& files) const {
    absl::StatusOr<LinkSecurity> made = LinkSecurity::Make(files.files, kOften);
    EXPECT_TRUE(made.ok()) << made.status();
    return made.ok() ? *made : LinkSecurity();
  }
  // A process with a certificate of `authority` for `name`, which takes peers of the same.
  LinkSecurity Secured(const std::string& folder, const std::string& name,
                       const TestAuthority& authority) const {
    return Secured(TestTlsFiles(folder, authority.Issue(name), authority));
  }
  void Start(const LinkSecurity& security) {
    server_.emplace(std::vector<grpc::Service*>{&echo_}, "127.0.0.1:0", security);
  }
  std::shared_ptr<grpc::Channel> Dial(const LinkSecurity& security) const {
    return MakeChannel(server_->address(), security);
  }

  const TestAuthority authority_{"the authority"}, stranger_{"another authority"};
  Echo echo_;
  std::optional<test::TestServer> server_;
};

TEST_F(TlsLinksTest, TheRightCertificateIsLetIn) {
  Start(Secured("server", "tandem", authority_));
  EXPECT_TRUE(LetIn(Dial(Secured("client", "tandem", authority_))));
  EXPECT_TRUE(LetIn(OwnChannel(server_->address(), authority_.Issue("tandem"), authority_)));
}

TEST_F(TlsLinksTest, AClientWithoutACertificateIsRefused) {
  Start(Secured("server", "tandem", authority_));
  EXPECT_FALSE(LetIn(OwnChannel(server_->address(), {}, authority_)));
}

TEST_F(TlsLinksTest, AClientOfAnotherAuthorityIsRefused) {
  Start(Secured("server", "tandem", authority_));
  // It trusts the server's authority, so it is the server who refuses.
  EXPECT_FALSE(LetIn(OwnChannel(server_->address(), stranger_.Issue("tandem"), authority_)));
}

TEST_F(TlsLinksTest, AClientWithAnotherNameIsRefused) {
  Start(Secured("server", "tandem", authority_));
  for (const char* name : {"somebody", "*.tandem", "tandem.example"}) {
    EXPECT_FALSE(LetIn(OwnChannel(server_->address(), authority_.Issue(name), authority_))) << name;
  }
}

TEST_F(TlsLinksTest, AClientWhoseCertificateHasExpiredIsRefused) {
  Start(Secured("server", "tandem", authority_));
  const PemPair expired = authority_.Issue("tandem", Duration::Seconds(-60));
  EXPECT_FALSE(LetIn(OwnChannel(server_->address(), expired, authority_)));
}

TEST_F(TlsLinksTest, AServerWhoseCertificateExpiresIsRefusedFromThenOn) {
  const PemPair brief = authority_.Issue("tandem", Duration::Seconds(3));
  Start(Secured(TestTlsFiles("server", brief, authority_)));
  const LinkSecurity client = Secured("client", "tandem", authority_);
  EXPECT_TRUE(LetIn(Dial(client)));
  while (LetIn(Dial(client))) {}
  EXPECT_EQ(LinkSecurity::Make(TestTlsFiles("again", brief, authority_).files).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(TlsLinksTest, PlainTextIsRefusedByTlsAndTlsByPlainText) {
  Start(Secured("server", "tandem", authority_));
  EXPECT_FALSE(LetIn(Dial(LinkSecurity())));
  const LinkSecurity secured = Secured("client", "tandem", authority_);
  server_.reset();
  Start(LinkSecurity());
  EXPECT_FALSE(LetIn(Dial(secured)));
  EXPECT_TRUE(LetIn(Dial(LinkSecurity())));
}

TEST_F(TlsLinksTest, AServerOfAnotherAuthorityOrNameIsRefusedByTheClient) {
  const LinkSecurity client = Secured("client", "tandem", authority_);
  Start(Secured("named", "somebody", authority_));
  const grpc::Status named = Try(Dial(client));
  EXPECT_EQ(named.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(named.error_message(), HasSubstr("for the DNS name tandem"));
  server_.reset();
  // It takes clients of the one authority, and is itself of the other.
  Start(Secured(TestTlsFiles("strange", stranger_.Issue("tandem"), authority_)));
  EXPECT_FALSE(LetIn(Dial(client)));
  EXPECT_TRUE(LetIn(OwnChannel(server_->address(), authority_.Issue("tandem"), stranger_)));
}

TEST_F(TlsLinksTest, TheNameIsTheOperatorsChoice) {
  TestTlsFiles server("server", authority_.Issue("prod.tandem"), authority_);
  TestTlsFiles client("client", authority_.Issue("prod.tandem"), authority_);
  server.files.name = client.files.name = "prod.tandem";
  Start(Secured(server));
  EXPECT_TRUE(LetIn(Dial(Secured(client))));
  EXPECT_FALSE(LetIn(Dial(Secured("other", "tandem", authority_))));
}

// Everything is replaced, down to the authority. A stream that was open before goes on; from some
// moment on new connections are judged by the new files alone.
TEST_F(TlsLinksTest, AReloadChangesNewConnectionsAndLeavesOpenOnes) {
  TestTlsFiles servers("server", authority_.Issue("tandem"), authority_);
  TestTlsFiles clients("client", authority_.Issue("tandem"), authority_);
  Start(Secured(servers));
  const LinkSecurity client = Secured(clients);
  Client open(Dial(client));
  ASSERT_TRUE(open.Ask());

  const TestAuthority next("the next authority");
  servers.Replace(next.Issue("tandem"), next);
  const PemPair new_pair = next.Issue("tandem"), old_pair = authority_.Issue("tandem");
  while (!LetIn(OwnChannel(server_->address(), new_pair, next))) ASSERT_TRUE(open.Ask());
  EXPECT_FALSE(LetIn(OwnChannel(server_->address(), old_pair, authority_)));
  EXPECT_FALSE(LetIn(OwnChannel(server_->address(), old_pair, next)));

  clients.Replace(next.Issue("tandem"), next);
  while (!LetIn(Dial(client))) ASSERT_TRUE(open.Ask());
  EXPECT_TRUE(open.Ask());
  EXPECT_TRUE(open.Finish().ok());
}

std::string MetricsOf(prometheus::Registry& registry) {
  return prometheus::TextSerializer().Serialize(registry.Collect());
}
double ValueOf(prometheus::Registry& registry, const std::string& name) {
  for (const prometheus::MetricFamily& family : registry.Collect()) {
    if (family.name != name) continue;
    const prometheus::ClientMetric& metric = family.metric.at(0);
    return family.type == prometheus::MetricType::Counter ? metric.counter.value
                                                          : metric.gauge.value;
  }
  ADD_FAILURE() << name << " is not exported: " << MetricsOf(registry);
  return -1;
}

constexpr char kFailures[] = "tandem_tls_reload_failures_total";
constexpr char kNotAfter[] = "tandem_tls_certificate_not_after_seconds";

TEST_F(TlsLinksTest, ABadReplacementIsCountedAndTheOldOnesStayInUse) {
  const PemPair first = authority_.Issue("tandem", Duration::Seconds(3600));
  TestTlsFiles files("server", first, authority_);
  const LinkSecurity security = Secured(files);
  const auto registry = std::make_shared<prometheus::Registry>();
  security.Export(registry, {{"pool", "p"}});
  const double not_after = ValueOf(*registry, kNotAfter);
  EXPECT_NEAR(not_after, static_cast<double>(std::time(nullptr) + 3600), 600);
  EXPECT_EQ(ValueOf(*registry, kFailures), 0);
  EXPECT_THAT(MetricsOf(*registry), HasSubstr("tandem_tls_reload_failures_total{pool=\"p\"} 0"));
  Start(security);
  const LinkSecurity client = Secured("client", "tandem", authority_);

  double failures = 0;
  for (const std::string& bad :
       {std::string("no key"), authority_.Issue("tandem").key, std::string()}) {
    test::ReplaceFile(files.files.key, bad);
    failures++;
    while (ValueOf(*registry, kFailures) < failures) {}
    EXPECT_EQ(ValueOf(*registry, kFailures), failures);
    EXPECT_EQ(ValueOf(*registry, kNotAfter), not_after);
  }
  // Until gRPC has looked at what it was given twice over, had it been given anything.
  RealTimeSource time;
  const Instant looked = time.Now() + Duration::Seconds(3);
  while (time.Now() < looked) ASSERT_TRUE(LetIn(Dial(client)));

  files.Replace(authority_.Issue("tandem", Duration::Seconds(7200)), authority_);
  while (ValueOf(*registry, kNotAfter) == not_after) {}
  EXPECT_EQ(ValueOf(*registry, kFailures), failures);
  EXPECT_TRUE(LetIn(Dial(client)));
}

TEST_F(TlsLinksTest, PlainTextExportsThatItIs) {
  const auto registry = std::make_shared<prometheus::Registry>();
  LinkSecurity().Export(registry, {});
  EXPECT_EQ(ValueOf(*registry, kFailures), 0);
  EXPECT_EQ(ValueOf(*registry, kNotAfter), 0);
}

TEST_F(TlsLinksTest, AFileThatIsNotThereIsNamed) {
  TestTlsFiles files("server", authority_.Issue("tandem"), authority_);
  files.files.authority += ".away";
  const absl::Status status = LinkSecurity::Make(files.files).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr(files.files.authority));
}

}  // namespace
}  // namespace tandem
