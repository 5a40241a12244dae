"""An `afd` cluster whose FFN is tests/conformance/ffn_server.py: the server as a process, and the cluster that it registers with."""
import contextlib
import json
import subprocess
import sys
import threading

import cluster as clusters

HERE = clusters.SOURCE / "tests" / "conformance"


class Server:
    """One process of ffn_server.py; `address` and `epoch` once it serves."""

    def __init__(self, *arguments):
        self.lines = []
        self.process = subprocess.Popen([sys.executable, str(HERE / "ffn_server.py"), "--model", str(clusters.MODEL),
                                         "--model-name", "smollm2", *arguments], stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    def said(self, words):
        assert self.process.poll() is None, f"the server ended: {self.lines}"
        return next((line for line in list(self.lines) if words in line), None)

    def wait_serving(self):
        _, self.address, _, self.epoch = clusters.wait_for("ffn_server.py serves", lambda: self.said("serving "), seconds=600).split()
        return self

    def stop(self):
        self.process.terminate()
        self.process.wait()


@contextlib.contextmanager
def served(*arguments):
    server = Server(*arguments)
    try:
        yield server.wait_serving()
    finally:
        server.stop()


@contextlib.contextmanager
def running():
    """(cluster, server): one attention worker of ours, and that FFN server alone in its pool."""
    config = (clusters.SOURCE / "deploy" / "local" / "own-ffn.yaml").read_text()
    cluster = clusters.Cluster("afd", config=config)
    cluster.up_command += ["--ready-timeout", "300"]
    state = cluster.state_dir / "state.json"
    failed = []

    def start():
        try:
            cluster.up()
        except AssertionError as error:
            failed.append(error)

    up = threading.Thread(target=start)
    up.start()
    try:
        router = clusters.wait_for("the router has an address", lambda: failed or state.exists() and json.loads(state.read_text())["router"])
        assert not failed, failed
        with served("--router", router) as server:
            up.join()
            assert not failed, failed
            cluster.wait_ready()
            clusters.wait_for("the FFN server is ready", lambda: cluster.workers().get("ffn-numpy", {}).get("state") == "ready")
            yield cluster, server
    finally:
        cluster.down()
        up.join()
