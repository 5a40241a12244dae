#include "services/gateway/metrics.h"

#include <absl/strings/str_cat.h>

#include "services/runtime/latency_buckets.h"

namespace tandem::gateway {
namespace {

using Labels = prometheus::Labels;

template <typename Builder>
auto& Family(prometheus::Registry& registry, Builder builder, const char* name, const char* help) {
  return builder.Name(name).Help(help).Register(registry);
}
prometheus::Counter& Counter(prometheus::Registry& registry, const char* name, const char* help,
                             const std::string& model) {
  return Family(registry, prometheus::BuildCounter(), name, help).Add({{"model_name", model}});
}
prometheus::Gauge& Gauge(prometheus::Registry& registry, const char* name, const char* help,
                         const std::string& model) {
  return Family(registry, prometheus::BuildGauge(), name, help).Add({{"model_name", model}});
}
template <size_t n>
prometheus::Histogram& Histogram(prometheus::Registry& registry, const char* name, const char* help,
                                 const std::string& model, const double (&bounds)[n]) {
  return Family(registry, prometheus::BuildHistogram(), name, help)
      .Add({{"model_name", model}}, Boundaries(bounds));
}

const char* CauseOf(RelayEvent why) {
  if (why == RelayEvent::kPreempted) return "sent_back";
  return why == RelayEvent::kWorkerLost ? "worker_lost" : "router_lost";
}

}  // namespace

GatewayMetrics::GatewayMetrics(const std::string& model_name, const Slo& slo)
    : model_name_(model_name),
      requests_(Family(*registry_, prometheus::BuildCounter(), "tandem_gateway_requests_total",
                       "Finished requests, by path and HTTP status; 499: the client left.")),
      resumes_(Family(*registry_, prometheus::BuildCounter(), "tandem_gateway_resumes_total",
                      "Choices that were started again elsewhere, by why.")),
      judged_(Family(*registry_, prometheus::BuildCounter(), "tandem_gateway_slo_judged_total",
                     "Answers held against an objective.")),
      missed_(Family(*registry_, prometheus::BuildCounter(), "tandem_gateway_slo_missed_total",
                     "Of those, that took longer.")),
      targets_(Family(*registry_, prometheus::BuildGauge(), "tandem_gateway_slo_target_seconds",
                      "The objective.")),
      cache_config_(Family(*registry_, prometheus::BuildGauge(), "vllm:cache_config_info",
                           "1; block size and KV blocks of the cluster as labels.")),
      prompt_tokens_(Counter(*registry_, "tandem_gateway_prompt_tokens_total",
                             "Prompt tokens of finished requests.", model_name)),
      generated_tokens_(Counter(*registry_, "tandem_gateway_generation_tokens_total",
                                "Tokens delivered.", model_name)),
      clients_left_(Counter(*registry_, "tandem_gateway_disconnected_clients_total",
                            "Clients that left before their answer's end.", model_name)),
      wasted_tokens_(Counter(*registry_, "tandem_gateway_wasted_tokens_total",
                             "Tokens that came for an answer that wanted no more.", model_name)),
      ttft_(Histogram(*registry_, "tandem_gateway_ttft_seconds",
                      "From the request's arrival to its first token.", model_name, kTtftBuckets)),
      tpot_(Histogram(*registry_, "tandem_gateway_tpot_seconds",
                      "Of one choice, the mean gap between its tokens.", model_name,
                      kTokenBuckets)),
      itl_(Histogram(*registry_, "tandem_gateway_itl_seconds",
                     "Gap between two tokens of one choice.", model_name, kTokenBuckets)),
      duration_(Histogram(*registry_, "tandem_gateway_request_duration_seconds", "Whole request.",
                          model_name, kRequestBuckets)),
      key_reload_failures_(Counter(*registry_, "tandem_gateway_api_key_reload_failures_total",
                                   "Replaced files of API keys that were no good and not taken.",
                                   model_name)),
      api_keys_(Gauge(*registry_, "tandem_gateway_api_keys",
                      "API keys that are known; 0: none is asked for.", model_name)),
      in_flight_(Gauge(*registry_, "tandem_gateway_requests_in_flight",
                       "Requests that wait for tokens.", model_name)),
      time_scale_(Gauge(*registry_, "tandem_gateway_time_scale",
                        "Wall seconds for one of the emulated workers'; 0: real time.",
                        model_name)),
      routers_(Gauge(*registry_, "tandem_gateway_routers_connected", "Routers that answer.",
                     model_name)),
      running_(Gauge(*registry_, "vllm:num_requests_running",
                     "Sequences placed and not ended, in the whole cluster.", model_name)),
      waiting_(Gauge(*registry_, "vllm:num_requests_waiting",
                     "Requests that wait for a placement, in the whole cluster.", model_name)),
      kv_usage_(Gauge(*registry_, "vllm:kv_cache_usage_perc",
                      "Share of all attention workers' KV blocks in use; 1 is all.", model_name)),
      ttft_slo_(MakeObjective("ttft", slo.ttft_seconds)),
      tpot_slo_(MakeObjective("tpot", slo.tpot_seconds)) {
  for (const RelayEvent why :
       {RelayEvent::kPreempted, RelayEvent::kWorkerLost, RelayEvent::kRouterLost}) {
    resumes_.Add({{"model_name", model_name_}, {"cause", CauseOf(why)}});
  }
}

GatewayMetrics::Objective GatewayMetrics::MakeObjective(const char* slo, double target_seconds) {
  const Labels labels = {{"model_name", model_name_}, {"slo", slo}};
  targets_.Add(labels).Set(target_seconds);
  return {target_seconds, &judged_.Add(labels), &missed_.Add(labels)};
}

void GatewayMetrics::Objective::Judge(double seconds) const {
  judged->Increment();
  if (seconds > target_seconds) missed->Increment();
}

void GatewayMetrics::Watch(Relay& relay) {
  registry_->SetBeforeCollect([this, &relay] { TellCluster(relay); });
}

void GatewayMetrics::TellCluster(const Relay& relay) {
  const ClusterLoad load = relay.load();
  in_flight_.Set(static_cast<double>(relay.in_flight()));
  time_scale_.Set(relay.cluster().time_scale);
  running_.Set(load.running_sequences);
  waiting_.Set(load.queued_requests);
  kv_usage_.Set(
      load.kv_blocks == 0 ? 0 : 1 - static_cast<double>(load.kv_blocks_free) / load.kv_blocks);
  // One series, whatever workers come and go.
  const std::string shown = absl::StrCat(load.block_tokens, "/", load.kv_blocks);
  const auto config = [this](const std::string& block_size, const std::string& blocks) -> Labels {
    return {{"model_name", model_name_}, {"block_size", block_size}, {"num_gpu_blocks", blocks}};
  };
  if (shown == cache_config_shown_) return;
  if (const size_t slash = cache_config_shown_.find('/'); slash != std::string::npos) {
    cache_config_.Remove(&cache_config_.Add(
        config(cache_config_shown_.substr(0, slash), cache_config_shown_.substr(slash + 1))));
  }
  cache_config_.Add(config(absl::StrCat(load.block_tokens), absl::StrCat(load.kv_blocks))).Set(1);
  cache_config_shown_ = shown;
}

void GatewayMetrics::Resumed(RelayEvent why) {
  resumes_.Add({{"model_name", model_name_}, {"cause", CauseOf(why)}}).Increment();
}
void GatewayMetrics::Wasted(uint64_t tokens) {
  wasted_tokens_.Increment(static_cast<double>(tokens));
}
void GatewayMetrics::RoutersConnected(uint32_t count) { routers_.Set(count); }

void GatewayMetrics::KeysLoaded(bool taken, size_t keys) {
  api_keys_.Set(static_cast<double>(keys));
  if (!taken) key_reload_failures_.Increment();
}

void GatewayMetrics::Count(const RequestRecord& record) {
  requests_
      .Add({{"route", record.route},
            {"code", std::to_string(record.status)},
            {"model_name", model_name_}})
      .Increment();
  prompt_tokens_.Increment(record.prompt_tokens);
  generated_tokens_.Increment(record.completion_tokens);
  if (record.client_left) clients_left_.Increment();
  const double scale = record.time_scale > 0 ? record.time_scale : 1;
  if (record.ttft_seconds > 0) {
    ttft_.Observe(record.ttft_seconds / scale);
    ttft_slo_.Judge(record.ttft_seconds / scale);
  }
  for (const double gap : record.itl_seconds) itl_.Observe(gap / scale);
  for (const double mean : record.tpot_seconds) {
    tpot_.Observe(mean / scale);
    tpot_slo_.Judge(mean / scale);
  }
  duration_.Observe(record.total_seconds / scale);
}

}  // namespace tandem::gateway
