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
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

TOPOLOGIES = [("colocated", "1W"), ("afd", "1A1F"), ("pd-afd", "1P1A1F")]
PROMPT = "Write a long story about a lighthouse keeper, with many details. Story number {}:"
END_OF_TEXT = 2  # SmolLM2's <|im_end|>: biased away, so that every stream has the same length


class Cluster:
    def __init__(self, options, topology, shape, state_dir):
        self.ctl = os.path.join(options.bin, "tandemctl")
        self.state = ["--state-dir", state_dir]
        self.port = options.port
        subprocess.run([self.ctl, "local", "up", "--no-chat", "--topology", topology, "--shape", shape, "--model",
                        options.model, "--port", str(options.port), *self.state],
                       check=True, stdout=subprocess.DEVNULL)
        status = subprocess.run([self.ctl, "status", "--json", *self.state], check=True, capture_output=True, text=True)
        self.workers = json.loads(status.stdout)["workers"]

    def ledger(self):
        """Seconds by (stage, state, cause), summed over the workers."""
        cells = {}
        for worker in self.workers:
            text = urllib.request.urlopen(worker["metrics_url"], timeout=30).read().decode()
            for labels, value in re.findall(r"^tandem_stage_seconds_total\{([^}]*)\} (\S+)$", text, re.M):
                label = dict(re.findall(r'(\w+)="([^"]*)"', labels))
                key = (label["stage"] + "@" + label["pool"], label["state"], label.get("cause", ""))
                cells[key] = cells.get(key, 0.0) + float(value)
        return cells

    def down(self):
        subprocess.run([self.ctl, "local", "down", *self.state], check=True, stdout=subprocess.DEVNULL)


async def stream(port, index, tokens, times):
    """One streamed completion; appends the arrival time of each event with text."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps({"model": MODEL_NAME, "prompt": PROMPT.format(index), "max_tokens": tokens, "temperature": 0,
                       "stream": True, "logit_bias": {str(END_OF_TEXT): -100}}).encode()
    writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
                 b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
    await writer.drain()
    while True:
        line = await reader.readline()
        if not line:
            break
        if line.startswith(b"data: {"):
            event = json.loads(line[6:])
            if "error" in event:
                raise RuntimeError(event["error"])
            if event["choices"][0]["text"]:
                times.append(time.monotonic())
    writer.close()


async def run_round(port, batch, tokens):
    """(tokens per second, seconds of the window) of `batch` streams after all have had their first token."""
    times = [[] for _ in range(batch)]
    await asyncio.gather(*(stream(port, i, tokens, times[i]) for i in range(batch)))
    if any(len(t) < tokens // 2 for t in times):
        raise RuntimeError(f"a stream gave {min(len(t) for t in times)} events of {tokens} tokens")
    start = max(t[0] for t in times)
    end = min(t[-1] for t in times)
    return sum(start < moment <= end for t in times for moment in t) / (end - start), end - start


def busy(delta, stage):
    return sum(v for (where, state, _), v in delta.items() if where.startswith(stage + "@") and state == "busy")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--model-name", default="")
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, default=18080)
    parser.add_argument("--topology", action="append", help="only these (colocated is the baseline); may be repeated")
    parser.add_argument("--ledger", action="store_true", help="also print every cell of the workers' account of time")
    options = parser.parse_args()
    global MODEL_NAME
    rows = {}
    for topology, shape in TOPOLOGIES:
        if options.topology and topology not in options.topology:
            continue
        with tempfile.TemporaryDirectory() as state_dir:
            cluster = Cluster(options, topology, shape, state_dir)
            try:
                models = json.load(urllib.request.urlopen(f"http://127.0.0.1:{options.port}/v1/models", timeout=30))
                MODEL_NAME = options.model_name or models["data"][0]["id"]
                for batch in [int(b) for b in options.batches.split(",")]:
                    asyncio.run(run_round(options.port, batch, options.tokens))  # warm-up: graphs of this shape
                    rates, before = [], cluster.ledger()
                    for _ in range(options.rounds):
                        rates.append(asyncio.run(run_round(options.port, batch, options.tokens))[0])
                    after = cluster.ledger()
                    delta = {key: after[key] - before.get(key, 0.0) for key in after}
                    rows[topology, batch] = (statistics.median(rates), delta, options.rounds * options.tokens)
                    print(f"{topology} batch {batch}: {statistics.median(rates):.1f} tok/s", file=sys.stderr, flush=True)
                    if options.ledger:
                        for (stage, state, cause), seconds in sorted(delta.items()):
                            print(f"    {stage:22} {state:6} {cause:14} {seconds:8.2f} s", file=sys.stderr)
            finally:
                cluster.down()
    print("| batch | topology | tok/s | of colocated | step ms | attention + head ms | ffn ms | bound tok/s | "
          "attention waits for FFN: compute, queue, hand-off ms | hand-off share of a step |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for (topology, batch), (rate, delta, steps) in sorted(rows.items(), key=lambda item: item[0][1]):
        attention, ffn = (1e3 * busy(delta, stage) / steps for stage in ("attention", "ffn"))
        stall = {cause: 1e3 * sum(v for (_, state, c), v in delta.items() if state == "stall" and c == cause) / steps
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
