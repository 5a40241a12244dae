#pragma once

// Where the tests find the real model, the sources and the built programs.

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <string>

namespace tandem::exact {

// TANDEM_MODEL, or where ./dev puts it. A missing file fails the test (call from its thread).
inline std::string ModelPath() {
  const char* given = std::getenv("TANDEM_MODEL");
  const char* home = std::getenv("HOME");
  const std::string path = given != nullptr
                               ? given
                               : std::string(home == nullptr ? "" : home) +
                                     "/.cache/tandem/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  struct stat unused {};
  if (stat(path.c_str(), &unused) != 0) {
    ADD_FAILURE() << "the model " << path << " is not there: run ./dev setup, or set TANDEM_MODEL";
  }
  return path;
}

inline std::string FromEnvironment(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr)
    ADD_FAILURE() << name << " is not set: run this test with ctest or ./dev test";
  return value == nullptr ? "" : value;
}
inline std::string SourceDir() { return FromEnvironment("TANDEM_SOURCE_DIR"); }
inline std::string BinaryDir() { return FromEnvironment("TANDEM_BINARY_DIR"); }

}  // namespace tandem::exact
