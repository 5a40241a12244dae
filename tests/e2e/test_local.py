"""`tandemctl local` with the real daemons: what `./dev up` shows, and that it leaves nothing behind."""
import concurrent.futures
import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess

import pytest

import cluster as clusters
from api import complete


def alive(pids):
    return [pid for pid in pids if pathlib.Path(f"/proc/{pid}").exists()]


@pytest.fixture
def cluster():
    cluster = clusters.Cluster("pd-afd")
    cluster.up_command.remove("--no-chat")
    yield cluster
    cluster.down()
    shutil.rmtree(cluster.state_dir, ignore_errors=True)


def test_up_shows_an_answer_its_stages_and_how_to_go_on(cluster):
    out = cluster.up().stdout
    for stage, worker in [("prefill", "prefill-0"), ("attention", "attention-0"), ("ffn", "ffn-0")]:
        assert re.search(rf"{stage}\s+{worker}\s+[\d.]+ ms\s+\d+", out), out
    for word in ("ready after", "curl", "OpenAI(", "Stop it", cluster.url):
        assert word in out, out
    assert complete(cluster, "The sky is", 2)["usage"]["completion_tokens"] == 2
    pids = [process["pid"] for process in cluster.processes().values()]
    assert len(alive(pids)) == 5

    again = cluster.up()  # the same cluster: said, and fine
    assert "runs in" in again.stdout and "attention-0" in again.stdout
    assert [process["pid"] for process in cluster.processes().values()] == pids

    other = cluster.ctl("local", "up", "--state-dir", str(cluster.state_dir), "--topology", "colocated", check=False)
    assert other.returncode == 1 and "differs" in other.stderr, other

    assert "stopped" in cluster.down().stdout
    assert alive(pids) == []
    assert cluster.down().returncode == 0
    assert cluster.ctl("local", "status", "--state-dir", str(cluster.state_dir), check=False).returncode == 1


def test_once_stops_after_the_answer(cluster):
    cluster.up_command.append("--once")
    out = cluster.up().stdout
    assert re.search(r"ffn\s+ffn-0", out), out
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", cluster.port), timeout=10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_foreground_stops_with_its_terminal(cluster, number):
    process = subprocess.Popen([str(clusters.BINARY / "bin" / "tandemctl"), *cluster.up_command, "--foreground"],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = ""
    for line in process.stdout:
        said += line
        if "Stop it" in line:
            break
    assert "Stop it: Ctrl-C" in said, said
    pids = [entry["pid"] for entry in cluster.processes().values()]
    assert len(alive(pids)) == 5
    os.kill(process.pid, number)
    process.stdout.read()
    code = process.wait(clusters.LONG)
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0), code
    clusters.wait_for("all daemons have ended", lambda: not alive(pids))


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(cluster):
    with socket.create_server(("127.0.0.1", cluster.port)):
        result = cluster.ctl(*cluster.up_command, check=False)
    assert result.returncode == 1
    assert f"port {cluster.port}" in result.stderr, result.stderr


def test_clusters_that_start_at_once_take_different_ports():
    with contextlib.ExitStack() as stack:
        started = [clusters.Cluster("colocated") for _ in range(3)]
        for cluster in started:
            stack.callback(shutil.rmtree, cluster.state_dir, ignore_errors=True)
            stack.callback(cluster.down)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(clusters.Cluster.up, started))
        processes = [process for cluster in started for process in cluster.processes().values()]
        assert [process["restarts"] for process in processes] == [0] * len(processes), processes
        addresses = [process["address"] for process in processes]
        assert len(set(addresses)) == len(addresses), addresses


def test_the_ports_of_a_dead_daemon_stay_its_clusters():
    with clusters.running("colocated") as one:
        router = one.processes()["router"]
        supervisor = int(pathlib.Path(f"/proc/{router['pid']}/stat").read_text().rsplit(")", 1)[1].split()[1])
        os.kill(supervisor, signal.SIGSTOP)  # so that nobody starts the router again
        try:
            one.signal("router", signal.SIGKILL)
            with clusters.running("colocated") as other:
                taken = {process["address"] for process in other.processes().values()}
        finally:
            os.kill(supervisor, signal.SIGCONT)
        assert router["address"] not in taken
        clusters.wait_for("the router is started again", lambda: one.processes()["router"]["restarts"] == 1)
        one.wait_ready()


def test_a_cluster_that_cannot_start_is_stopped_and_says_why(cluster, tmp_path):
    model = tmp_path / "broken.gguf"
    model.write_bytes(clusters.MODEL.read_bytes()[:1 << 20])
    cluster.up_command[cluster.up_command.index("--model") + 1] = str(model)
    result = cluster.ctl(*cluster.up_command, check=False)
    assert result.returncode == 1
    assert "broken.gguf" in result.stdout, result.stdout
    assert re.search(r"has ended \d+ times", result.stderr), result.stderr
    assert cluster.ctl("local", "status", "--state-dir", str(cluster.state_dir), check=False).returncode == 1


@pytest.mark.parametrize("topology, shape, workers", [
    ("colocated", "2W", {"colocated-0", "colocated-1"}),
    ("pd", "1P2D", {"prefill-0", "decode-0", "decode-1"}),
    ("afd", "1A2F", {"attention-0", "ffn-0", "ffn-1"}),
    ("pd-afd", "2P1A1F", {"prefill-0", "prefill-1", "attention-0", "ffn-0"}),
])
def test_every_shape_starts_and_answers(topology, shape, workers):
    with clusters.running(topology, shape=shape) as cluster:
        assert set(cluster.workers()) == workers
        assert complete(cluster, "The sky is", 4)["usage"]["completion_tokens"] == 4
        cluster.wait_idle()


def test_a_config_file_starts_its_cluster():
    config = (clusters.SOURCE / "deploy" / "local" / "afd.yaml").read_text()
    with clusters.running("afd", config=config) as cluster:
        assert set(cluster.workers()) == {"attention-0", "ffn-0"}
        assert complete(cluster, "The sky is", 4)["usage"]["completion_tokens"] == 4
