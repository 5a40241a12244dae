#pragma once

// The operations of a prompt and of a decode step, each with its shapes, bytes and flops: what a
// stage's time is made of. The sums of `work` are those of work.h, which cost_table.h turns into
// time.

#include <cstdint>
#include <string>
#include <vector>

#include "scheduler/cost/work.h"
#include "scheduler/view/worker.h"

namespace tandem::cost {

// Of activations, which stay in 16 bits whatever the weights are.
inline constexpr uint64_t kActivationBytes = 2;

// One operation of one layer, or of the step.
struct Op {
  std::string name;  // "q_proj", "attention", "experts"
  Stage stage = Stage::kPrefill;
  std::string shape;   // "[64, 8192] x [8192, 1024]"
  uint64_t calls = 1;  // layers that have it just so
  Work work;           // of one call: what the cost model counts
  // What it leaves out: small beside the weights, and mostly kept on the chip between operations.
  double read_bytes = 0;   // activations
  double write_bytes = 0;  // activations, and new K and V
  double small_flops = 0;  // norms, 4 an element; sampling, 1 a logit

  double bytes() const { return work.weight_bytes + work.kv_bytes + read_bytes + write_bytes; }
  double flops() const { return work.flops + small_flops; }
  // FLOP a byte; 0 where nothing is computed.
  double intensity() const { return bytes() > 0 ? flops() / bytes() : 0; }
};

// Of one layer, in order. What fused kernels do on the way (rotary embedding, softmax, SiLU,
// residual) is no operation of its own.
std::vector<Op> AttentionOps(const model::ModelShape& shape, const model::Precision& precision,
                             uint64_t layer, const AttentionRows& rows);
std::vector<Op> FfnOps(const model::ModelShape& shape, const model::Precision& precision,
                       uint64_t layer, uint64_t rows);
// Of a step, before its layers and behind them: the embedding; final norm, head and sampling.
std::vector<Op> EmbedOps(const model::ModelShape& shape, const model::Precision& precision,
                         uint64_t rows);
std::vector<Op> HeadOps(const model::ModelShape& shape, const model::Precision& precision,
                        uint64_t rows);

// All layers of a decode step, embedding, head and sampling; and of a prompt of `rows` tokens in
// one chunk, which ends with its K and V. Equal operations of several layers are one entry.
std::vector<Op> DecodeStepOps(const model::ModelShape& shape, const model::Precision& precision,
                              const AttentionRows& rows);
std::vector<Op> PromptOps(const model::ModelShape& shape, const model::Precision& precision,
                          uint64_t rows);

// Of all calls.
Work TotalWork(const std::vector<Op>& ops);

}  // namespace tandem::cost
