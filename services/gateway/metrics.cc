#include "services/gateway/metrics.h"

namespace tandem::gateway {
namespace {

// vLLM's buckets, so that its dashboards' quantiles mean the same.
const prometheus::Histogram::BucketBoundaries kTtft = {.001, .005, .01, .02, .04, .06, .08, .1,
                                                       .25,  .5,   .75, 1,   2.5, 5,   7.5, 10,
                                                       20,   40,   80,  160, 640, 2560};
const prometheus::Histogram::BucketBoundaries kItl = {
    .01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80};
const prometheus::Histogram::BucketBoundaries kDuration = {
    .3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};

prometheus::Counter& Counter(prometheus::Registry& registry, const char* name, const char* help,
                             const std::string& model) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add(
      {{"model_name", model}});
}
prometheus::Histogram& Histogram(prometheus::Registry& registry, const char* name, const char* help,
                                 const std::string& model,
                                 const prometheus::Histogram::BucketBoundaries& buckets) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add(
      {{"model_name", model}}, buckets);
}

}  // namespace

GatewayMetrics::GatewayMetrics(const std::string& model_name)
    : model_name_(model_name),
      requests_(prometheus::BuildCounter()
                    .Name("tandem_gateway_requests_total")
                    .Help("Finished requests.")
                    .Register(*registry_)),
      prompt_tokens_(Counter(*registry_, "tandem_gateway_prompt_tokens_total",
                             "Prompt tokens of finished requests.", model_name)),
      generated_tokens_(Counter(*registry_, "tandem_gateway_generation_tokens_total",
                                "Tokens delivered.", model_name)),
      clients_left_(Counter(*registry_, "tandem_gateway_disconnected_clients_total",
                            "Clients that left before their answer's end.", model_name)),
      ttft_(Histogram(*registry_, "tandem_gateway_ttft_seconds",
                      "From the request's arrival to its first token.", model_name, kTtft)),
      itl_(Histogram(*registry_, "tandem_gateway_itl_seconds", "Gap between two tokens.",
                     model_name, kItl)),
      duration_(Histogram(*registry_, "tandem_gateway_request_duration_seconds", "Whole request.",
                          model_name, kDuration)) {}

void GatewayMetrics::Count(const RequestRecord& record) {
  requests_
      .Add({{"route", record.route},
            {"code", std::to_string(record.status)},
            {"model_name", model_name_}})
      .Increment();
  prompt_tokens_.Increment(record.prompt_tokens);
  generated_tokens_.Increment(record.completion_tokens);
  if (record.client_left) clients_left_.Increment();
  if (record.ttft_seconds > 0) ttft_.Observe(record.ttft_seconds);
  for (const double gap : record.itl_seconds) itl_.Observe(gap);
  duration_.Observe(record.total_seconds);
}

}  // namespace tandem::gateway
