#include "workers/rpc/frame_memory.h"

#include <malloc.h>

namespace tandem {

void KeepFrameMemory() {
  constexpr int kKeptBytes = 64 << 20;
  constexpr int kLargestHeapBlock = 32 << 20;  // glibc's own limit of M_MMAP_THRESHOLD
  mallopt(M_MMAP_THRESHOLD, kLargestHeapBlock);
  mallopt(M_TRIM_THRESHOLD, kKeptBytes);
  mallopt(M_TOP_PAD, kKeptBytes / 16);
}

}  // namespace tandem
