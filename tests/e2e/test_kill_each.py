"""kill -9 of each process in mid-stream: an honest error or a continuation, then a clean recovery when it is back."""
import signal

import pytest

import cluster as clusters
from api import Stream, complete

# What the client of a running stream may see when that process is killed.
ERROR = "an error"          # the stream ends with an OpenAI error object
CUT = "a cut connection"    # the gateway's own sockets
GOES_ON = "the whole text"  # nobody notices
OUTCOMES = {
    "gateway": {CUT},
    "router": {GOES_ON},                # no decoding sequence needs the router (PROTOCOL 5)
    "prefill-0": {GOES_ON},             # its part is done
    "attention-0": {ERROR, GOES_ON},    # GOES_ON: resumed on another attempt
    "ffn-0": {ERROR, GOES_ON},
}


def outcome_of(stream, whole):
    if stream.error is not None:
        return CUT if stream.error["type"] == "connection" else ERROR
    if not stream.done:
        return CUT  # the connection closed before [DONE]
    assert stream.finish == "length", f"it ended with {stream.finish!r} after {len(stream.text)} characters"
    assert stream.text == whole, "tokens were lost, repeated or changed"
    return GOES_ON


@pytest.fixture(scope="module")
def cluster():
    with clusters.running("pd-afd") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def whole(cluster):
    stream = Stream(cluster, max_tokens=300, ignore_eos=True).wait_end()
    assert stream.error is None and stream.done, stream.error
    return stream.text


@pytest.mark.parametrize("name", OUTCOMES)
def test_killing_it_is_told_honestly_and_recovered_from(cluster, whole, name):
    cluster.wait_ready()
    before = cluster.processes()
    stream = Stream(cluster, max_tokens=300, ignore_eos=True).wait_first()
    cluster.signal(name, signal.SIGKILL)
    stream.wait_end()
    outcome = outcome_of(stream, whole)
    assert outcome in OUTCOMES[name], f"{outcome}: {stream.error}, {stream.text[-80:]!r}"
    if outcome != GOES_ON:
        assert whole.startswith(stream.text), "what was delivered before the error is wrong"

    def restarted():
        process = cluster.processes()[name]
        return process["state"] == "running" and process["pid"] != before[name]["pid"] and process

    after = clusters.wait_for(f"{name} is started again", restarted)
    assert after["restarts"] == before[name]["restarts"] + 1
    assert "signal 9" in after["last_exit"]
    cluster.wait_ready()
    again = Stream(cluster, max_tokens=300, ignore_eos=True).wait_end()
    assert again.error is None and again.text == whole, again.error
    cluster.wait_idle()
    others = {other: process["pid"] for other, process in cluster.processes().items() if other != name}
    assert others == {other: process["pid"] for other, process in before.items() if other != name}, "another one died too"


def test_a_request_while_a_stage_is_missing_is_refused_or_waits(cluster, whole):
    """No FFN worker: a new request gets an answer in the end, and never half of one."""
    cluster.wait_ready()
    cluster.signal("ffn-0", signal.SIGKILL)
    stream = Stream(cluster, max_tokens=300, ignore_eos=True).wait_end()
    if stream.error is None:
        assert stream.text == whole
    else:
        assert stream.error["message"] and whole.startswith(stream.text)
    cluster.wait_ready()
    assert complete(cluster, "The sky is", 2)["usage"]["completion_tokens"] == 2
    cluster.wait_idle()


def test_a_replica_takes_over_an_ffn_workers_calls():
    """1P1A2F: the attention worker sends a lost call's rows to the other holder, in mid-token, and no token changes."""
    with clusters.running("pd-afd", shape="1P1A2F") as cluster:
        whole = Stream(cluster, max_tokens=300, ignore_eos=True).wait_end().text
        stream = Stream(cluster, max_tokens=300, ignore_eos=True).wait_first()
        used = cluster.workers()["attention-0"]["group"][0]
        cluster.signal(used, signal.SIGKILL)
        stream.wait_end()
        assert stream.error is None and stream.done, stream.error
        assert stream.text == whole
        cluster.wait_ready()
        cluster.wait_idle()
