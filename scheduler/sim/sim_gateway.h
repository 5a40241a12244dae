#pragma once

// One gateway and its clients on virtual time: it asks, checks every token against the hash model,
// stops, aborts, and resumes what was preempted or lost.

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "scheduler/control/events.h"
#include "scheduler/sim/hash_model.h"
#include "scheduler/sim/world.h"
#include "scheduler/step/token_outbox.h"

namespace tandem::sim {

class SimGateway {
 public:
  // Its share of the load is `requests`, drawn from `random`.
  SimGateway(World& world, GatewayId id, uint32_t requests, Random random);

  void Start();
  void Kill();
  const GatewayId& id() const { return id_; }
  bool finished() const { return unfinished_ == 0; }
  std::string Unfinished() const;  // the first one, for messages

  // ---- Messages that arrive.
  void OnRouter(const control::Command& command);
  void OnTokens(const WorkerId& worker, const step::OutboxMessage& message);

 private:
  struct Choice {
    SequenceKey key;  // of the current attempt
    uint32_t max_tokens = 0;
    uint32_t stop_at = 0;  // tokens after which a stop string matches; 0: never
    uint64_t seed = 0;
    std::vector<TokenId> expected;  // what it must get if nobody stops it
    std::vector<TokenId> got;
    Instant arrived, first, last;
    WorkerId worker;  // the attention worker; empty: not placed
    bool done = false;
    uint32_t retries = 0;
    std::set<uint32_t> ended;  // attempts whose end came
  };
  struct Request {
    std::vector<TokenId> prompt;
    std::vector<Choice> choices;
    bool asked = false;                      // the router had it
    Duration leaves = Duration::Infinite();  // after arrival its first choice's client is gone
    RequestId next;                          // of its closed-loop client; empty: none
    bool counts = true;                      // for the report's times
  };

  void PlanRequest(Random& random, uint32_t number);
  RequestId IdOf(uint32_t number) const;
  void PlanClients(uint32_t requests);
  // Its client sends the next, when no choice of it is left.
  void StartNext(const Request& request);
  void Arrive(const RequestId& id);
  void Leave(const RequestId& id, uint32_t choice);
  void DialRouter();
  void Generate(const RequestId& id, const std::vector<Choice*>& choices);
  void DialWorker(const WorkerId& worker);
  void OnWorkerBroken(const WorkerId& worker, const Stream* stream);
  void OnEmit(const WorkerId& worker, const step::Emit& emit);
  void TakeToken(Choice& choice, const step::Emit& emit);
  void OnEnd(Choice& choice, const SequenceEnd& end);
  void OnRouterEnd(Choice& choice, const control::TellEnd& end);
  void Resume(Choice& choice, Duration after);
  void Finish(Choice& choice, const std::string& how);
  void SendStop(const WorkerId& worker, const SequenceKey& key, uint32_t position,
                EndReason reason);
  Choice* Find(const SequenceKey& key);

  World& world_;
  const GatewayId id_;
  bool alive_ = true;
  std::shared_ptr<Stream> router_;
  std::map<WorkerId, std::shared_ptr<Stream>> streams_;
  std::map<RequestId, Request> requests_;
  size_t unfinished_ = 0;  // choices
};

}  // namespace tandem::sim
