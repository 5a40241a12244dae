"""Live clusters of the real model for benchmarks: started by `tandemctl local up`, asked over HTTP, accounted for by the workers."""
import asyncio
import functools
import json
import os
import re
import subprocess
import time
import urllib.request


class Cluster:
    def __init__(self, bin_dir, model, port, topology, shape, state_dir):
        self.ctl = os.path.join(bin_dir, "tandemctl")
        self.state = ["--state-dir", state_dir]
        self.port = port
        subprocess.run([self.ctl, "local", "up", "--no-chat", "--topology", topology, "--shape", shape, "--model", model,
                        "--port", str(port), *self.state], check=True, stdout=subprocess.DEVNULL)
        status = subprocess.run([self.ctl, "status", "--json", *self.state], check=True, capture_output=True, text=True)
        self.workers = json.loads(status.stdout)["workers"]

    @functools.cached_property
    def model_name(self):
        return json.load(urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v1/models", timeout=30))["data"][0]["id"]

    def ledger(self):
        """Seconds by (stage, pool, state, cause), summed over the workers."""
        cells = {}
        for worker in self.workers:
            text = urllib.request.urlopen(worker["metrics_url"], timeout=30).read().decode()
            for labels, value in re.findall(r"^tandem_stage_seconds_total\{([^}]*)\} (\S+)$", text, re.M):
                label = dict(re.findall(r'(\w+)="([^"]*)"', labels))
                key = (label["stage"], label["pool"], label["state"], label.get("cause", ""))
                cells[key] = cells.get(key, 0.0) + float(value)
        return cells

    def down(self):
        subprocess.run([self.ctl, "local", "down", *self.state], check=True, stdout=subprocess.DEVNULL)


def delta(before, after):
    return {key: after[key] - before.get(key, 0.0) for key in after}


async def stream(port, body, tokens_of, times):
    """One streamed completion; appends the arrival time of each of its events, once for each token that `tokens_of` counts."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = json.dumps({**body, "stream": True}).encode()
    writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
                 b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(data) + data)
    await writer.drain()
    while line := await reader.readline():
        if line.startswith(b"data: {"):
            event = json.loads(line[6:])
            if "error" in event:
                raise RuntimeError(event["error"])
            times += [time.monotonic()] * sum(tokens_of(choice) for choice in event["choices"])
    writer.close()
