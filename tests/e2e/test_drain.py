"""SIGTERM to each daemon in mid-stream: it takes no new work, what runs is finished, it exits with 0, and comes back."""
import signal

import pytest

import cluster as clusters
from api import Stream, post

# An FFN worker that is alone in its group has nobody to hand its calls to; with a replica it drains without a trace.
NAMES = ["gateway", "router", "prefill-0", "attention-0", "ffn-0"]


@pytest.fixture(scope="module")
def cluster():
    with clusters.running("pd-afd", shape="1P1A2F") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def whole(cluster):
    stream = Stream(cluster, max_tokens=200, ignore_eos=True).wait_end()
    assert stream.error is None and stream.done, stream.error
    return stream.text


@pytest.mark.parametrize("name", NAMES)
def test_sigterm_lets_a_running_stream_finish(cluster, whole, name):
    cluster.wait_ready()
    before = cluster.processes()[name]
    stream = Stream(cluster, max_tokens=200, ignore_eos=True).wait_first()
    cluster.signal(name, signal.SIGTERM)
    stream.wait_end()
    assert stream.error is None, stream.error
    assert stream.done and stream.text == whole

    def restarted():
        process = cluster.processes()[name]
        return process["state"] == "running" and process["pid"] != before["pid"] and process

    after = clusters.wait_for(f"{name} has drained and is started again", restarted)
    assert after["last_exit"] == "exit code 0", after
    cluster.wait_ready()
    again = Stream(cluster, max_tokens=200, ignore_eos=True).wait_end()
    assert again.error is None and again.text == whole, again.error
    cluster.wait_idle()


def test_a_draining_gateway_refuses_new_requests(cluster, whole):
    cluster.wait_ready()
    before = cluster.processes()["gateway"]
    stream = Stream(cluster, max_tokens=200, ignore_eos=True).wait_first()
    cluster.signal("gateway", signal.SIGTERM)

    def refused():
        try:
            reply = post(cluster, "/v1/completions", {"model": cluster.model_name, "prompt": "x", "max_tokens": 1})
        except OSError:  # it listens no more
            return True
        return reply.status_code == 503 and bool(reply.json()["error"]["message"])

    clusters.wait_for("a new request is refused", refused)
    stream.wait_end()
    assert stream.error is None and stream.text == whole
    clusters.wait_for("the gateway is back", lambda: cluster.processes()["gateway"]["pid"] not in (0, before["pid"]))
    cluster.wait_ready()


SHORT_DRAIN = """
topology: colocated
gateway: {flags: {drain-timeout-seconds: 0.2}}
workers:
  - {pool: colocated, count: 1}
"""


def test_what_outlasts_the_gateways_drain_ends_with_an_error():
    """An event of the stream, not a connection that closes; and the worker hears that nobody waits."""
    with clusters.running("colocated", config=SHORT_DRAIN) as cluster:
        before = cluster.processes()["gateway"]
        stream = Stream(cluster, max_tokens=1500, ignore_eos=True).wait_first()
        cluster.signal("gateway", signal.SIGTERM)
        stream.wait_end()
        assert stream.error["type"] != "connection" and "drain of 0.2 s" in stream.error["message"], stream.error
        assert not stream.done
        after = clusters.wait_for("the gateway is back", lambda: cluster.processes()["gateway"]["pid"] not in (0, before["pid"]) and
                                  cluster.processes()["gateway"])
        assert after["last_exit"] == "exit code 0", after
        cluster.wait_idle()


def test_down_stops_all_with_code_0():
    """`local down` of an idle cluster needs no SIGKILL."""
    with clusters.running("pd-afd") as cluster:
        assert cluster.processes().keys() == set(NAMES)
        cluster.down()
        log = cluster.log("supervisor")
        assert log.count("event" if "\"event\"" in log else " ended ") >= 5, log
        assert "killed_after_grace" not in log, log
        assert "signal" not in "".join(line for line in log.splitlines() if " ended " in line), log
