#!/usr/bin/env python3
"""CPU per streamed token of gateway + router, and of nginx proxying the very same streams.

    tests/bench/gateway_bench.py --build build/release --model FILE.gguf [--streams 64] [--seconds 10] [--rounds 3]

tandem-router, tandem-gateway and tests/bench/paced_worker (a worker without a device: one token a sequence every 10 ms, a
whole step in one message) run as processes; a client reads `--streams` chat streams, once straight from the gateway and
once through nginx in front of it, in turns. CPU is the scheduler's own account (/proc/PID/task/*/schedstat) over the window
divided by the tokens in it. Medians [min..max].
"""
import argparse
import asyncio
import glob
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

NGINX_CONF = """
worker_processes 1;
pid {dir}/nginx.pid;
error_log {dir}/nginx.err warn;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  upstream gateway {{ server 127.0.0.1:{gateway}; keepalive 512; }}
  server {{
    listen 127.0.0.1:{nginx};
    location / {{ proxy_pass http://gateway; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; proxy_read_timeout 600s; }}
  }}
}}
"""


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def cpu_seconds(process):
    """Of the process and its children (nginx's workers)."""
    pids = [process.pid] + [int(p) for p in subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True,
                                                           text=True).stdout.split()]
    return sum(int(open(task).read().split()[0]) for pid in pids for task in glob.glob(f"/proc/{pid}/task/*/schedstat")) / 1e9


async def stream(port, tokens, counter):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps({"model": "paced", "max_tokens": tokens, "stream": True,
                       "messages": [{"role": "user", "content": "the quick brown fox " * 10}]}).encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
                 b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
    await writer.drain()
    while data := await reader.read(65536):
        counter[0] += data.count(b"data: {")
        if b'"error"' in data:
            raise RuntimeError(data)
    writer.close()


async def window(port, streams, seconds, processes):
    """CPU microseconds a token, by process name, over `seconds` of `streams` running streams."""
    counter, tokens = [0], int((seconds + 3) * 100)
    tasks = [asyncio.create_task(stream(port, tokens, counter)) for _ in range(streams)]
    while counter[0] < 20 * streams:      # every stream runs
        await asyncio.sleep(0.05)
    before, start = {name: cpu_seconds(p) for name, p in processes.items()}, counter[0]
    await asyncio.sleep(seconds)
    after, count = {name: cpu_seconds(p) for name, p in processes.items()}, counter[0] - start
    await asyncio.gather(*tasks)
    return {name: 1e6 * (after[name] - before[name]) / count for name in processes} | {"tokens/s": count / seconds}


def wait_ready(url, process):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if urllib.request.urlopen(url, timeout=5).status == 200:
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"{url} is not ready")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--model", required=True, help="for its tokenizer and chat template")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    gateway, router, admin, worker, nginx, *metrics = free_ports(8)
    with tempfile.TemporaryDirectory() as folder:
        log = open(os.path.join(folder, "log"), "w+")
        start = lambda *command: subprocess.Popen(command, stdout=log, stderr=log)
        binaries = os.path.join(options.build, "bin")
        running = {
            "router": start(f"{binaries}/tandem-router", "--listen", f"127.0.0.1:{router}", "--model-name", "paced",
                            "--admin-listen", f"127.0.0.1:{admin}", "--metrics-listen", f"127.0.0.1:{metrics[0]}"),
            "worker": start(f"{options.build}/tests/paced_worker", "--listen", f"127.0.0.1:{worker}", "--router",
                            f"127.0.0.1:{router}", "--interval-us", "10000", "--model-name", "paced"),
            "gateway": start(f"{binaries}/tandem-gateway", "--listen", f"127.0.0.1:{gateway}", "--router",
                             f"127.0.0.1:{router}", "--model", options.model, "--model-name", "paced",
                             "--metrics-listen", f"127.0.0.1:{metrics[1]}"),
        }
        try:
            wait_ready(f"http://127.0.0.1:{gateway}/readyz", running["gateway"])
            if not shutil.which("nginx"):
                sys.exit("gateway_bench: no nginx; ./dev bench installs Debian's nginx-light")
            with open(os.path.join(folder, "nginx.conf"), "w", encoding="utf-8") as f:
                f.write(NGINX_CONF.format(dir=folder, gateway=gateway, nginx=nginx))
            running["nginx"] = start("nginx", "-p", folder, "-c", f"{folder}/nginx.conf", "-g", "daemon off;")
            wait_ready(f"http://127.0.0.1:{nginx}/livez", running["nginx"])
            rows = {"gateway + router, straight": [], "gateway + router, behind nginx": [], "nginx": []}
            for _ in range(options.rounds):
                direct = asyncio.run(window(gateway, options.streams, options.seconds, running))
                proxied = asyncio.run(window(nginx, options.streams, options.seconds, running))
                rows["gateway + router, straight"].append(direct["gateway"] + direct["router"])
                rows["gateway + router, behind nginx"].append(proxied["gateway"] + proxied["router"])
                rows["nginx"].append(proxied["nginx"])
                print(f"round: {direct} | {proxied}", file=sys.stderr, flush=True)
            print(f"{options.streams} streams, one token each 10 ms\n\n| process | CPU µs / token |\n|---|---|")
            for name, values in rows.items():
                print(f"| {name} | {statistics.median(values):.1f} [{min(values):.1f}..{max(values):.1f}] |")
        except BaseException:
            log.seek(0)
            print(log.read()[-3000:], file=sys.stderr)
            raise
        finally:
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.wait(timeout=30)


if __name__ == "__main__":
    main()
