#!/usr/bin/env python3
"""Tokens per second of real clusters on this machine: colocated beside the split topologies, and where a step's time goes.

    tests/bench/cluster_bench.py --bin build/release/bin --model FILE.gguf [--batches 1,8,32] [--tokens 64] [--rounds 3]

Every cluster is started by `tandemctl local up`, one at a time, with one compute thread a worker. A round sends `batch`
streams at once; the rate is that of the tokens while every stream runs (all have had their first, none its last), so prefill
is left out; the median over the rounds. The device seconds are the workers' own account (tandem_stage_seconds_total) over the
rounds, divided by the steps of a full batch that gave as many tokens.
"""
import argparse
import asyncio
import statistics
import sys
import tempfile

from live_cluster import Cluster, delta, stream

TOPOLOGIES = [("colocated", "1W"), ("afd", "1A1F"), ("pd-afd", "1P1A1F")]
PROMPT = "Write a long story about a lighthouse keeper, with many details. Story number {}:"
END_OF_TEXT = 2  # SmolLM2's <|im_end|>: biased away, so that every stream has the same length


async def one(cluster, index, tokens, times):
    body = {"model": cluster.model_name, "prompt": PROMPT.format(index), "max_tokens": tokens, "temperature": 0,
            "logit_bias": {str(END_OF_TEXT): -100}}
    await stream(cluster.port, body, lambda choice: bool(choice["text"]), times)


async def run_round(cluster, batch, tokens):
    """(tokens per second, seconds of the window) of `batch` streams after all have had their first token."""
    times = [[] for _ in range(batch)]
    await asyncio.gather(*(one(cluster, i, tokens, times[i]) for i in range(batch)))
    if any(len(t) < tokens // 2 for t in times):
        raise RuntimeError(f"a stream gave {min(len(t) for t in times)} events of {tokens} tokens")
    start = max(t[0] for t in times)
    end = min(t[-1] for t in times)
    return sum(start < moment <= end for t in times for moment in t) / (end - start), end - start


def busy(cells, stage):
    return sum(v for (where, _, state, _), v in cells.items() if where == stage and state == "busy")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, default=18080)
    parser.add_argument("--topology", action="append", help="only these (colocated is the baseline); may be repeated")
    parser.add_argument("--ledger", action="store_true", help="also print every cell of the workers' account of time")
    options = parser.parse_args()
    rows = {}
    for topology, shape in TOPOLOGIES:
        if options.topology and topology not in options.topology:
            continue
        with tempfile.TemporaryDirectory() as state_dir:
            cluster = Cluster(options.bin, options.model, options.port, topology, shape, state_dir)
            try:
                for batch in [int(b) for b in options.batches.split(",")]:
                    asyncio.run(run_round(cluster, batch, options.tokens))  # warm-up: graphs of this shape
                    rates, before = [], cluster.ledger()
                    for _ in range(options.rounds):
                        rates.append(asyncio.run(run_round(cluster, batch, options.tokens))[0])
                    cells = delta(before, cluster.ledger())
                    rows[topology, batch] = (statistics.median(rates), cells, options.rounds * options.tokens)
                    print(f"{topology} batch {batch}: {statistics.median(rates):.1f} tok/s", file=sys.stderr, flush=True)
                    if options.ledger:
                        for (stage, pool, state, cause), seconds in sorted(cells.items()):
                            print(f"    {stage + '@' + pool:22} {state:6} {cause:14} {seconds:8.2f} s", file=sys.stderr)
            finally:
                cluster.down()
    print("| batch | topology | tok/s | of colocated | step ms | attention + head ms | ffn ms | bound tok/s | "
          "attention waits for FFN: compute, queue, hand-off ms | hand-off share of a step |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for (topology, batch), (rate, cells, steps) in sorted(rows.items(), key=lambda item: item[0][1]):
        attention, ffn = (1e3 * busy(cells, stage) / steps for stage in ("attention", "ffn"))
        stall = {cause: 1e3 * sum(v for (_, _, state, c), v in cells.items() if state == "stall" and c == cause) / steps
                 for cause in ("peer_compute", "peer_queue", "handoff")}
        split = topology != "colocated"
        bound = 1e3 * batch / (max(attention, ffn) if split else attention + ffn)
        base = rows.get(("colocated", batch))
        step = 1e3 * batch / rate
        print(f"| {batch} | {topology} | {rate:.1f} | {f'{rate / base[0]:.2f}' if base else '-'} | {step:.1f} | "
              f"{attention:.1f} | {ffn:.1f} | {bound:.1f} | {stall['peer_compute']:.1f}, {stall['peer_queue']:.1f}, "
              f"{stall['handoff']:.1f} | {stall['handoff'] / step:.2f} |")


if __name__ == "__main__":
    main()
