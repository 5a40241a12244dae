#include "workers/microbench/time_calls.h"

#include <absl/types/span.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>
#include <utility>

#include "scheduler/base/check.h"
#include "scheduler/base/random.h"
#include "scheduler/base/status.h"
#include "services/runtime/mutex.h"

namespace tandem {
namespace {

using cost::CallKind;
using cost::CallShape;

// What the neighbour computes over and over.
constexpr CallShape kNeighbourFfn = {CallKind::kFfn, 8, 0};
constexpr CallShape kNeighbourAttention = {CallKind::kAttention, 8, 64};

uint32_t BlocksOf(const CallShape& shape, uint32_t block_tokens) {
  const auto blocks = [&](uint64_t positions) {
    return static_cast<uint32_t>((positions + block_tokens - 1) / block_tokens);
  };
  if (shape.kind == CallKind::kAttention)
    return static_cast<uint32_t>(shape.rows) * blocks(shape.positions);
  return shape.kind == CallKind::kPrefill ? blocks(shape.positions + shape.rows) : 0;
}

Sampling Greedy() {
  Sampling sampling;
  sampling.temperature = 0;
  return sampling;
}

// Calls of one backend, on one thread.
class Caller {
 public:
  Caller(StageBackend& backend, uint32_t block_tokens)
      : backend_(backend), block_tokens_(block_tokens) {}

  // One layer's, or the head. Prepare before it.
  absl::Status Call(const CallShape& shape, uint32_t layer) {
    if (shape.kind == CallKind::kHead)
      return backend_.HeadAndSample(samples_, *residual_, ffn_out_.get(), tokens_)->Wait();
    if (shape.kind != CallKind::kFfn) {
      RETURN_IF_ERROR(backend_.AttentionLayer(layer, kv_rows_, *residual_, ffn_out_.get())->Wait());
    }
    if (shape.kind == CallKind::kAttention) return absl::OkStatus();
    return backend_.FfnLayer(layer, static_cast<uint32_t>(shape.rows), *residual_, *ffn_out_)
        ->Wait();
  }
  // All layers once; the head once.
  absl::Status Pass(const CallShape& shape) {
    for (uint32_t layer = 0; layer < Calls(shape); layer++) RETURN_IF_ERROR(Call(shape, layer));
    return absl::OkStatus();
  }

  // Rows as a model's are in size, the same each time, and where their KV lies.
  absl::Status Prepare(const CallShape& shape) {
    const auto rows = static_cast<uint32_t>(shape.rows);
    if (rows > capacity_) {
      ASSIGN_OR_RETURN(residual_, backend_.AllocateRows(rows));
      ASSIGN_OR_RETURN(ffn_out_, backend_.AllocateRows(rows));
      capacity_ = rows;
    }
    Random random(rows);
    for (Buffer* buffer : {residual_.get(), ffn_out_.get()}) {
      std::vector<float> values(size_t{rows} * backend_.info().dimensions.hidden);
      for (float& value : values) value = static_cast<float>(random.Uniform() - 0.5);
      buffer->Write(0, values);
    }
    PlaceKv(shape);
    samples_.assign(rows, {&greedy_, 1, 0, &prompt_, &emitted_});
    return absl::OkStatus();
  }

  uint32_t Calls(const CallShape& shape) const {
    return shape.kind == CallKind::kHead ? 1 : backend_.info().dimensions.layers;
  }

 private:
  // Decode: each row a sequence of its own. Prefill: all rows of one.
  void PlaceKv(const CallShape& shape) {
    kv_rows_.clear();
    tables_.clear();
    const bool prefill = shape.kind == CallKind::kPrefill;
    if (!prefill && shape.kind != CallKind::kAttention) return;
    const uint32_t all = BlocksOf(shape, block_tokens_);
    tables_.resize(prefill ? 1 : shape.rows);
    for (uint32_t block = 0; block < all; block++)
      tables_[block % tables_.size()].push_back(block);  // rows' blocks lie between each other's
    for (uint32_t i = 0; i < shape.rows; i++) {
      const uint64_t position = prefill ? shape.positions + i : shape.positions - 1;
      kv_rows_.push_back({0, static_cast<uint32_t>(position), &tables_[prefill ? 0 : i]});
    }
  }

  StageBackend& backend_;
  const uint32_t block_tokens_;
  const Sampling greedy_ = Greedy();
  const std::vector<TokenId> prompt_ = {1}, emitted_;
  uint32_t capacity_ = 0;
  BufferRef residual_, ffn_out_;
  std::vector<step::BlockTable> tables_;
  std::vector<step::KvRow> kv_rows_;
  std::vector<step::SampleRow> samples_;
  std::vector<step::SampledToken> tokens_;
};

// Computes the same call over and over on a thread of its own, while it lives.
class Neighbour {
 public:
  Neighbour(StageBackend& backend, uint32_t block_tokens, const CallShape& shape)
      : thread_([this, &backend, block_tokens, shape] { Run(backend, block_tokens, shape); }) {
    started_.wait(false);
  }
  ~Neighbour() { Join(); }
  Neighbour(const Neighbour&) = delete;
  Neighbour& operator=(const Neighbour&) = delete;

  absl::Status Stop() {
    Join();
    return status_;
  }

 private:
  void Join() {
    stopping_ = true;
    if (thread_.joinable()) thread_.join();
  }
  void Run(StageBackend& backend, uint32_t block_tokens, const CallShape& shape) {
    Caller caller(backend, block_tokens);
    while (status_.ok() && !stopping_) {  // once at least
      status_ = caller.Prepare(shape);
      if (status_.ok()) status_ = caller.Pass(shape);
      started_ = true;
      started_.notify_one();
    }
  }

  std::atomic<bool> stopping_ = false, started_ = false;
  absl::Status status_;  // the thread's, until it is joined
  std::thread thread_;
};

// Computes one call whenever it is asked, on a thread of its own, while the asker sleeps.
class Partner {
 public:
  Partner(StageBackend& backend, uint32_t block_tokens)
      : caller_(backend, block_tokens), thread_([this] { Run(); }) {}
  ~Partner() {
    {
      MutexLock lock(mu_);
      stopping_ = true;
      changed_.NotifyAll();
    }
    thread_.join();
  }
  Partner(const Partner&) = delete;
  Partner& operator=(const Partner&) = delete;

  absl::Status Prepare(const CallShape& shape) { return caller_.Prepare(shape); }
  absl::Status Call(const CallShape& shape, uint32_t layer) {
    MutexLock lock(mu_);
    shape_ = shape, layer_ = layer, asked_ = true;
    changed_.NotifyAll();
    while (asked_) changed_.Wait(lock);
    return status_;
  }

 private:
  void Run() {
    MutexLock lock(mu_);
    for (;;) {
      while (!asked_ && !stopping_) changed_.Wait(lock);
      if (stopping_) return;
      const CallShape shape = shape_;
      const uint32_t layer = layer_;
      lock.Unlock();
      absl::Status status = caller_.Call(shape, layer);
      lock.Lock();
      status_ = std::move(status), asked_ = false;
      changed_.NotifyAll();
    }
  }

  Caller caller_;  // the thread's while `asked_`, else the asker's
  Mutex mu_;
  CondVar changed_;
  bool asked_ TANDEM_GUARDED_BY(mu_) = false, stopping_ TANDEM_GUARDED_BY(mu_) = false;
  CallShape shape_ TANDEM_GUARDED_BY(mu_);
  uint32_t layer_ TANDEM_GUARDED_BY(mu_) = 0;
  absl::Status status_ TANDEM_GUARDED_BY(mu_);
  std::thread thread_;
};

struct Samples {
  cost::CallShape shape;
  Pattern pattern = Pattern::kAlone;
  std::vector<double> seconds;
};

// The other stage's call of the same rows.
CallShape OtherStage(const CallShape& shape) {
  if (shape.kind == CallKind::kFfn)
    return {CallKind::kAttention, shape.rows, kNeighbourAttention.positions};
  return {CallKind::kFfn, shape.rows, 0};
}

absl::Status TimeInTurns(Caller& caller, Partner& partner, const TimeSource& time, bool keep,
                         const std::vector<Samples*>& samples) {
  for (Samples* sample : samples) {
    const CallShape& shape = sample->shape;
    const CallShape other = OtherStage(shape);
    RETURN_IF_ERROR(caller.Prepare(shape));
    RETURN_IF_ERROR(partner.Prepare(other));
    Duration sum;
    for (uint32_t layer = 0; layer < caller.Calls(shape); layer++) {
      RETURN_IF_ERROR(partner.Call(other, layer));
      const Instant start = time.Now();
      RETURN_IF_ERROR(caller.Call(shape, layer));
      sum += time.Now() - start;
    }
    if (keep) sample->seconds.push_back(sum.seconds() / caller.Calls(shape));
  }
  return absl::OkStatus();
}

absl::Status TimeEach(Caller& caller, const TimeSource& time, bool keep,
                      const std::vector<Samples*>& samples) {
  for (Samples* sample : samples) {
    RETURN_IF_ERROR(caller.Prepare(sample->shape));
    const Instant start = time.Now();
    RETURN_IF_ERROR(caller.Pass(sample->shape));
    if (!keep) continue;
    sample->seconds.push_back((time.Now() - start).seconds() / caller.Calls(sample->shape));
  }
  return absl::OkStatus();
}

absl::Status Beside(StageBackend& backend, uint32_t block_tokens, const CallShape& load,
                    const std::function<absl::Status()>& what) {
  Neighbour neighbour(backend, block_tokens, load);
  const absl::Status done = what();
  RETURN_IF_ERROR(neighbour.Stop());
  return done;
}

}  // namespace

absl::string_view PatternName(Pattern pattern) {
  switch (pattern) {
    case Pattern::kAlone:
      return "alone";
    case Pattern::kTurns:
      return "turns";
    case Pattern::kContended:
      return "contended";
  }
  return "unknown";
}

std::vector<CallShape> ShapesOf(const TimingPlan& plan) {
  std::vector<CallShape> shapes;
  for (const uint32_t rows : plan.rows) {
    for (const uint32_t context : plan.contexts)
      shapes.push_back({CallKind::kAttention, rows, context});
    shapes.push_back({CallKind::kFfn, rows, 0});
    shapes.push_back({CallKind::kHead, rows, 0});
  }
  for (const uint32_t rows : plan.chunk_rows) {
    for (const uint32_t first : plan.chunk_firsts)
      shapes.push_back({CallKind::kPrefill, rows, first});
  }
  return shapes;
}

uint32_t BlocksFor(const TimingPlan& plan, uint32_t block_tokens) {
  uint32_t most = BlocksOf(kNeighbourAttention, block_tokens);
  for (const CallShape& shape : ShapesOf(plan)) {
    most =
        std::max({most, BlocksOf(shape, block_tokens), BlocksOf(OtherStage(shape), block_tokens)});
  }
  return most;
}

absl::StatusOr<std::vector<CallTiming>> TimeCalls(StageBackend& device, StageBackend* neighbour,
                                                  uint32_t block_tokens, const TimingPlan& plan,
                                                  const TimeSource& time,
                                                  const std::function<void(uint32_t)>& progress) {
  std::vector<Samples> samples;
  for (const CallShape& shape : ShapesOf(plan)) {
    samples.push_back({shape, Pattern::kAlone, {}});
    if (neighbour == nullptr) continue;
    if (shape.kind != CallKind::kPrefill) samples.push_back({shape, Pattern::kTurns, {}});
    samples.push_back({shape, Pattern::kContended, {}});
  }
  std::vector<Samples*> alone, in_turns, beside_ffn, beside_attention;
  for (Samples& sample : samples) {
    const bool ffn = sample.shape.kind == CallKind::kFfn;
    switch (sample.pattern) {
      case Pattern::kAlone:
        alone.push_back(&sample);
        break;
      case Pattern::kTurns:
        in_turns.push_back(&sample);
        break;
      case Pattern::kContended:
        (ffn ? beside_attention : beside_ffn).push_back(&sample);
        break;
    }
  }
  Caller caller(device, block_tokens);
  for (uint32_t round = 0; round <= plan.rounds; round++) {  // the first builds graphs
    const bool keep = round > 0;
    RETURN_IF_ERROR(TimeEach(caller, time, keep, alone));
    if (neighbour != nullptr) {
      {
        Partner partner(*neighbour, block_tokens);
        RETURN_IF_ERROR(TimeInTurns(caller, partner, time, keep, in_turns));
      }
      RETURN_IF_ERROR(Beside(*neighbour, block_tokens, kNeighbourFfn,
                             [&] { return TimeEach(caller, time, keep, beside_ffn); }));
      RETURN_IF_ERROR(Beside(*neighbour, block_tokens, kNeighbourAttention,
                             [&] { return TimeEach(caller, time, keep, beside_attention); }));
    }
    progress(round);
  }
  std::vector<CallTiming> timings;
  for (Samples& sample : samples) {
    const MedianSpread middle = MedianOf(std::move(sample.seconds));
    timings.push_back({sample.shape, sample.pattern, middle.median, middle.spread});
  }
  return timings;
}

absl::Status WhileNeighbourComputes(StageBackend& neighbour, uint32_t block_tokens,
                                    const std::function<absl::Status()>& what) {
  return Beside(neighbour, block_tokens, kNeighbourFfn, what);
}

MedianSpread MedianOf(std::vector<double> values) {
  TANDEM_CHECK(!values.empty());
  std::sort(values.begin(), values.end());
  const auto at = [&](size_t quarter) { return values[(values.size() - 1) * quarter / 4]; };
  return {at(2), (at(3) - at(1)) / at(2)};
}

double ReadBandwidth(const TimeSource& time) {
  constexpr size_t kBytes = 128 << 20;
  constexpr int kPasses = 9;
  const std::vector<uint8_t> memory(kBytes, 1);
  std::vector<double> seconds;
  for (int pass = 0; pass < kPasses; pass++) {
    const Instant start = time.Now();
    // The C library's fastest way through memory: the byte is not there.
    const void* const found = std::memchr(memory.data(), 2 + pass, memory.size());
    TANDEM_CHECK(found == nullptr);
    seconds.push_back((time.Now() - start).seconds());
  }
  return static_cast<double>(kBytes) / MedianOf(std::move(seconds)).median;
}

}  // namespace tandem
