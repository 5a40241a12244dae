#include "tests/fakes/fake_worker.h"

#include <absl/strings/str_cat.h>

#include "services/runtime/status_map.h"

namespace tandem::test {
namespace {

std::string NameOf(const std::string& request, uint32_t choice, uint32_t attempt) {
  return absl::StrCat(request, "#", choice, ".", attempt);
}

}  // namespace

v1::Registration WorkerNamed(const std::string& id, const std::string& stages) {
  v1::Registration out;
  out.set_worker_id(id);
  out.set_incarnation(1);
  out.set_protocol_version(1);
  out.set_pool(stages);
  out.set_model("fake-model");
  out.set_memory_class(v1::MEMORY_CLASS_HBM);
  out.set_address(absl::StrCat(id, ".test:1"));
  out.mutable_capacity()->set_block_tokens(16);
  for (const char stage : stages) {
    if (stage == 'p') {
      out.add_stages(v1::STAGE_PREFILL);
      out.mutable_numerics()->set_prefill("fake/paged/kv:f16");
      out.mutable_capacity()->set_prefill_slots(4);
    } else if (stage == 'a') {
      out.add_stages(v1::STAGE_ATTENTION);
      out.mutable_numerics()->set_attention("fake/paged/kv:f16");
      out.mutable_capacity()->set_kv_blocks(64);
      out.mutable_capacity()->set_max_sequences(8);
    } else {
      out.add_stages(v1::STAGE_FFN);
      out.mutable_numerics()->set_ffn("fake/whole");
      out.mutable_capacity()->set_max_handoff_rows(64);
      out.set_shard_epoch(1);
    }
  }
  v1::ModelDimensions& model = *out.mutable_dimensions();
  model.set_layers(2);
  model.set_hidden(16);
  model.set_kv_heads(1);
  model.set_head_dim(16);
  model.set_vocabulary(256);
  model.set_context_tokens(1024);
  return out;
}

FakeWorker::FakeWorker(const std::string& router, v1::Registration registration, Answer answer)
    : registration_(std::move(registration)),
      answer_(std::move(answer)),
      stub_(v1::Registry::NewStub(MakeChannel(router))) {
  context_.set_wait_for_ready(true);
  stream_ = stub_->Register(&context_);
  v1::WorkerMessage message;
  *message.mutable_registration() = registration_;
  Send(message);
  reader_ = std::thread([this] { Read(); });
}

FakeWorker::~FakeWorker() {
  Cut();
  reader_.join();
}

void FakeWorker::Cut() { context_.TryCancel(); }

void FakeWorker::Read() {
  v1::RouterCommand command;
  while (stream_->Read(&command)) {
    if (command.has_registered()) {
      seen_.Change([&](Seen& seen) {
        seen.reply = command.registered();
        seen.registered = command.registered().has_error() ? FromProto(command.registered().error())
                                                           : absl::OkStatus();
      });
    } else {
      Obey(command);
    }
  }
  const absl::Status end = FromGrpc(stream_->Finish());
  seen_.Change([&](Seen& seen) { seen.ended = end; });
}

void FakeWorker::Obey(const v1::RouterCommand& command) {
  const std::optional<absl::Status> status = answer_ ? answer_(command) : absl::OkStatus();
  // Before the answer: who learns of that finds the command here.
  seen_.Change([&](Seen& seen) {
    seen.commands.push_back(command);
    if (command.has_decode() && status.has_value() && status->ok()) {
      for (const v1::DecodeChoice& choice : command.decode().choices()) {
        seen.holds.insert(NameOf(command.decode().request_id(), choice.choice(), choice.attempt()));
      }
    }
    for (const v1::SequenceKey& key : command.release().sequences()) {
      seen.holds.erase(NameOf(key.request_id(), key.choice(), key.attempt()));
    }
  });
  if (status.has_value()) {
    v1::WorkerMessage message;
    message.mutable_result()->set_command_id(command.command_id());
    if (!status->ok()) ToProto(*status, message.mutable_result()->mutable_error());
    Send(message);
  }
  if (!status.has_value() || !status->ok() || !report_prefills_) return;
  if (command.has_decode() && command.decode().local_prefill()) {
    const v1::DecodeChoice& first = command.decode().choices(0);
    SendPrefilled(command.decode().request_id(), first.choice(), first.attempt());
  } else if (command.has_prefill()) {
    const v1::SequenceKey& key = command.prefill().sequence();
    SendPrefilled(key.request_id(), key.choice(), key.attempt());
  }
}

absl::Status FakeWorker::AwaitRegistered() {
  seen_.Await("the answer to a registration",
              [](const Seen& seen) { return seen.registered || seen.ended; });
  const Seen seen = seen_.Get();
  return seen.registered.value_or(seen.ended.value_or(absl::UnknownError("no answer")));
}

absl::Status FakeWorker::AwaitEnd() {
  seen_.Await("the end of a worker's stream",
              [](const Seen& seen) { return seen.ended.has_value(); });
  return seen_.Get().ended.value_or(absl::UnknownError("still open"));
}

v1::RouterCommand FakeWorker::AwaitCommand(
    const char* what, const std::function<bool(const v1::RouterCommand&)>& matches, size_t count) {
  std::optional<v1::RouterCommand> found;
  seen_.Await(what, [&](const Seen& seen) {
    size_t left = count;
    for (const v1::RouterCommand& command : seen.commands) {
      if (!matches(command) || --left > 0) continue;
      found = command;
      return true;
    }
    return false;
  });
  return found.value_or(v1::RouterCommand());
}

size_t FakeWorker::CountCommands(const std::function<bool(const v1::RouterCommand&)>& matches) {
  size_t count = 0;
  for (const v1::RouterCommand& command : seen_.Get().commands) count += matches(command) ? 1 : 0;
  return count;
}

void FakeWorker::AwaitHolds(size_t sequences) {
  seen_.Await("a number of held sequences",
              [&](const Seen& seen) { return seen.holds.size() == sequences; });
}

std::set<std::string> FakeWorker::holds() { return seen_.Get().holds; }

void FakeWorker::Send(const v1::WorkerMessage& message) {
  MutexLock lock(write_mu_);
  stream_->Write(message);
}

void FakeWorker::SendHeartbeat(const v1::Heartbeat& heartbeat) {
  v1::WorkerMessage message;
  *message.mutable_heartbeat() = heartbeat;
  Send(message);
}

void FakeWorker::SendPrefilled(const std::string& request, uint32_t choice, uint32_t attempt) {
  v1::WorkerMessage message;
  v1::SequenceEvent& event = *message.mutable_sequence();
  event.mutable_sequence()->set_request_id(request);
  event.mutable_sequence()->set_choice(choice);
  event.mutable_sequence()->set_attempt(attempt);
  event.set_kind(v1::SequenceEvent::KIND_PREFILLED);
  Send(message);
}

void FakeWorker::SendEnded(const std::string& request, uint32_t choice, uint32_t attempt,
                           v1::EndReason reason) {
  seen_.Change([&](Seen& seen) { seen.holds.erase(NameOf(request, choice, attempt)); });
  v1::WorkerMessage message;
  v1::SequenceEvent& event = *message.mutable_sequence();
  event.mutable_sequence()->set_request_id(request);
  event.mutable_sequence()->set_choice(choice);
  event.mutable_sequence()->set_attempt(attempt);
  event.set_kind(v1::SequenceEvent::KIND_ENDED);
  event.set_reason(reason);
  Send(message);
}

}  // namespace tandem::test
