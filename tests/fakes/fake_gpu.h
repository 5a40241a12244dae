#pragma once

// A GPU for tests: ggml-rpc on loopback. To ggml, and so to our backend, it is a device of type GPU
// whose memory the host cannot address, with asynchronous copies and events; a child process
// computes for it on one CPU thread. It ends with this process.
//
// A ggml-rpc server trusts whoever dials it with its memory, so it is in test programs only:
// nothing that the product builds links ggml-rpc.

#include <string>

namespace tandem::test {

// The device's name for ShardSpec::device, "rpc:0". Started once a process, on first use, before
// the process has threads. Empty, with a test failure, when it cannot be started.
std::string FakeGpu();

// The device that TANDEM_DEVICE names, on a machine that has one; else the fake one.
std::string DeviceUnderTest();
// Whether it is the fake one, which computes with this CPU's kernels.
bool DeviceIsFake();

}  // namespace tandem::test
