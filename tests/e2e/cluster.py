"""Real clusters for the tests: started, watched and stopped through tandemctl, as a user would."""
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("TANDEM_BINARY_DIR", SOURCE / "build" / "dev"))
CACHE = pathlib.Path(os.environ.get("TANDEM_CACHE", pathlib.Path.home() / ".cache" / "tandem"))
MODEL = pathlib.Path(os.environ.get("TANDEM_MODEL", CACHE / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"))
LONG = 120  # seconds: a generous end of every wait, so that a hang is a failure with a message


def wait_for(what, condition, seconds=LONG):
    """The first true value of `condition`; fails, saying what never happened and what was seen last."""
    end = time.monotonic() + seconds
    pause = threading.Event()
    seen = None
    while True:
        try:
            seen = condition()
            if seen:
                return seen
        except OSError as error:  # a daemon that is down for the moment
            seen = error
        if time.monotonic() > end:
            raise AssertionError(f"never, in {seconds} s: {what}; last seen: {seen!r}")
        pause.wait(0.1)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cluster:
    """One running cluster. Use `running`."""

    def __init__(self, topology, shape="", model=MODEL, model_name="smollm2", extra=(), config=None):
        assert pathlib.Path(model).exists(), f"no model {model}: run ./dev setup, or set TANDEM_MODEL"
        self.topology = topology
        self.state_dir = pathlib.Path(tempfile.mkdtemp(prefix="tandem-e2e-"))
        self.port = free_port()
        self.model_name = model_name
        self.up_command = ["local", "up", "--no-chat", "--state-dir", str(self.state_dir), "--port", str(self.port),
                           "--model", str(model), "--model-name", model_name, *extra]
        if config is not None:
            file = self.state_dir / "cluster.yaml"
            file.write_text(config)
            self.up_command += ["--config", str(file)]
        else:
            self.up_command += ["--topology", topology] + (["--shape", shape] if shape else [])

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def ctl(self, *arguments, check=True):
        result = subprocess.run([str(BINARY / "bin" / "tandemctl"), *arguments], capture_output=True, text=True,
                                timeout=LONG * 3)
        if check and result.returncode != 0:
            raise AssertionError(f"tandemctl {' '.join(arguments)}: exit code {result.returncode}\n{result.stdout}"
                                 f"{result.stderr}\n{self.logs()}")
        return result

    def up(self):
        return self.ctl(*self.up_command)

    def down(self):
        return self.ctl("local", "down", "--state-dir", str(self.state_dir))

    def processes(self):
        """Name to what `tandemctl local status --json` says of that process."""
        out = self.ctl("local", "status", "--json", "--state-dir", str(self.state_dir)).stdout
        return {process["name"]: process for process in json.loads(out)["processes"]}

    def status(self):
        """What the router says: `tandemctl status --json`."""
        result = self.ctl("status", "--json", "--state-dir", str(self.state_dir), check=False)
        if result.returncode != 0:
            raise OSError(result.stderr)
        return json.loads(result.stdout)

    def workers(self):
        return {worker["id"]: worker for worker in self.status()["workers"]}

    def log(self, name):
        """A daemon's log, with the part that was rotated away."""
        text = ""
        for suffix in (".log.1", ".log"):
            file = self.state_dir / "logs" / (name + suffix)
            if file.exists():
                text += file.read_text(errors="replace")
        return text

    def logs(self, lines=15):
        text = ""
        for file in sorted((self.state_dir / "logs").glob("*.log")):
            text += f"--- {file.name}\n" + "\n".join(file.read_text(errors="replace").splitlines()[-lines:]) + "\n"
        return text

    def signal(self, name, number):
        process = self.processes()[name]
        os.kill(process["pid"], number)
        return process

    def ready(self):
        """Whether the gateway and every worker are ready."""
        try:
            with urllib.request.urlopen(self.url + "/readyz", timeout=10) as reply:
                if reply.status != 200:
                    return False
        except OSError:
            return False
        expected = {name for name, process in self.processes().items() if process["kind"] == "worker"}
        workers = self.workers()
        return expected <= set(workers) and all(workers[name]["state"] == "ready" for name in expected)

    def wait_ready(self):
        wait_for(f"{self.topology} is ready", self.ready)

    def wait_idle(self):
        """Nothing is held anywhere: no request queued, no sequence, all KV free."""
        def idle():
            status = self.status()
            # A worker that registers no KV of its own (capacity 0: prefill, ffn) holds none for a sequence.
            held = {worker["id"]: (worker["sequences"], worker["prefills"],
                                   worker["kv_blocks"] and worker["kv_blocks"] - worker["kv_blocks_free"])
                    for worker in status["workers"]}
            queue = (status["router"]["queued_requests"], status["router"]["live_sequences"])
            self.last_held = held, queue
            return queue == (0, 0) and all(value == (0, 0, 0) for value in held.values())
        try:
            wait_for("all KV is free and nothing is queued", idle)
        except AssertionError as error:
            raise AssertionError(f"{error}; held (sequences, prefills, blocks) and queue: {self.last_held}") from None

    def metrics(self, name):
        """(metric, labels) to value, of one daemon's /metrics."""
        url = self.processes()[name]["metrics_url"]
        with urllib.request.urlopen(url, timeout=30) as reply:
            return parse_metrics(reply.read().decode())


def parse_metrics(text):
    values = {}
    for line in text.splitlines():
        match = re.fullmatch(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)(?: \d+)?", line)
        if match:
            labels = tuple(sorted(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2] or "")))
            values[(match[1], labels)] = float(match[3])
    return values


@contextlib.contextmanager
def running(*arguments, **options):
    """A cluster that is ready; stopped at the end, its logs kept when the test fails (TANDEM_E2E_KEEP) or shown."""
    cluster = Cluster(*arguments, **options)
    with started(cluster):
        yield cluster


@contextlib.contextmanager
def started(cluster):
    """The same of a cluster that the test made; gives what `local up` printed."""
    try:
        yield cluster.up().stdout
    finally:
        # The processes of this cluster and nothing else, whatever became of it.
        pids = []
        with contextlib.suppress(Exception):
            pids = [process["pid"] for process in cluster.processes().values() if process["pid"]]
        cluster.down()
        left = [pid for pid in pids if pathlib.Path(f"/proc/{pid}").exists()]
        if not os.environ.get("TANDEM_E2E_KEEP"):
            shutil.rmtree(cluster.state_dir, ignore_errors=True)
        assert not left, f"`local down` left processes {left}"


def terminate(pid):
    os.kill(pid, signal.SIGTERM)
