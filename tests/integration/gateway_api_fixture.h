#pragma once

// The whole of the gateway but its gRPC: real HTTP in front, a model of bytes, and a relay whose
// router and attention worker the test speaks for.

#include <absl/strings/str_cat.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "services/gateway/http/api.h"
#include "tests/fakes/byte_text_model.h"
#include "tests/fakes/http_connection.h"
#include "tests/fakes/manual_time.h"
#include "tests/integration/watched.h"

namespace tandem::gateway {

// What the gateway said to its router and to its attention worker.
class RecordedLinks final : public RouterLink, public WorkerLink, public WorkerDialer {
 public:
  void Generate(const tandem::GenerateSpec& spec) override {
    said_.Change([&](Said& said) { said.asked.push_back(spec); });
  }
  void Abort(const RequestId& request, const std::vector<uint32_t>&) override {
    said_.Change([&](Said& said) { said.aborted.push_back(request.value()); });
  }
  void Stop(const SequenceKey& sequence, uint32_t position, EndReason reason) override {
    said_.Change([&](Said& said) { said.stops.push_back({sequence, position, reason}); });
  }
  void Acknowledge(uint64_t) override {}
  void Dial(const std::string&) override {}
  WorkerLink* Link(const WorkerId&) override { return this; }
  void Forget(const WorkerId&) override {}

  struct Stopped {
    SequenceKey sequence;
    uint32_t position = 0;
    EndReason reason = EndReason::kFailed;
  };
  // The `count`-th request.
  tandem::GenerateSpec AwaitAsked(size_t count = 1) {
    said_.Await("a request", [&](const Said& said) { return said.asked.size() >= count; });
    const Said said = said_.Get();
    return said.asked.size() < count ? tandem::GenerateSpec() : said.asked[count - 1];
  }
  std::string AwaitAborted() {
    said_.Await("an abort", [](const Said& said) { return !said.aborted.empty(); });
    return absl::StrCat(said_.Get().aborted.at(0));
  }
  Stopped AwaitStopped() {
    said_.Await("a stop", [](const Said& said) { return !said.stops.empty(); });
    return said_.Get().stops.at(0);
  }
  size_t asked() { return said_.Get().asked.size(); }

 private:
  struct Said {
    std::vector<tandem::GenerateSpec> asked;
    std::vector<std::string> aborted;
    std::vector<Stopped> stops;
  };
  test::Watched<Said> said_;
};

class GatewayApiTest : public ::testing::Test {
 protected:
  void Start(ApiConfig config = {}) {
    config.model_name = "byte-model";
    api_ = std::make_unique<Api>(
        config, text_, *relay_, time_, [] { return int64_t{1700000000}; }, /*seed=*/7,
        [this](const RequestRecord& record) {
          records_.Change([&](std::vector<RequestRecord>& all) { all.push_back(record); });
        });
    auto started = HttpServer::Start(
        "127.0.0.1:0", {},
        [this](HttpQuery query, HttpAnswer& answer) {
          return api_->Handle(std::move(query), answer);
        },
        &Api::ErrorBodyOf, [this] { return api_->NewId(); });
    ASSERT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
  }
  // With a router that has a cluster, and its attention worker's stream.
  void StartReady(ApiConfig config = {}) {
    relay_->AddRouter(links_);
    relay_->RouterUp(0, Duration::Seconds(10));
    relay_->ClusterChanged(0, {true, "", 1000, {{WorkerId("A"), "a:1"}}});
    relay_->WorkerUp(WorkerId("A"));
    Start(std::move(config));
  }
  ~GatewayApiTest() override { server_.reset(); }

  static std::string Get(const std::string& path, const std::string& method = "GET") {
    return absl::StrCat(method, " ", path, " HTTP/1.1\r\nHost: h\r\n\r\n");
  }
  static std::string Post(const std::string& path, const std::string& body) {
    return absl::StrCat("POST ", path,
                        " HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
                        "Content-Length: ",
                        body.size(), "\r\n\r\n", body);
  }
  static std::string Chat(const std::string& more = R"(,"stream":true)") {
    return Post(
        "/v1/chat/completions",
        R"({"model":"byte-model","messages":[{"role":"user","content":"hi"}])" + more + "}");
  }
  // One whole answer with a Content-Length of a connection of its own.
  std::string Ask(const std::string& query) {
    test::HttpConnection client(server_->port());
    std::string closing = query;
    closing.insert(closing.find("\r\n") + 2, "Connection: close\r\n");
    EXPECT_TRUE(client.Send(closing));
    return client.ReadAll();
  }

  // One step of one choice: the text's bytes as tokens, after `position` of them.
  void Say(const RequestId& request, uint32_t position, const std::string& text,
           std::optional<SequenceEnd> end = std::nullopt, uint32_t choice = 0) {
    SequenceTokens part;
    part.sequence = {request, choice, 0};
    part.position = position;
    for (const char c : text) part.tokens.push_back({static_cast<uint8_t>(c), {}});
    if (end.has_value()) part.result = SequenceResult{*std::move(end), {}, 0};
    relay_->Tokens(WorkerId("A"), {++step_, {std::move(part)}});
  }
  RequestRecord AwaitRecord() {
    records_.Await("a record", [](const auto& all) { return !all.empty(); });
    return records_.Get().at(0);
  }

  test::ManualTime time_;
  test::ByteTextModel text_;
  RecordedLinks links_;
  uint64_t step_ = 0;
  std::shared_ptr<Relay> relay_ = Relay::Create({}, time_, links_);
  test::Watched<std::vector<RequestRecord>> records_;
  std::unique_ptr<Api> api_;
  std::unique_ptr<HttpServer> server_;
};

}  // namespace tandem::gateway
