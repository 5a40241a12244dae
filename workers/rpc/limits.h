#pragma once

// Bounds of what a peer may put into one message. What is past them is refused with
// kInvalidArgument and both numbers.

#include <cstddef>
#include <cstdint>

#include "scheduler/base/time.h"
#include "services/runtime/grpc_server.h"

namespace tandem {

inline constexpr uint32_t kProtocolVersion = 1;

inline constexpr size_t kMaxStreams = 1024;  // of one service of a worker

inline constexpr size_t kMaxRequestIdBytes = 128;
inline constexpr size_t kMaxNameBytes = 256;  // of a worker, gateway, reservation, address or model
inline constexpr size_t kMaxIds = 1 << 20;    // prompt and emitted ids of one command
inline constexpr size_t kMaxChoices = 128;
inline constexpr size_t kMaxLogitBiases = 1024;
inline constexpr size_t kMaxStopTokenIds = 64;
inline constexpr uint32_t kMaxTopLogprobs = 20;
inline constexpr size_t kMaxReleasedSequences = 4096;
inline constexpr size_t kMaxHolders = 64;
inline constexpr size_t kMaxResumePoints = 65536;

inline constexpr uint32_t kMaxLayers = 4096;
inline constexpr uint32_t kMaxHidden = 1 << 18;
inline constexpr uint32_t kMaxKvCount = 65536;  // positions of one KV frame
inline constexpr size_t kMaxRowBytes =
    kMaxFrameBytes - (64 << 10);  // of one frame's rows; the rest is for its fields

// Of a trace's readers.
inline constexpr size_t kMaxTraceReaders = 4;  // of one worker, at once
inline constexpr double kMaxTraceSeconds = 60;
inline constexpr size_t kMaxTraceSpans = 4096;  // of one message
inline constexpr Duration kTracePeriod = Duration::Milliseconds(20);

}  // namespace tandem
