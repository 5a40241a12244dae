#!/usr/bin/env python3
"""Every emulated cluster of deploy/local: what one request sees, in the devices' time, beside what the cost model forecasts.

    tests/bench/emulated_bench.py BUILD_DIR [--perturbation 0.2] [--rounds 3] [--time-scale S] [NAME...]

Of one stream of 96 tokens: TTFT and TPOT (mean after the first quarter) in emulated seconds, the time scale that the cluster chose, the TPOT
that the unperturbed cost model gives for those tokens (emulated_plan.cc: attention, FFN, links, head), and `of plan`: the one over the other.
Without perturbation that is what our engines and the host add: 1.00 is nothing. With it each worker's device is off by a cost table of its own,
as real silicon is from a forecast, and `of plan` is how wrong the plan was. The last column is the worst worker's lag, in % of its devices' time.
"""
import argparse
import json
import pathlib
import re
import statistics
import subprocess
import tempfile
import time
import urllib.request

SOURCE = pathlib.Path(__file__).resolve().parents[2]
PORT = 18480
TOKENS = 96
FIRST_SCALE, LARGEST_SCALE, MOST_LAG = 8, 512, 0.02
PROMPT = list(range(1, 17))


def stream(model, tokens):
    body = {"model": model, "prompt": PROMPT, "max_tokens": tokens, "stream": True, "temperature": 0, "ignore_eos": True,
            "return_token_ids": True}
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/v1/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    start = time.monotonic()
    arrivals = []
    with urllib.request.urlopen(request, timeout=600) as reply:
        scale = float(reply.headers["x-tandem-time-scale"])
        for line in reply:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            for choice in chunk["choices"]:  # not every token is a text
                arrivals += [time.monotonic() - start] * len(choice.get("token_ids") or [])
    return scale, arrivals


def lag_of(workers):
    pages = [urllib.request.urlopen(worker["metrics_url"], timeout=60).read().decode() for worker in workers]
    return max(float(re.search(r"^tandem_emulation_lag_ratio(?:{[^}]*})? (\S+)$", page, re.M).group(1)) for page in pages)


def measure(options, file, time_scale):
    """Medians of time scale, TTFT, TPOT; and the worst lag."""
    tandemctl = f"{options.build}/bin/tandemctl"
    with tempfile.TemporaryDirectory() as state:
        flags = ["--state-dir", state]
        subprocess.run([tandemctl, "local", "up", "--no-chat", "--config", file, "--port", str(PORT), "--perturbation",
                        str(options.perturbation), "--time-scale", time_scale, *flags], check=True, stdout=subprocess.DEVNULL)
        try:
            workers = json.loads(subprocess.run([tandemctl, "status", "--json", *flags], check=True, capture_output=True,
                                                text=True).stdout)["workers"]
            rows, lag = [], 0.0
            for _ in range(options.rounds):
                scale, arrivals = stream(workers[0]["model"], TOKENS)
                first = len(arrivals) // 4
                rows.append((scale, arrivals[0] / scale, (arrivals[-1] - arrivals[first]) / (len(arrivals) - 1 - first) / scale))
                lag = max(lag, lag_of(workers))
            return [*(statistics.median(column) for column in zip(*rows)), lag]
        finally:
            subprocess.run([tandemctl, "local", "down", *flags], check=False, stdout=subprocess.DEVNULL)


def measure_in_time(options, file):
    """At the scale that was asked for, else at the first that the host keeps up with."""
    if options.time_scale:
        return measure(options, file, options.time_scale)
    scale = FIRST_SCALE
    while True:
        result = measure(options, file, str(scale))
        if result[-1] < MOST_LAG or scale >= LARGEST_SCALE:
            return result
        scale *= 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=lambda path: pathlib.Path(path).resolve())
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--perturbation", type=float, default=0)
    parser.add_argument("--time-scale", help="machine seconds for one of the devices', or auto: what the cluster chooses; what HTTP and the gateway take "
                        "of the machine's time shows the more, the smaller it is [doubled from 8 until the lag is under 2 %%]")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_intermixed_args()
    names = options.names or sorted(path.stem for path in (SOURCE / "deploy" / "local").glob("emulated-*.yaml"))
    print(f"perturbation {options.perturbation:g}")
    print(f"{'cluster':26} {'time scale':>10} {'TTFT ms':>9} {'TPOT ms':>9} {'tok/s':>8} {'plan ms':>9} {'of plan':>8} {'lag %':>6}")
    for name in names:
        file = str(SOURCE / "deploy" / "local" / (name + ".yaml"))
        scale, ttft, tpot, lag = measure_in_time(options, file)
        # A token that arrives was computed at the position before it.
        first, last = len(PROMPT) + TOKENS // 4, len(PROMPT) + TOKENS - 1
        plan = float(subprocess.run([options.build / "tests" / "emulated_plan", file, str(first), str(last)], check=True,
                                    capture_output=True, text=True).stdout)
        print(f"{name:26} {scale:10g} {1e3 * ttft:9.1f} {1e3 * tpot:9.2f} {1 / tpot:8.0f} {1e3 * plan:9.2f} {tpot / plan:8.3f} "
              f"{100 * lag:6.1f}", flush=True)


if __name__ == "__main__":
    main()
