// The files that an operator writes, and tandemctl's own state: refused with a reason, or values in
// range that survive being written and read again.
//
// Input: 'c' and a cluster file of `tandemctl local`, 'g', 'r' or 'w' and the YAML of that daemon,
// 'k' and a gateway's API keys, any other byte and a state.json.

#include <absl/strings/match.h>

#include <algorithm>
#include <boost/json.hpp>

#include "services/ctl/state.h"
#include "services/gateway/config.h"
#include "services/gateway/keys/api_keys.h"
#include "services/router/config.h"
#include "tests/fuzz/fuzz_input.h"
#include "workers/daemon/config.h"

namespace tandem {
namespace {

void CheckCluster(absl::string_view text) {
  const fuzz::MemoryFile file(text);
  const auto config = ctl::ReadClusterFile(file.path());
  if (!config.ok()) {
    TANDEM_CHECK(absl::StrContains(config.status().message(), file.path()));
    return fuzz::CheckRefusal(config.status());
  }
  TANDEM_CHECK(config->gateway_port >= 0 && config->gateway_port <= 65535);
  for (const ctl::WorkerSet& set : config->workers)
    TANDEM_CHECK(set.count >= 1 && set.count <= ctl::kMaxWorkersPerPool && !set.stages.empty());
  const auto topology = ctl::FindTopology(config->topology);
  TANDEM_CHECK(topology.ok() && config->workers.size() == (*topology)->pools.size());
  TANDEM_CHECK(ctl::ParseShape(**topology, ctl::ShapeOf(*config)).ok());
  const auto again = ctl::ClusterFromJson(ctl::ToJson(*config));
  TANDEM_CHECK(again.ok() && *again == *config);
}

// Whether `whole` says all that `part` does. A number may have been written in another form.
bool Says(const boost::json::value& whole, const boost::json::value& part) {
  if (const auto* entries = part.if_object()) {
    return std::all_of(entries->begin(), entries->end(), [&](const auto& entry) {
      return Says(whole.at(entry.key()), entry.value());
    });
  }
  if (const auto* entries = part.if_array()) {
    const auto& others = whole.as_array();
    return std::equal(others.begin(), others.end(), entries->begin(), entries->end(), Says);
  }
  return whole.is_double() || whole == part;
}

void CheckState(absl::string_view text) {
  boost::system::error_code error;
  const auto json = boost::json::parse(boost::json::string_view(text.data(), text.size()), error);
  if (error) return;
  const auto state = ctl::StateFromJson(json);
  if (!state.ok()) return fuzz::CheckRefusal(state.status());
  const boost::json::value written = ctl::ToJson(*state);
  TANDEM_CHECK(Says(json, written));
  const auto again = ctl::StateFromJson(written);
  TANDEM_CHECK(again.ok() && ctl::ToJson(*again) == written);
}

// `parse` reads a daemon's command line, `print` is its --print-config.
template <typename Parse, typename Print>
void CheckDaemon(absl::string_view text, Parse parse, Print print) {
  const auto read = [&](absl::string_view yaml) {
    const fuzz::MemoryFile file(yaml);
    const char* const argv[] = {"daemon", "--config", file.path().c_str()};
    return parse(3, argv);
  };
  const auto config = read(text);
  if (!config.ok()) return fuzz::CheckRefusal(config.status());
  const std::string printed = print(*config);
  const auto again = read(printed);
  TANDEM_CHECK(again.ok() && print(*again) == printed);
}

// Refused without repeating what may be a key, or names that a log line can hold.
void CheckKeys(absl::string_view text) {
  const auto keys = gateway::ApiKeyList::Parse(text, "keys");
  if (!keys.ok()) return fuzz::CheckRefusal(keys.status());
  TANDEM_CHECK(keys->size() >= 1 && keys->size() <= gateway::kMaxApiKeys);
  TANDEM_CHECK(!keys->NameOf(text).has_value());
}

const auto kPrint = [](const auto& command) { return ToYaml(command->config); };

}  // namespace
}  // namespace tandem

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tandem;
  fuzz::FuzzInput input(data, size);
  switch (input.Byte()) {
    case 'c':
      CheckCluster(input.Rest());
      break;
    case 'k':
      CheckKeys(input.Rest());
      break;
    case 'g':
      CheckDaemon(input.Rest(), gateway::ParseGatewayCommand, kPrint);
      break;
    case 'w':
      CheckDaemon(input.Rest(), ParseWorkerCommand, kPrint);
      break;
    case 'r':
      CheckDaemon(
          input.Rest(),
          [](int argc, const char* const* argv) {
            return router::ParseCommandLine(argc, argv, "0");
          },
          [](const auto& line) { return router::PrintConfig(line.config); });
      break;
    default:
      CheckState(input.Rest());
  }
  return 0;
}
