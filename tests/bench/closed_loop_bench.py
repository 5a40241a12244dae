#!/usr/bin/env python3
"""The cost model against real time: calibrates it on this machine, forecasts TPOT and TTFT of live clusters, and measures them.

    tests/bench/closed_loop_bench.py --build build/release --model FILE.gguf [--batches 1,2,4,8,16,32] [--rounds 1]

1. `tandemctl calibrate` times the backend's calls alone, in turns with a neighbour and beside it, and hand-offs, and fits chips to them;
   once before the clusters and once after. Nothing of a cluster goes into it.
2. Each cluster of `tandemctl local up` (one compute thread a worker) serves `batch` closed-loop clients: each sends one request when
   its last has ended, all with one prompt length and one output length, greedy. The first output of each is shorter, so that they do not
   go in step; its first and its last request do not count. TPOT is (last token - first token) / (tokens - 1) of a request, TTFT from
   before its connection is made to its first token: HTTP, queue, prefill of all but the last prompt token, the rest of the running step,
   and one step. Both contain what other clients' prompts take of the device. Medians over the requests of all rounds (8 at least a round).
3. The forecast is the simulator's (production router and step code, one virtual second for each real one) of the same cluster and
   clients with the calibrated times: the chip of a worker's stages, its contended one while another worker computes, the measured link.
   HTTP, gateway, router and the engine's own time between calls are not in it: they are part of the error.
"""
import argparse
import asyncio
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from live_cluster import Cluster, delta, stream

# Stages of each worker, and the chip that is fitted to their calls.
TOPOLOGIES = {
    "colocated": ("1W", [("w", "prefill+attention+ffn", "")]),
    "afd": ("1A1F", [("a", "prefill+attention", "-attention"), ("f", "ffn", "-ffn")]),
    "pd-afd": ("1P1A1F", [("p", "prefill", ""), ("a", "attention", "-attention"), ("f", "ffn", "-ffn")]),
}
CHIP = "local-cpu"
# As tandem-worker's defaults.
WORKER = "kv_blocks: 1024, block_tokens: 16, max_batch: 64, max_sequences: 64, max_micro_batches: 3, prefill_slots: 64, chunk_tokens: 32"


def load():
    return os.getloadavg()[0]


def requests_each(batch):
    """Of which two do not count: as many in all that the median stands, and minutes suffice."""
    return 2 + max(1, 8 // batch)


def first_output(client, clients, tokens):
    return 1 + client * (tokens - 1) // clients  # scheduler/sim FirstOutput


# ---- Forecast.

class Calibration:
    """Chips of this machine as it is now."""

    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        command = [f"{options.build}/bin/tandemctl", "calibrate", "--model", options.model, "--out", folder, "--name", CHIP,
                   "--max-spread", str(options.max_spread)]
        if options.quick:
            command.append("--quick")
        print(f"calibrating, load {load():.2f}", flush=True)
        print(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout, flush=True)

    def forecast(self, topology, batch):
        options = self.options
        workers = "".join(
            f"  - {{name: {name}, stages: {stages}, device: {CHIP}{suffix}, beside: {CHIP}{suffix}-contended, {WORKER}}}\n"
            for name, stages, suffix in TOPOLOGIES[topology][1])
        scenario = (f"name: {topology}\nmodel: smollm2-135m\nlayers: 30\nweights: int4\nvocabulary: 1000000\n"
                    f"host_cores: {os.cpu_count()}\ncontrol_latency_us: 0\ncontrol_jitter_us: 0\ntime_limit_ms: 100000000\n"
                    f"workers:\n{workers}"
                    f"load:\n  - {{requests: {batch * requests_each(batch)}, clients: {batch}, prompt_min: {options.prompt}, "
                    f"output_min: {options.output}}}\n")
        path = pathlib.Path(self.folder) / f"{topology}-{batch}.yaml"
        path.write_text(scenario)
        out = subprocess.run([f"{options.build}/tests/closed_loop_forecast", self.folder, path], check=True, stdout=subprocess.PIPE,
                             text=True).stdout
        return json.loads(out)


# ---- Measurement.

async def request(cluster, prompt, tokens):
    """Arrival of each token, and the time before the connection was made."""
    body = {"model": cluster.model_name, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True,
            "return_token_ids": True}
    times, start = [], time.monotonic()
    await stream(cluster.port, body, lambda choice: len(choice.get("token_ids") or []), times)
    if len(times) != tokens:
        raise RuntimeError(f"a request gave {len(times)} of {tokens} tokens")
    return times, start


async def warm_up(cluster, options, batch):
    """Every number of rows once, for which workers build a graph of each layer, and a whole prompt."""
    await asyncio.gather(*(request(cluster, [1] * (2 if i else options.prompt), i + 2) for i in range(batch)))


async def client(cluster, options, number, clients, requests):
    """(TTFT, TPOT) of the requests that count."""
    counted = []
    for index in range(requests):
        tokens = options.output if index else first_output(number, clients, options.output)
        prompt = [1 + (number, index, position)[min(position, 2)] % 1000 for position in range(options.prompt)]
        times, start = await request(cluster, prompt, tokens)
        if 0 < index < requests - 1:
            counted.append((times[0] - start, (times[-1] - times[0]) / (tokens - 1)))
    return counted


async def one_round(cluster, options, batch):
    results = await asyncio.gather(*(client(cluster, options, i, batch, requests_each(batch)) for i in range(batch)))
    return [pair for result in results for pair in result]


def tokens_of(options, batch):
    return sum(first_output(i, batch, options.output) for i in range(batch)) + batch * (requests_each(batch) - 1) * options.output


def measure(options, topology):
    """By batch: medians of TTFT and TPOT, and the workers' account a token."""
    rows = {}
    with tempfile.TemporaryDirectory() as state_dir:
        cluster = Cluster(f"{options.build}/bin", options.model, options.port, topology, TOPOLOGIES[topology][0], state_dir)
        try:
            for batch in options.batches:
                asyncio.run(warm_up(cluster, options, batch))
                before, load_before, pairs = cluster.ledger(), load(), []
                for _ in range(options.rounds):
                    pairs += asyncio.run(one_round(cluster, options, batch))
                cells = delta(before, cluster.ledger())
                tokens = options.rounds * tokens_of(options, batch)
                account = {}
                for (stage, _, state, cause), seconds in cells.items():
                    name = f"{stage} busy" if state == "busy" else f"{state} {cause}"
                    account[name] = account.get(name, 0) + seconds / tokens
                rows[batch] = {"ttft": statistics.median(p[0] for p in pairs), "tpot": statistics.median(p[1] for p in pairs),
                               "requests": len(pairs), "load": load_before, "account": account}
                print(f"{topology} batch {batch}: TPOT {1e3 * rows[batch]['tpot']:.1f} ms, TTFT {1e3 * rows[batch]['ttft']:.0f} ms "
                      f"({len(pairs)} requests, load {load_before:.2f} before)", file=sys.stderr, flush=True)
        finally:
            cluster.down()
    return rows


# ---- Report.

def mean(forecasts, key):
    return statistics.mean(f[key] for f in forecasts)


def device(forecasts, state):
    """Seconds a token of the forecast's devices."""
    return statistics.mean(f["device_seconds"].get(state, 0) / f["tokens"] for f in forecasts)


def summary(name, errors):
    worst = max(errors, key=lambda e: abs(e[0]))
    middle = statistics.median(abs(e[0]) for e in errors)
    print(f"{name}: median error {100 * middle:.1f} %, worst {100 * worst[0]:+.1f} % ({worst[1]} batch {worst[2]})")


def report(options, measured, forecasts):
    errors = {"tpot": [], "ttft": []}
    print("| topology | batch | TPOT ms forecast | measured | error | TTFT ms forecast | measured | error | requests | load |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for (topology, batch), row in measured.items():
        cells = []
        for key in ("tpot", "ttft"):
            forecast = mean(forecasts[topology, batch], key + "_seconds")
            error = forecast / row[key] - 1
            errors[key].append((error, topology, batch))
            cells.append(f"{1e3 * forecast:.1f} | {1e3 * row[key]:.1f} | {100 * error:+.1f} %")
        print(f"| {topology} | {batch} | {' | '.join(cells)} | {row['requests']} | {row['load']:.1f} |")
    summary("TPOT", errors["tpot"])
    summary("TTFT", errors["ttft"])
    before, after = ([f[i]["tpot_seconds"] for f in forecasts.values()] for i in (0, 1))
    drift = statistics.median(b / a - 1 for a, b in zip(before, after))
    print(f"forecasts from the calibration after the clusters against the one before: TPOT {100 * drift:+.1f} % (median)\n")
    print("Device milliseconds a token, forecast / measured (what a device's calls took, and what its attention waited for)")
    print("| topology | batch | prefill | attention + head | ffn | waits for FFN |")
    print("|---|---|---|---|---|---|")
    for (topology, batch), row in measured.items():
        f = forecasts[topology, batch]
        waits = sum(row["account"].get(f"stall {cause}", 0) for cause in ("handoff", "peer_compute", "peer_queue"))
        waits_forecast = sum(device(f, state) for state in {state for forecast in f for state in forecast["device_seconds"]}
                             if state.endswith(("stall handoff", "stall peer_compute", "stall peer_queue")))
        busy = [f"{1e3 * device(f, stage + ' busy'):.2f} / {1e3 * row['account'].get(stage + ' busy', 0):.2f}"
                for stage in ("prefill", "attention", "ffn")]
        print(f"| {topology} | {batch} | {' | '.join(busy)} | {1e3 * waits_forecast:.2f} / {1e3 * waits:.2f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True, type=lambda path: str(pathlib.Path(path).resolve()))
    parser.add_argument("--model", required=True)
    parser.add_argument("--batches", default=[1, 2, 4, 8, 16, 32], type=lambda text: [int(b) for b in text.split(",")])
    parser.add_argument("--topologies", default=list(TOPOLOGIES), type=lambda text: text.split(","))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=33, help="tokens of a prompt [33: one prefill chunk and a token]")
    parser.add_argument("--output", type=int, default=32, help="tokens of an answer")
    parser.add_argument("--port", type=int, default=18280)
    parser.add_argument("--quick", action="store_true", help="calibrate --quick")
    parser.add_argument("--max-spread", type=float, default=1.0, help="calibrate's: how unquiet the machine may be")
    parser.add_argument("--keep", help="folder for both calibrations and the scenarios [a temporary one]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or temporary
        calibrations = [Calibration(options, os.path.join(folder, "before"))]
        measured = {}
        for topology in options.topologies:
            for batch, row in measure(options, topology).items():
                measured[topology, batch] = row
        calibrations.append(Calibration(options, os.path.join(folder, "after")))
        forecasts = {at: [c.forecast(*at) for c in calibrations] for at in measured}
    report(options, measured, forecasts)


if __name__ == "__main__":
    main()
