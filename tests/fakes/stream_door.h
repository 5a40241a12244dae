#pragma once

// The answering side of a long-lived gRPC stream, led by a test: takes streams, remembers what was
// said on each, says and ends what the test wants.

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "services/runtime/server_stream.h"
#include "tests/integration/rpc_support.h"

namespace tandem::test {

// Streams are numbered from 0 as they come, refused ones are not counted. Safe from any thread;
// outlives the server that it stands behind.
template <typename In, typename Out>
class StreamDoor {
 public:
  using Reactor = grpc::ServerBidiReactor<In, Out>;

  // For the service's method.
  Reactor* Open() {
    std::optional<absl::Status> refusal;
    std::shared_ptr<Stream> stream;
    seen_.Change([&](Seen& seen) {
      refusal = seen.refusal;
      if (refusal.has_value()) {
        seen.refused++;
        return;
      }
      stream = std::make_shared<Stream>(*this, seen.streams.size());
      seen.streams.push_back({stream, {}, false});
    });
    if (refusal.has_value()) return new RefusedStream<In, Out>(*refusal);
    stream->Start();
    return stream.get();
  }

  // New streams are ended at once with that; nullopt: taken again.
  void Refuse(std::optional<absl::Status> with) {
    seen_.Change([&](Seen& seen) { seen.refusal = std::move(with); });
  }
  void AwaitRefused(size_t streams) {
    seen_.Await("refused streams", [&](const Seen& seen) { return seen.refused >= streams; });
  }
  // The first message of the stream `number`.
  In AwaitHello(size_t number) {
    return Await(number, "a first message", [](const In&) { return true; });
  }
  // The `count`-th message of that stream that satisfies `matches`.
  In Await(size_t number, const std::string& what, const std::function<bool(const In&)>& matches,
           size_t count = 1) {
    std::optional<In> found;
    seen_.Await(absl::StrCat(what, " on stream ", number).c_str(), [&](const Seen& seen) {
      if (seen.streams.size() <= number) return false;
      size_t left = count;
      for (const In& message : seen.streams[number].messages) {
        if (!matches(message) || --left > 0) continue;
        found = message;
        return true;
      }
      return false;
    });
    return found.value_or(In());
  }
  std::vector<In> Messages(size_t number) { return seen_.Get().streams.at(number).messages; }
  size_t streams() { return seen_.Get().streams.size(); }
  void Send(size_t number, Out message) { StreamAt(number)->Write(std::move(message)); }
  void End(size_t number, const absl::Status& status) { StreamAt(number)->End(status); }
  void AwaitClosed(size_t number) {
    seen_.Await(absl::StrCat("the end of stream ", number).c_str(), [&](const Seen& seen) {
      return seen.streams.size() > number && seen.streams[number].closed;
    });
  }

 private:
  class Stream final : public ServerStream<In, Out> {
   public:
    Stream(StreamDoor& door, size_t number)
        : ServerStream<In, Out>({}), door_(door), number_(number) {}

   private:
    bool OnMessage(In& message) override {
      door_.seen_.Change([&](Seen& seen) { seen.streams[number_].messages.push_back(message); });
      return true;
    }
    void OnClosed() override {
      door_.seen_.Change([&](Seen& seen) { seen.streams[number_].closed = true; });
    }
    StreamDoor& door_;
    const size_t number_;
  };
  struct Opened {
    std::shared_ptr<Stream> stream;
    std::vector<In> messages;
    bool closed = false;
  };
  struct Seen {
    std::vector<Opened> streams;
    std::optional<absl::Status> refusal;
    size_t refused = 0;
  };
  std::shared_ptr<Stream> StreamAt(size_t number) { return seen_.Get().streams.at(number).stream; }

  Watched<Seen> seen_;
};

}  // namespace tandem::test
