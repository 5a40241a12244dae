// tandem-gateway: HTTP and text.

#include <absl/strings/str_cat.h>
#include <unistd.h>

#include <cstdio>
#include <ctime>

#include "scheduler/base/status.h"
#include "services/gateway/config.h"
#include "services/gateway/http/api.h"
#include "services/gateway/keys/api_keys.h"
#include "services/gateway/metrics.h"
#include "services/gateway/relay/grpc/links.h"
#include "services/gateway/text/llama/llama_text_model.h"
#include "services/runtime/daemon.h"
#include "services/runtime/link_security.h"
#include "services/runtime/log.h"
#include "services/runtime/real_time.h"

namespace tandem::gateway {
namespace {

constexpr Duration kLastWords = Duration::Seconds(2);  // for clients to take an error

void LogRequest(const RequestRecord& r) {
  LogInfo("request_done", {{"request_id", r.request_id},
                           {"route", r.route},
                           {"api_key", r.key_name},  // its name
                           {"status", r.status},
                           {"prompt_tokens", r.prompt_tokens},
                           {"completion_tokens", r.completion_tokens},
                           {"ttft_seconds", r.ttft_seconds},
                           {"seconds", r.total_seconds},
                           {"client_left", r.client_left}});
}

// Null without a file: anybody may ask.
absl::StatusOr<std::unique_ptr<ApiKeys>> OpenKeys(const std::string& file,
                                                  GatewayMetrics& metrics) {
  if (file.empty()) return nullptr;
  ASSIGN_OR_RETURN(
      std::unique_ptr<ApiKeys> keys,
      ApiKeys::Open(file, [&metrics](const absl::Status& status, size_t count) {
        metrics.KeysLoaded(status.ok(), count);
        if (status.ok()) return LogInfo("api_keys_reloaded", {{"keys", count}});
        LogError("api_keys_reload_failed", {{"reason", status.message()}, {"keys_in_use", count}});
      }));
  metrics.KeysLoaded(true, keys->size());
  return keys;
}

// Lets running answers finish; those that do not in time end with an error that says so.
void Drain(HttpServer& server, Relay& relay, double seconds) {
  if (server.Drain(Duration::FromSeconds(seconds))) return;
  LogWarn("drain_over", {{"seconds", seconds}, {"requests_failed", relay.in_flight()}});
  relay.FailAll(absl::UnavailableError(absl::StrCat(
      "the gateway stops, and this answer was not whole within its drain of ", seconds, " s")));
  server.Drain(kLastWords);
}

absl::Status Run(const GatewayConfig& config) {
  ASSIGN_OR_RETURN(const LinkSecurity security, LinkSecurity::Make(config.tls));
  GatewayMetrics metrics(config.model_name, {config.slo_ttft_ms / 1e3, config.slo_tpot_ms / 1e3});
  security.Export(metrics.registry(), {{"model_name", config.model_name}});
  ASSIGN_OR_RETURN(const std::unique_ptr<ApiKeys> keys, OpenKeys(config.api_keys_file, metrics));
  auto text = LoadLlamaTextModel(config.model);
  if (!text.ok()) return text.status();
  RealTimeSource time;
  const auto unix_seconds = [] { return static_cast<int64_t>(std::time(nullptr)); };
  const uint64_t seed =
      Mix64(static_cast<uint64_t>(time.Now().nanoseconds())) ^
      Mix64(static_cast<uint64_t>(getpid()) ^ static_cast<uint64_t>(unix_seconds()));
  GrpcLinks links({.gateway_id = "gateway-" + std::to_string(seed),
                   .model = config.model_name,
                   .metrics_address = config.metrics_listen},
                  time, security);
  const std::shared_ptr<Relay> relay = Relay::Create({}, time, links, &metrics);
  metrics.Watch(*relay);
  ApiConfig api_config;
  api_config.model_name = config.model_name;
  if (keys != nullptr)
    api_config.key_name = [&keys](absl::string_view key) { return keys->NameOf(key); };
  Api api(api_config, **text, *relay, time, unix_seconds, seed,
          [&metrics](const RequestRecord& record) {
            metrics.Count(record);
            LogRequest(record);
          });
  HttpLimits limits;
  limits.max_connections = config.max_connections;
  limits.max_body_bytes = config.max_body_bytes;
  limits.threads = config.threads;
  links.Start(relay, config.routers);
  auto server = HttpServer::Start(
      config.listen, limits,
      [&api](HttpQuery query, HttpAnswer& answer) { return api.Handle(std::move(query), answer); },
      &Api::ErrorBodyOf, [&api] { return api.NewId(); });
  if (!server.ok()) return server.status();
  auto metrics_server = ServeMetrics(config.metrics_listen, metrics.registry());
  if (!metrics_server.ok()) return metrics_server.status();
  LogInfo("serving", {{"address", config.listen},
                      {"model", config.model_name},
                      {"tls", security.tls()},
                      {"api_keys", keys != nullptr}});
  LogInfo("draining", {{"signal", WaitForStopSignal()}});
  api.Drain();
  Drain(**server, *relay, config.drain_timeout_seconds);
  (*server).reset();  // cuts who has not taken even that
  links.Stop();
  return absl::OkStatus();
}

}  // namespace
}  // namespace tandem::gateway

int main(int argc, char** argv) {
  using namespace tandem;
  BlockStopSignals();
  auto command = gateway::ParseGatewayCommand(argc, argv);
  if (!command.ok()) {
    std::fprintf(stderr, "tandem-gateway: %s\n", std::string(command.status().message()).c_str());
    return 2;
  }
  if (!command->has_value()) return 0;
  const gateway::GatewayConfig& config = (*command)->config;
  if ((*command)->print_config) {
    std::fputs(gateway::ToYaml(config).c_str(), stdout);
    return 0;
  }
  LogConfig log;
  log.daemon = "tandem-gateway";
  log.format = config.log_format == "json" ? LogFormat::kJson : LogFormat::kText;
  InitLog(log);
  const absl::Status status = gateway::Run(config);
  if (status.ok()) return 0;
  LogError("failed", {{"error", status.message()}});
  return 1;
}
