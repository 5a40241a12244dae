#include "tests/fakes/fake_gateway.h"

#include <absl/strings/str_cat.h>

#include "services/runtime/status_map.h"

namespace tandem::test {

v1::GenerateRequest RequestNamed(const std::string& id, int prompt_tokens, int n) {
  v1::GenerateRequest out;
  out.set_request_id(id);
  for (int i = 0; i < prompt_tokens; i++) out.add_prompt_ids(i % 256);
  out.mutable_sampling()->set_temperature(0);
  out.mutable_stop()->set_max_tokens(8);
  for (int i = 0; i < n; i++) {
    v1::ChoiceStart& choice = *out.add_choices();
    choice.set_choice(i);
    choice.set_seed(i + 1);
  }
  return out;
}

v1::GatewayHello HelloFrom(const std::string& gateway_id) {
  v1::GatewayHello hello;
  hello.set_gateway_id(gateway_id);
  hello.set_protocol_version(1);
  hello.set_model("fake-model");
  return hello;
}

FakeGateway::FakeGateway(const std::string& router, const v1::GatewayHello& hello) {
  v1::GatewayMessage message;
  *message.mutable_hello() = hello;
  Start(router, message);
}

FakeGateway::FakeGateway(const std::string& router, const v1::GatewayMessage& first) {
  Start(router, first);
}

void FakeGateway::Start(const std::string& router, const v1::GatewayMessage& first) {
  stub_ = v1::Router::NewStub(MakeChannel(router));
  context_.set_wait_for_ready(true);
  stream_ = stub_->Generate(&context_);
  Send(first);
  reader_ = std::thread([this] {
    v1::RouterMessage message;
    while (stream_->Read(&message))
      seen_.Change([&](Seen& seen) { seen.messages.push_back(message); });
    const absl::Status end = FromGrpc(stream_->Finish());
    seen_.Change([&](Seen& seen) { seen.ended = end; });
  });
}

FakeGateway::~FakeGateway() {
  Cut();
  reader_.join();
}

void FakeGateway::Cut() { context_.TryCancel(); }

void FakeGateway::Send(const v1::GatewayMessage& message) {
  MutexLock lock(write_mu_);
  stream_->Write(message);
}

void FakeGateway::Generate(const v1::GenerateRequest& request) {
  v1::GatewayMessage message;
  *message.mutable_generate() = request;
  Send(message);
}

void FakeGateway::Abort(const std::string& request, const std::vector<uint32_t>& choices) {
  v1::GatewayMessage message;
  message.mutable_abort()->set_request_id(request);
  message.mutable_abort()->mutable_choices()->Add(choices.begin(), choices.end());
  Send(message);
}

v1::RouterMessage FakeGateway::Await(const std::string& what,
                                     const std::function<bool(const v1::RouterMessage&)>& matches,
                                     size_t count) {
  std::optional<v1::RouterMessage> found;
  seen_.Await(what.c_str(), [&](const Seen& seen) {
    size_t left = count;
    for (const v1::RouterMessage& message : seen.messages) {
      if (!matches(message) || --left > 0) continue;
      found = message;
      return true;
    }
    return false;
  });
  return found.value_or(v1::RouterMessage());
}

v1::RouterWelcome FakeGateway::AwaitWelcome() {
  return Await("a welcome", [](const auto& message) { return message.has_welcome(); }).welcome();
}

v1::ClusterState FakeGateway::AwaitState(bool ready) {
  v1::ClusterState newest;
  seen_.Await(ready ? "a ready cluster" : "a cluster that is not ready", [&](const Seen& seen) {
    for (auto it = seen.messages.rbegin(); it != seen.messages.rend(); ++it) {
      if (!it->has_state()) continue;
      newest = it->state();
      return newest.ready() == ready;
    }
    return false;
  });
  return newest;
}

v1::Placed FakeGateway::AwaitPlaced(const std::string& request, uint32_t choice, uint32_t attempt,
                                    size_t count) {
  const auto matches = [&](const v1::RouterMessage& message) {
    const v1::SequenceKey& key = message.placed().sequence();
    return message.has_placed() && key.request_id() == request && key.choice() == choice &&
           key.attempt() == attempt;
  };
  return Await(absl::StrCat("the placement of ", request, "#", choice, ".", attempt), matches,
               count)
      .placed();
}

v1::RouterSequenceEnd FakeGateway::AwaitEnd(const std::string& request, uint32_t choice,
                                            uint32_t attempt) {
  const auto matches = [&](const v1::RouterMessage& message) {
    const v1::SequenceKey& key = message.end().sequence();
    return message.has_end() && key.request_id() == request && key.choice() == choice &&
           key.attempt() == attempt;
  };
  return Await(absl::StrCat("the end of ", request, "#", choice, ".", attempt), matches).end();
}

absl::Status FakeGateway::AwaitStreamEnd() {
  seen_.Await("the end of a gateway's stream",
              [](const Seen& seen) { return seen.ended.has_value(); });
  return seen_.Get().ended.value_or(absl::UnknownError("still open"));
}

}  // namespace tandem::test
