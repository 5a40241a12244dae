// Runs a fuzz target without libFuzzer: every file of its corpus, then mutations of them from one
// seed, so that every build checks the same inputs. The input of the last run is kept in a file:
// when the process dies, that file is the culprit.
//
//   replay CORPUS_DIR LAST_INPUT_FILE [MUTATIONS [SEED]]     default: 20000 mutations, seed 1

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "scheduler/base/check.h"
#include "scheduler/base/random.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace tandem::fuzz {
namespace {

constexpr size_t kMaxInputBytes = 16384;

std::vector<std::string> ReadCorpus(const std::string& folder) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());  // one order on every machine
  std::vector<std::string> inputs;
  for (const auto& path : paths) {
    std::ifstream in(path, std::ios::binary);
    inputs.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  return inputs;
}

// One small change: a bit, a byte that parsers trip over, a piece removed, repeated, or taken from
// another input.
void Mutate(Random& random, const std::vector<std::string>& corpus, std::string& input) {
  constexpr uint8_t kEdges[] = {0, 1, 0x7F, 0x80, 0xFF, '"', '\\', '{', '[', ':', '-', '9', '\n'};
  const size_t at = random.Below(input.size() + 1);
  const size_t bytes = std::min<size_t>(1 + random.Below(16), input.size() - at);
  switch (random.Below(6)) {
    case 0:
      if (bytes > 0) input[at] = static_cast<char>(input[at] ^ (1 << random.Below(8)));
      break;
    case 1:
      if (bytes > 0) input[at] = static_cast<char>(kEdges[random.Below(std::size(kEdges))]);
      break;
    case 2:
      input.insert(at, 1, static_cast<char>(random.Below(256)));
      break;
    case 3:
      input.erase(at, bytes);
      break;
    case 4:
      input.insert(at, input.substr(at, bytes));
      break;
    case 5: {
      const std::string& other = corpus[random.Below(corpus.size())];
      input.replace(at, bytes, other.substr(random.Below(other.size() + 1), random.Below(64)));
    }
  }
  if (input.size() > kMaxInputBytes) input.resize(kMaxInputBytes);
}

void Run(int last_input, const std::string& input) {
  TANDEM_CHECK(ftruncate(last_input, 0) == 0);
  TANDEM_CHECK(pwrite(last_input, input.data(), input.size(), 0) ==
               static_cast<ssize_t>(input.size()));
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
}

int Replay(const std::string& folder, const char* last_file, uint64_t mutations, uint64_t seed) {
  const std::vector<std::string> corpus = ReadCorpus(folder);
  const int last_input = open(last_file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  TANDEM_CHECK(!corpus.empty() && last_input >= 0);
  for (const std::string& input : corpus) Run(last_input, input);
  Random random(seed);
  for (uint64_t i = 0; i < mutations; ++i) {
    std::string input = corpus[random.Below(corpus.size())];
    for (uint64_t changes = 1 + random.Below(4); changes > 0; --changes)
      Mutate(random, corpus, input);
    Run(last_input, input);
  }
  close(last_input);
  unlink(last_file);
  std::printf("%zu files, %llu mutations: nothing found\n", corpus.size(),
              static_cast<unsigned long long>(mutations));
  return 0;
}

}  // namespace
}  // namespace tandem::fuzz

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s CORPUS_DIR LAST_INPUT_FILE [MUTATIONS [SEED]]\n", argv[0]);
    return 2;
  }
  const auto number = [&](int i, uint64_t otherwise) {
    return argc > i ? std::strtoull(argv[i], nullptr, 10) : otherwise;
  };
  return tandem::fuzz::Replay(argv[1], argv[2], number(3, 20000), number(4, 1));
}
