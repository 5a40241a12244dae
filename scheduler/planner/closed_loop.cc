#include "scheduler/planner/closed_loop.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <deque>
#include <queue>
#include <utility>
#include <vector>

#include "scheduler/base/random.h"
#include "scheduler/base/status.h"
#include "scheduler/cost/footprint.h"

namespace tandem::planner {
namespace {

using cost::CostTable;

struct Request {
  int64_t sent = 0, first_token = 0;  // ns
  uint64_t prompt = 0, output = 0;
  uint64_t computed = 0;  // of the prompt
  uint64_t kv_bytes = 0;  // reserved
};

// A request by when something happens to it: earlier first, ties to the lower number.
using At = std::pair<int64_t, size_t>;
using Soonest = std::priority_queue<At, std::vector<At>, std::greater<>>;

class Loop {
 public:
  Loop(const CostTable& table, const ClosedLoopLoad& load)
      : table_(table), load_(load), random_(load.seed) {
    const auto& shape = table.shape();
    const cost::Footprint empty =
        cost::FootprintOf(table.device(), shape, table.precision(), cost::Holding::Everything(), 0);
    kv_free_ = table.device().memory_bytes() - static_cast<double>(empty.total());
    kv_copies_ = cost::KvCopies(shape, table.device());
    requests_.reserve(load.requests);
  }

  absl::Status Run();
  ClosedLoopReport Report();

 private:
  uint64_t Length(uint64_t longest);
  void Send();
  void Arrive();
  void Admit();
  cost::PrefillRows NextRows();
  void Step();
  void Skip();
  void Decode(int64_t steps, Duration each);
  void Finish(size_t number);
  cost::AttentionRows Rows(uint64_t ahead) const;

  const CostTable& table_;
  const ClosedLoopLoad& load_;
  Random random_;
  double kv_free_ = 0;
  uint64_t kv_copies_ = 1;
  std::vector<Request> requests_;
  Soonest arrivals_;            // by time
  std::deque<size_t> waiting_;  // arrived, not admitted
  std::deque<size_t> prefilling_;
  std::vector<size_t> ended_prompts_;  // of this step
  Soonest running_;                    // by the step that gives the last token
  uint64_t context_ = 0;               // positions of all running sequences
  uint64_t open_ = 0;                  // requests sent and not ended
  int64_t now_ = 0, step_ = 0;
  // Sums for the report.
  std::vector<int64_t> ttft_;
  double tpot_sum_ = 0, tokens_ = 0, running_time_ = 0;
  uint64_t waiting_most_ = 0, tpots_ = 0;
};

uint64_t Loop::Length(uint64_t longest) {
  const auto shortest = static_cast<uint64_t>(static_cast<double>(longest) * load_.shortest);
  const uint64_t least = std::clamp<uint64_t>(shortest, 1, longest);
  return least + random_.Below(longest - least + 1);
}

void Loop::Send() {
  if (requests_.size() == load_.requests) return;
  Request request;
  request.sent = now_;
  request.prompt = Length(load_.request.prompt_tokens);
  request.output = Length(load_.request.output_tokens);
  const auto reserved =
      static_cast<uint64_t>(static_cast<double>(request.output) * table_.engine().kv_reserve);
  request.kv_bytes =
      cost::KvBytes(table_.shape(), table_.precision(), request.prompt + reserved) * kv_copies_;
  const Duration delay = table_.engine().per_request +
                         table_.engine().per_open_request * static_cast<int64_t>(open_++);
  arrivals_.push({now_ + delay.nanoseconds(), requests_.size()});
  requests_.push_back(request);
}

void Loop::Arrive() {
  while (!arrivals_.empty() && arrivals_.top().first <= now_) {
    waiting_.push_back(arrivals_.top().second);
    arrivals_.pop();
  }
  waiting_most_ = std::max<uint64_t>(waiting_most_, waiting_.size());
}

void Loop::Admit() {
  while (!waiting_.empty()) {
    const Request& request = requests_[waiting_.front()];
    const uint64_t running = running_.size() + prefilling_.size();
    if (load_.max_sequences > 0 && running >= load_.max_sequences) break;
    if (static_cast<double>(request.kv_bytes) > kv_free_) break;
    kv_free_ -= static_cast<double>(request.kv_bytes);
    prefilling_.push_back(waiting_.front());
    waiting_.pop_front();
  }
}

// The prompts' rows of this step, those of whole prompts' ends noted.
cost::PrefillRows Loop::NextRows() {
  cost::PrefillRows rows;
  const uint64_t decoding = running_.size();
  // However many sequences run, prompts go on: a chunk of one row at least.
  uint64_t room = std::max<uint64_t>(table_.engine().step_tokens, decoding + 1) - decoding;
  while (!prefilling_.empty() && room > 0) {
    Request& request = requests_[prefilling_.front()];
    const uint64_t chunk = std::min(room, request.prompt - request.computed);
    rows += cost::PrefillRows::Of(table_.shape(), request.computed, chunk);
    request.computed += chunk;
    room -= chunk;
    if (request.computed < request.prompt) break;
    ended_prompts_.push_back(prefilling_.front());
    prefilling_.pop_front();
  }
  return rows;
}

cost::AttentionRows Loop::Rows(uint64_t ahead) const {
  const uint64_t rows = running_.size();
  return cost::AttentionRows::Even(table_.shape(), rows, context_ + rows * (1 + ahead));
}

// `steps` steps of every running sequence.
void Loop::Decode(int64_t steps, Duration each) {
  const auto rows = static_cast<double>(running_.size());
  const auto count = static_cast<double>(steps);
  running_time_ += rows * each.seconds() * count;
  tokens_ += rows * count;
  context_ += running_.size() * static_cast<uint64_t>(steps);
  now_ += (each * steps).nanoseconds();
  step_ += steps;
  while (!running_.empty() && running_.top().first <= step_) {
    const size_t number = running_.top().second;
    running_.pop();
    context_ -= requests_[number].prompt + requests_[number].output - 1;
    Finish(number);
  }
}

void Loop::Finish(size_t number) {
  const Request& request = requests_[number];
  kv_free_ += static_cast<double>(request.kv_bytes);
  open_--;
  if (request.output > 1) {
    tpot_sum_ +=
        static_cast<double>(now_ - request.first_token) / static_cast<double>(request.output - 1);
    tpots_++;
  }
  Send();
}

// One step that computes rows of prompts.
void Loop::Step() {
  const cost::PrefillRows rows = NextRows();
  const Duration prompts = table_.Prefill(rows);
  Duration time = prompts + table_.StepOverhead(rows.rows > 0 ? 1 : 0);
  if (!running_.empty()) {
    time = table_.DecodeStep(Rows(0)) +
           Duration::FromSeconds(prompts.seconds() * table_.engine().prefill_share);
  }
  Decode(1, time);
  for (const size_t number : std::exchange(ended_prompts_, {})) {
    Request& request = requests_[number];
    request.first_token = now_;
    ttft_.push_back(now_ - request.sent);
    tokens_++;
    context_ += request.prompt;
    if (request.output > 1) {
      running_.push({step_ + static_cast<int64_t>(request.output) - 1, number});
    } else {
      context_ -= request.prompt;
      Finish(number);
    }
  }
}

// Steps of decoding alone, until a sequence ends or a request arrives.
void Loop::Skip() {
  int64_t steps = running_.top().first - step_;
  if (!arrivals_.empty()) {
    const int64_t one = std::max<int64_t>(table_.DecodeStep(Rows(0)).nanoseconds(), 1);
    steps = std::clamp<int64_t>((arrivals_.top().first - now_ + one - 1) / one, 1, steps);
  }
  Decode(steps, table_.DecodeStep(Rows(static_cast<uint64_t>(steps) / 2)));
}

absl::Status Loop::Run() {
  for (uint64_t client = 0; client < load_.clients; client++) Send();
  for (;;) {
    Arrive();
    Admit();
    if (!prefilling_.empty()) {
      Step();
    } else if (!running_.empty()) {
      Skip();
    } else if (!waiting_.empty()) {
      const Request& request = requests_[waiting_.front()];
      return absl::FailedPreconditionError(
          absl::StrCat("device '", table_.device().name, "': ", request.kv_bytes,
                       " bytes of KV of one request of '", table_.shape().name, "' exceed ",
                       std::max(kv_free_, 0.0), " free"));
    } else if (!arrivals_.empty()) {
      now_ = arrivals_.top().first;
    } else {
      return absl::OkStatus();
    }
  }
}

ClosedLoopReport Loop::Report() {
  ClosedLoopReport report;
  const auto middle = ttft_.begin() + static_cast<int64_t>(ttft_.size() / 2);
  std::nth_element(ttft_.begin(), middle, ttft_.end());
  double sum = 0;
  for (const int64_t ns : ttft_) sum += static_cast<double>(ns);
  report.ttft_mean =
      Duration::Nanoseconds(static_cast<int64_t>(sum / static_cast<double>(ttft_.size())));
  report.ttft_median = Duration::Nanoseconds(*middle);
  if (tpots_ > 0) {
    report.tpot_mean =
        Duration::Nanoseconds(static_cast<int64_t>(tpot_sum_ / static_cast<double>(tpots_)));
  }
  const double seconds = std::max(static_cast<double>(now_) * 1e-9, 1e-9);
  report.output_tokens_per_s = tokens_ / seconds;
  report.running_mean = running_time_ / seconds;
  report.waiting_most = waiting_most_;
  return report;
}

}  // namespace

absl::StatusOr<ClosedLoopReport> SimulateClosedLoop(const CostTable& table,
                                                    const ClosedLoopLoad& load) {
  if (load.clients == 0 || load.requests < load.clients || load.requests > kMaxClosedLoopRequests) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a closed loop of ", load.clients, " clients and ", load.requests,
        " requests: at least one client, a request of each and at most ", kMaxClosedLoopRequests));
  }
  if (load.request.prompt_tokens == 0 || load.request.output_tokens == 0 ||
      !(load.shortest > 0 && load.shortest <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a closed loop of requests of ", load.request.prompt_tokens, " + ",
                     load.request.output_tokens, " tokens, the shortest ", load.shortest,
                     " of that: at least one each, and a share in (0, 1]"));
  }
  Loop loop(table, load);
  RETURN_IF_ERROR(loop.Run());
  return loop.Report();
}

}  // namespace tandem::planner
