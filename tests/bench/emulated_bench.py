#!/usr/bin/env python3
"""Every emulated cluster of deploy/local: what one request sees, in the devices' time, and how that stands to the devices' own account.

    tests/bench/emulated_bench.py BUILD_DIR [NAME...]

Of one stream of 96 tokens: TTFT and TPOT (mean after the first quarter) in emulated seconds, the time scale that the cluster chose, and
`engine`: the TPOT over what the stages' device seconds of that request add up to, links left out. Colocated devices have no links, so
there it is what the engine and the host add to the cost model: 1.00 is nothing.
"""
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

SOURCE = pathlib.Path(__file__).resolve().parents[2]
PORT = 18480


def stream(model, tokens):
    body = {"model": model, "prompt": "How busy is the specialist?", "max_tokens": tokens, "stream": True, "temperature": 0, "ignore_eos": True,
            "return_token_ids": True, "tandem": {"timings": True}}
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/v1/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    start = time.monotonic()
    arrivals, last = [], None
    with urllib.request.urlopen(request, timeout=600) as reply:
        scale = float(reply.headers["x-tandem-time-scale"])
        for line in reply:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            last = chunk if "tandem" in chunk else last
            if chunk["choices"] and chunk["choices"][0].get("token_ids"):  # not every token is a text
                arrivals.append(time.monotonic() - start)
    return scale, arrivals, last


def measure(tandemctl, file):
    with tempfile.TemporaryDirectory() as state:
        flags = ["--state-dir", state]
        subprocess.run([tandemctl, "local", "up", "--no-chat", "--config", file, "--port", str(PORT), *flags], check=True,
                       stdout=subprocess.DEVNULL)
        try:
            model = json.loads(subprocess.run([tandemctl, "status", "--json", *flags], check=True, capture_output=True,
                                              text=True).stdout)["workers"][0]["model"]
            rows = []
            for _ in range(3):
                scale, arrivals, last = stream(model, 96)
                first = len(arrivals) // 4
                tpot = (arrivals[-1] - arrivals[first]) / (len(arrivals) - 1 - first) / scale
                stages = {entry["stage"]: entry["seconds"] for entry in last["tandem"]["stages"]} if last else {}
                device = (stages.get("attention", 0) + stages.get("ffn", 0)) / 96
                rows.append((scale, arrivals[0] / scale, tpot, tpot / device if device else float("nan")))
            return [statistics.median(column) for column in zip(*rows)]
        finally:
            subprocess.run([tandemctl, "local", "down", *flags], check=False, stdout=subprocess.DEVNULL)


def main():
    tandemctl = str(pathlib.Path(sys.argv[1]).resolve() / "bin" / "tandemctl")
    names = sys.argv[2:] or sorted(path.stem for path in (SOURCE / "deploy" / "local").glob("emulated-*.yaml"))
    print(f"{'cluster':26} {'time scale':>10} {'TTFT ms':>9} {'TPOT ms':>9} {'tok/s':>8} {'engine':>7}")
    for name in names:
        scale, ttft, tpot, engine = measure(tandemctl, str(SOURCE / "deploy" / "local" / (name + ".yaml")))
        print(f"{name:26} {scale:10g} {1e3 * ttft:9.1f} {1e3 * tpot:9.2f} {1 / tpot:8.0f} {engine:7.2f}", flush=True)


if __name__ == "__main__":
    main()
