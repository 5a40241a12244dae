#!/usr/bin/env python3
"""How busy the FFN worker of an emulated afd cluster is, beside the most that its attention workers can keep it busy.

    tests/bench/occupancy_bench.py BUILD_DIR [--only NAME]... [--micro-batches 3] [--warm-up 40] [--steps 60]

Clusters of x attention workers and one FFN worker (xA1F), and of two layer shards, with devices of the catalog chosen so that a step keeps
both sides busy for about as long (balance: W_f/y over W_a, at a batch of 12 a worker). From the workers' own books over a window of steps in
which every sequence runs: W_a, an attention worker's busy seconds of a step; W_f, all FFN workers' with the merges made; T, a step's time.
The occupancy of the y FFN workers is W_f/(y T). Its bound is W_f/(y max(W_f/y, W_a)): no step is shorter than its busiest device is busy. (The
design's bound also knows how long one worker's step takes alone, which makes it lower; so reaching this one is harder.) With y layer shards and
one attention worker the shards take turns. Where the rest of the FFN workers' time goes is in the last columns.
"""
import argparse
import contextlib
import json
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

PORT = 18490
BATCH = 12  # sequences of each attention worker

# name: (model, weights, attention device, how many, FFN device, how many, shards)
CLUSTERS = {
    "1A1F": ("llama-3-70b", "bf16", "vera-rubin-x2", 1, "groq-lpu-v1-x576", 1, "replicas"),
    "2A1F": ("llama-3-70b", "bf16", "h200-x4", 2, "groq-lpu-v1-x576", 1, "replicas"),
    "4A1F": ("llama-3-8b", "bf16", "b200-x2", 4, "cs-3", 1, "replicas"),
    "2A2F layers": ("llama-3-70b", "bf16", "vera-rubin-x2", 2, "groq-lpu-v1-x576", 2, "layers"),
}


def config(name, options, time_scale):
    model, weights, attention, attentions, ffn, ffns, shards = CLUSTERS[name]
    return f"""topology: afd
emulated:
  model_shape: {model}
  weights: {weights}
  time_scale: {time_scale:g}
workers:
  - pool: attention
    count: {attentions}
    flags: {{device: {attention}, micro-batches: {options.micro_batches}, max-micro-batches: {options.micro_batches}}}
  - pool: ffn
    count: {ffns}
    shards: {shards}
    flags: {{device: {ffn}}}
"""


class Cluster:
    def __init__(self, tandemctl, directory, text):
        self.command, self.state = tandemctl, ["--state-dir", directory]
        file = pathlib.Path(directory) / "cluster.yaml"
        file.write_text(text)
        subprocess.run([tandemctl, "local", "up", "--no-chat", "--config", file, "--port", str(PORT), *self.state], check=True,
                       stdout=subprocess.DEVNULL)
        self.workers = self.status()

    def status(self):
        text = subprocess.run([self.command, "status", "--json", *self.state], check=True, capture_output=True, text=True).stdout
        return json.loads(text)["workers"]

    def down(self):
        subprocess.run([self.command, "local", "down", *self.state], check=False, stdout=subprocess.DEVNULL)


class Books:
    """One worker's metrics at one time."""

    def __init__(self, worker):
        text = urllib.request.urlopen(worker["metrics_url"], timeout=60).read().decode()
        self.cells = {}
        for labels, value in re.findall(r"^tandem_stage_seconds_total\{([^}]*)\} (\S+)$", text, re.M):
            label = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            key = label["state"] if label["state"] == "busy" else label["cause"]
            self.cells[key] = self.cells.get(key, 0.0) + float(value)
        value = lambda name: float(re.search(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M).group(1))
        self.elapsed, self.lag = value("tandem_device_elapsed_seconds_total"), value("tandem_emulation_lag_ratio")
        self.steps, self.calls, self.merged = (value(f"tandem_worker_{name}_total") for name in
                                               ("decode_steps", "ffn_calls", "ffn_calls_merged"))


class Window:
    """What one worker did between two of its books."""

    def __init__(self, before, after):
        self.elapsed, self.steps = after.elapsed - before.elapsed, after.steps - before.steps
        self.calls, self.merged = after.calls - before.calls, after.merged - before.merged
        self.lag = after.lag
        self.shares = {key: (seconds - before.cells.get(key, 0.0)) / self.elapsed for key, seconds in after.cells.items()}


@contextlib.contextmanager
def load(model, sequences):
    """That many endless streams; ended with the cluster."""
    body = json.dumps({"model": model, "prompt": [1, 2, 3, 4], "max_tokens": 4000, "temperature": 0, "ignore_eos": True}).encode()

    def ask():
        request = urllib.request.Request(f"http://127.0.0.1:{PORT}/v1/completions", body, {"Content-Type": "application/json"})
        with contextlib.suppress(OSError):
            urllib.request.urlopen(request, timeout=900).read()

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(sequences)]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(60)


def wait(what, condition):
    end = time.monotonic() + 900
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"occupancy_bench: never, in 900 s: {what}")
        time.sleep(0.2)


def windows(cluster, attention, warm_up, steps):
    first = {worker["id"]: Books(worker) for worker in attention}
    started = lambda count: all(Books(worker).steps >= first[worker["id"]].steps + count for worker in attention)
    wait(f"{warm_up} steps", lambda: started(warm_up))
    before = [Books(worker) for worker in cluster.workers]
    first = {worker["id"]: books for worker, books in zip(cluster.workers, before)}
    wait(f"{steps} steps", lambda: started(steps))
    return [Window(early, Books(worker)) for early, worker in zip(before, cluster.workers)]


def measure(name, options, time_scale):
    tandemctl = f"{options.build}/bin/tandemctl"
    model = CLUSTERS[name][0]
    with tempfile.TemporaryDirectory() as directory:
        cluster = Cluster(tandemctl, directory, config(name, options, time_scale))
        try:
            attention = [worker for worker in cluster.workers if "attention" in worker["stages"]]
            with contextlib.ExitStack() as stack:
                stack.enter_context(load(model, BATCH * len(attention)))
                wait("every sequence runs", lambda: all(worker["sequences"] == BATCH for worker in cluster.status()
                                                        if "attention" in worker["stages"]))
                result = windows(cluster, attention, options.warm_up, options.steps)
                cluster.down()
            return ([window for worker, window in zip(cluster.workers, result) if worker in attention],
                    [window for worker, window in zip(cluster.workers, result) if worker not in attention])
        finally:
            cluster.down()


def row(name, time_scale, attention, ffn):
    step = statistics.mean(window.elapsed / window.steps for window in attention)
    busy_a = statistics.mean(window.shares["busy"] * window.elapsed / window.steps for window in attention)
    occupancy = statistics.mean(window.shares["busy"] for window in ffn)
    busy_f = occupancy * step  # each FFN worker's, of a step
    bound = busy_f / max(busy_f, busy_a)
    causes = {key: statistics.mean(window.shares.get(key, 0.0) for window in ffn) for key in ffn[0].shares if key != "busy"}
    rest = ", ".join(f"{key} {share:.3f}" for key, share in sorted(causes.items(), key=lambda item: -item[1]) if share >= 0.0005)
    lag = max(window.lag for window in attention + ffn)
    merged = sum(window.merged for window in ffn) / max(1, sum(window.calls for window in ffn))
    print(f"| {name} | {time_scale:g} | {busy_f / busy_a:.2f} | {step * 1e3:.2f} | {merged:.2f} | {occupancy:.3f} | {bound:.3f} | "
          f"{occupancy / bound:.3f} | {rest} | {100 * lag:.1f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--only", action="append", choices=CLUSTERS)
    parser.add_argument("--micro-batches", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=40, help="steps before the window: workers that start together merge more at first")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--time-scale", type=float, default=0, help="0: doubled from 32 until the host's lag is under 2 %%")
    options = parser.parse_args()
    print("| cluster | time scale | balance | step ms | calls merged | occupancy | bound | of the bound | the FFN workers' other time | lag % |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in options.only or CLUSTERS:
        time_scale = options.time_scale or 32
        while True:
            attention, ffn = measure(name, options, time_scale)
            if options.time_scale or max(window.lag for window in attention + ffn) < 0.02 or time_scale >= 1024:
                break
            time_scale *= 2
        row(name, time_scale, attention, ffn)


if __name__ == "__main__":
    main()
