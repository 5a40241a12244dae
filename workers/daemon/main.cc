#include <iostream>
#include <string>

#include "services/runtime/daemon.h"
#include "services/runtime/log.h"
#include "workers/backend/ggml/device_list.h"
#include "workers/daemon/conformance_command.h"
#include "workers/daemon/daemon.h"
#include "workers/daemon/microbench_command.h"
#include "workers/rpc/frame_memory.h"

int main(int argc, char** argv) {
  if (argc > 1 && argv[1] == std::string("microbench"))
    return tandem::MicrobenchMain(argc - 1, argv + 1);
  if (argc > 1 && argv[1] == std::string("conformance-ffn"))
    return tandem::ConformanceFfnMain(argc - 1, argv + 1);
  auto command = tandem::ParseWorkerCommand(argc, argv);
  if (!command.ok()) {
    std::cerr << "tandem-worker: " << command.status().message() << "\n";
    return 2;
  }
  if (!command->has_value()) return 0;
  const tandem::WorkerConfig& config = (*command)->config;
  if ((*command)->print_config) {
    std::cout << tandem::ToYaml(config);
    return 0;
  }
  if (config.lists_devices()) {
    std::cout << tandem::ggml_cpu::DevicesText(tandem::ggml_cpu::ListDevices());
    return 0;
  }
  tandem::KeepFrameMemory();
  tandem::BlockStopSignals();
  tandem::InitLog({.daemon = "tandem-worker",
                   .format = config.log_format == "json" ? tandem::LogFormat::kJson
                                                         : tandem::LogFormat::kText});
  const absl::Status status = tandem::RunWorker(config);
  if (status.ok()) return 0;
  tandem::LogError("failed", {{"error", status.message()}});
  return 1;
}
