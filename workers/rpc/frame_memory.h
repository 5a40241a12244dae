#pragma once

namespace tandem {

// Tells glibc to keep freed memory (up to 64 MB a heap) instead of giving it back to the kernel.
// Call first in main. A frame's rows are allocated and freed with each call: given back, every 64
// KB round trip faults its pages in again, a quarter of its time (tests/bench/handoff_rtt_bench).
void KeepFrameMemory();

}  // namespace tandem
