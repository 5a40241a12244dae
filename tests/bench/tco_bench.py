#!/usr/bin/env python3
"""Whether an emulated attention-FFN cluster pays, by how much it is asked: the verdict of `tandemctl tco` at several loads.

    tests/bench/tco_bench.py BUILD_DIR [--streams 8 128] [--slo-tpot-ms 9.5 10 50] [--prices FILE]

The cluster is deploy/local/emulated-rubin-lpx-pd.yaml (eight Vera Rubin for prompts, eight for decode attention, one LPX rack for the FFN;
Llama-3-70B in FP8), its prices those of deploy/prices/example.yaml, which are assumptions. That many clients have one request at a time, 32
tokens of prompt and 1024 of output, the first ones shorter so that they end one after the other. Over a window in which all of them decode
the router's account says what a million tokens cost, and the cost model what they would cost on H100s alone that keep a time per output
token (the objective). `pays`: cheaper than the low end of that forecast's band; `does not`: dearer than the high end.
"""
import argparse
import contextlib
import json
import pathlib
import subprocess
import tempfile
import threading
import time
import urllib.request

from occupancy_bench import PORT, Books, Cluster, wait

SOURCE = pathlib.Path(__file__).resolve().parents[2]
MODEL = "llama-3-70b"
CLUSTER = """topology: pd-afd
emulated:
  model_shape: llama-3-70b
  devices: rubin-lpx
  time_scale: {time_scale:g}
workers:
  - pool: prefill
  - pool: attention
    flags: {{max-batch: {streams}}}
  - pool: ffn
"""
PROMPT_TOKENS, OUTPUT_TOKENS = 32, 1024
WINDOW_STEPS = 200


@contextlib.contextmanager
def closed_loop(streams):
    """Clients with one request at a time; they end with the cluster."""

    def run(client):
        output = 1 + client * (OUTPUT_TOKENS - 1) // streams
        with contextlib.suppress(OSError):
            while True:
                body = {"model": MODEL, "prompt": [1 + client] * PROMPT_TOKENS, "max_tokens": output, "ignore_eos": True}
                request = urllib.request.Request(f"http://127.0.0.1:{PORT}/v1/completions", json.dumps(body).encode(),
                                                 {"Content-Type": "application/json"})
                urllib.request.urlopen(request, timeout=3600).read()
                output = OUTPUT_TOKENS

    threads = [threading.Thread(target=run, args=(client,), daemon=True) for client in range(streams)]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(60)


def tco(cluster, seconds, slo_tpot_ms, options):
    text = subprocess.run([cluster.command, "tco", "--json", "--window", f"{seconds:.0f}s", "--slo-tpot-ms", str(slo_tpot_ms),
                           "--prices", options.prices, *cluster.state], check=True, capture_output=True, text=True).stdout
    return json.loads(text)


def measure(streams, options):
    """TPOT over the window in device seconds, the worst lag, and the report of its cost for each objective."""
    with tempfile.TemporaryDirectory() as directory:
        cluster = Cluster(f"{options.build}/bin/tandemctl", directory, CLUSTER.format(time_scale=options.time_scale, streams=streams))
        try:
            attention = next(worker for worker in cluster.workers if "attention" in worker["stages"])
            with closed_loop(streams):
                # A few are always between two requests.
                wait("the streams decode", lambda: any(worker["sequences"] >= 0.9 * streams for worker in cluster.status()))
                before, began = Books(attention), time.monotonic()
                wait(f"{WINDOW_STEPS} steps", lambda: Books(attention).steps >= before.steps + WINDOW_STEPS)
                after, seconds = Books(attention), time.monotonic() - began
                reports = [(slo, tco(cluster, seconds, slo, options)) for slo in options.slo_tpot_ms]
                lag = max(Books(worker).lag for worker in cluster.workers)
                cluster.down()
            return (after.elapsed - before.elapsed) / (after.steps - before.steps), lag, reports
        finally:
            cluster.down()


def dollars(value):
    return "unknown" if value is None else f"{value:.3g}"


def row(streams, tpot, lag, slo, report):
    baseline, ours = report["baseline"], report["totals"]["dollars_per_mtok_total"]
    price, occupancy = (report["break_even"][name] for name in ("dollars_per_hour", "occupancy"))
    if "device" in baseline:
        low, high = baseline["dollars_per_mtok_low"], baseline["dollars_per_mtok_high"]
        verdict = "pays" if ours < low else "does not" if ours > high else "within the band"
        compared = [f"{baseline['device']}, batch {baseline['batch']}", f"{dollars(low)} to {dollars(high)}"]
    else:
        verdict, compared = "nothing to compare with", [baseline["why_not"], "none"]
    cells = [streams, f"{tpot * 1e3:.2f}", f"{slo:g}", dollars(ours), *compared, f"{100 * report['specialist']['occupancy']:.1f} %",
             occupancy["why_not"] if occupancy["value"] is None else f"{100 * occupancy['value']:.1f} %",
             "none" if price["value"] is None else dollars(price["value"]), verdict, f"{100 * lag:.1f}"]
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--streams", type=int, nargs="+", default=[8, 128])
    parser.add_argument("--slo-tpot-ms", type=float, nargs="+", default=[9.5, 10, 50])
    parser.add_argument("--time-scale", type=float, default=16)
    parser.add_argument("--prices", default=SOURCE / "deploy" / "prices" / "example.yaml")
    options = parser.parse_args()
    print("| streams | TPOT ms | objective ms | $/Mtok | baseline at the same SLO | its $/Mtok | rack busy | breaks even at | rack's break-even $/h | verdict | lag % |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for streams in options.streams:
        tpot, lag, reports = measure(streams, options)
        for slo, report in reports:
            row(streams, tpot, lag, slo, report)


if __name__ == "__main__":
    main()
