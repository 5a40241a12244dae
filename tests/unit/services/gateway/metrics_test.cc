#include "services/gateway/metrics.h"

#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

#include <string>

#include "tests/unit/services/gateway/relay_fixture.h"

namespace tandem::gateway {
namespace {

class GatewayMetricsTest : public RelayTest {
 protected:
  GatewayMetricsTest() { metrics_.Watch(*relay_); }
  std::string Scrape() {
    return "\n" + prometheus::TextSerializer().Serialize(metrics_.registry()->Collect());
  }
  void ExpectLine(const std::string& line) {
    const std::string text = Scrape();
    EXPECT_NE(text.find("\n" + line + "\n"), std::string::npos) << line << "\nnot in\n" << text;
  }

  GatewayMetrics metrics_{"m", {/*ttft_seconds=*/0.5, /*tpot_seconds=*/0.05}};
};

RequestRecord Finished() {
  RequestRecord record;
  record.route = "/v1/completions";
  record.prompt_tokens = 7;
  record.completion_tokens = 3;
  record.ttft_seconds = 0.4;
  record.total_seconds = 2;
  record.itl_seconds = {0.04, 0.12};
  record.tpot_seconds = {0.08};
  return record;
}

TEST_F(GatewayMetricsTest, ARequestIsCountedAndHeldAgainstItsObjectives) {
  metrics_.Count(Finished());
  ExpectLine(
      "tandem_gateway_requests_total{code=\"200\",model_name=\"m\",route=\"/v1/completions\"} 1");
  ExpectLine("tandem_gateway_ttft_seconds_sum{model_name=\"m\"} 0.4");
  ExpectLine("tandem_gateway_itl_seconds_count{model_name=\"m\"} 2");
  ExpectLine("tandem_gateway_tpot_seconds_sum{model_name=\"m\"} 0.08");
  ExpectLine("tandem_gateway_slo_judged_total{model_name=\"m\",slo=\"ttft\"} 1");
  ExpectLine("tandem_gateway_slo_missed_total{model_name=\"m\",slo=\"ttft\"} 0");
  ExpectLine("tandem_gateway_slo_missed_total{model_name=\"m\",slo=\"tpot\"} 1");
  ExpectLine("tandem_gateway_slo_target_seconds{model_name=\"m\",slo=\"tpot\"} 0.05");
}

// Goal: waits for emulated devices are told, and judged, in the devices' time.
TEST_F(GatewayMetricsTest, TimesOfEmulatedWorkersAreTheDevices) {
  RequestRecord record = Finished();
  record.time_scale = 4;
  metrics_.Count(record);
  ExpectLine("tandem_gateway_ttft_seconds_sum{model_name=\"m\"} 0.1");
  ExpectLine("tandem_gateway_tpot_seconds_sum{model_name=\"m\"} 0.02");
  ExpectLine("tandem_gateway_request_duration_seconds_sum{model_name=\"m\"} 0.5");
  ExpectLine("tandem_gateway_slo_missed_total{model_name=\"m\",slo=\"tpot\"} 0");
  relay_->ClusterChanged(0, {true, "", 8192, {}, 4});
  ExpectLine("tandem_gateway_time_scale{model_name=\"m\"} 4");
}

TEST_F(GatewayMetricsTest, ARequestWithoutATokenIsHeldAgainstNothing) {
  RequestRecord record;
  record.route = "/v1/completions";
  record.status = 499;
  record.client_left = true;
  metrics_.Count(record);
  ExpectLine("tandem_gateway_ttft_seconds_count{model_name=\"m\"} 0");
  ExpectLine("tandem_gateway_slo_judged_total{model_name=\"m\",slo=\"ttft\"} 0");
  ExpectLine("tandem_gateway_disconnected_clients_total{model_name=\"m\"} 1");
}

// Goal: the gauges of the inference extension's protocol are those of the whole cluster.
TEST_F(GatewayMetricsTest, TheClustersLoadIsTheRoutersLastWord) {
  ExpectLine("vllm:kv_cache_usage_perc{model_name=\"m\"} 0");  // nothing is known yet
  relay_->LoadChanged(0, {.queued_requests = 3,
                          .running_sequences = 5,
                          .kv_blocks = 200,
                          .kv_blocks_free = 150,
                          .block_tokens = 16});
  ExpectLine("vllm:num_requests_waiting{model_name=\"m\"} 3");
  ExpectLine("vllm:num_requests_running{model_name=\"m\"} 5");
  ExpectLine("vllm:kv_cache_usage_perc{model_name=\"m\"} 0.25");
  ExpectLine("vllm:cache_config_info{block_size=\"16\",model_name=\"m\",num_gpu_blocks=\"200\"} 1");
  relay_->LoadChanged(0, {.queued_requests = 0,
                          .running_sequences = 0,
                          .kv_blocks = 100,
                          .kv_blocks_free = 100,
                          .block_tokens = 16});
  ExpectLine("vllm:cache_config_info{block_size=\"16\",model_name=\"m\",num_gpu_blocks=\"100\"} 1");
  EXPECT_EQ(Scrape().find("num_gpu_blocks=\"200\""), std::string::npos) << "one series, not two";
  relay_->RouterDown(0);
  ExpectLine("vllm:num_requests_running{model_name=\"m\"} 0");
}

TEST_F(GatewayMetricsTest, ResumesAreToldByWhatWasLost) {
  metrics_.Resumed(RelayEvent::kWorkerLost);
  metrics_.Resumed(RelayEvent::kPreempted);
  metrics_.Resumed(RelayEvent::kPreempted);
  metrics_.Wasted(6);
  metrics_.RoutersConnected(2);
  ExpectLine("tandem_gateway_resumes_total{cause=\"worker_lost\",model_name=\"m\"} 1");
  ExpectLine("tandem_gateway_resumes_total{cause=\"sent_back\",model_name=\"m\"} 2");
  ExpectLine("tandem_gateway_resumes_total{cause=\"router_lost\",model_name=\"m\"} 0");
  ExpectLine("tandem_gateway_wasted_tokens_total{model_name=\"m\"} 6");
  ExpectLine("tandem_gateway_routers_connected{model_name=\"m\"} 2");
}

}  // namespace
}  // namespace tandem::gateway
