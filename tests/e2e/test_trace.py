"""`tandemctl trace` on live clusters: a file that any reader of the Trace Event Format takes, in which a device does one thing at a time,
attention and FFN overlap, and every moment of a device is a compute or a wait with its cause."""
import collections
import concurrent.futures
import json
import re
import threading

import openai
import pytest

import cluster as clusters

COMPUTE = {"prefill", "embed", "attention", "head", "ffn"}
STREAMS = 4


class Load:
    """Streams that run until the block ends."""

    def __init__(self, cluster, streams=STREAMS):
        self.client = openai.OpenAI(base_url=cluster.url + "/v1", api_key="none")
        self.cluster = cluster
        self.streams = streams
        self.stop = threading.Event()
        self.tokens = [0] * streams

    def run(self, index):
        while not self.stop.is_set():
            stream = self.client.completions.create(model=self.cluster.model_name, prompt=f"Stream {index} counts: one two three four",
                                                    max_tokens=1500, temperature=0, stream=True, extra_body={"ignore_eos": True})
            for _ in stream:
                self.tokens[index] += 1
                if self.stop.is_set():
                    stream.close()
                    return

    def __enter__(self):
        self.pool = concurrent.futures.ThreadPoolExecutor(self.streams)
        self.futures = [self.pool.submit(self.run, index) for index in range(self.streams)]
        clusters.wait_for("every stream has tokens", lambda: self.failed() or all(count >= 3 for count in self.tokens))
        return self

    def failed(self):
        for future in self.futures:
            if future.done():
                future.result()
        return False

    def __exit__(self, *error):
        self.stop.set()
        self.pool.shutdown()
        if error == (None, None, None):
            self.failed()


class Trace:
    """What a file says: `threads` is (worker, track) to its complete events."""

    def __init__(self, text):
        self.file = json.loads(text)
        self.events = self.file["traceEvents"]
        names, threads = {}, {}
        for event in self.events:
            if event["ph"] == "M" and event["name"] == "process_name":
                names[event["pid"]] = event["args"]["name"].split(" ")[0]
            if event["ph"] == "M" and event["name"] == "thread_name":
                threads[event["pid"], event["tid"]] = event["args"]["name"]
        self.tracks = {(names[pid], track) for (pid, _), track in threads.items()}
        self.threads = collections.defaultdict(list)
        self.workers = collections.defaultdict(list)
        for event in self.events:
            if event["ph"] == "X":
                name = names[event["pid"]]
                self.threads[name, threads[event["pid"], event["tid"]]].append(event)
                self.workers[name].append(event)

    def of(self, worker, *categories):
        return [event for event in self.workers[worker] if event["cat"] in categories]

    def check(self):
        times = [event["ts"] for event in self.events if event["ph"] != "M"]
        assert times == sorted(times) and times[0] >= 0
        for event in self.events:
            assert event["ph"] in "MXsf" and isinstance(event["pid"], int) and isinstance(event["tid"], int), event
            if event["ph"] == "X":
                assert event["dur"] >= 0, event
        for (worker, track), spans in self.threads.items():
            check_nesting(f"{worker} {track}", spans)
        for worker in self.workers:
            # A device does one thing at a time, whatever the track.
            check_disjoint(worker, self.of(worker, "wait", *COMPUTE))
        starts = {event["id"]: event["ts"] for event in self.events if event["ph"] == "s"}
        ends = {event["id"]: event["ts"] for event in self.events if event["ph"] == "f"}
        assert starts.keys() == ends.keys()
        return starts, ends


def end(event):
    return event["ts"] + event["dur"]


def check_disjoint(what, spans):
    spans = sorted(spans, key=lambda event: (event["ts"], end(event)))
    for before, after in zip(spans, spans[1:]):
        assert end(before) <= after["ts"] + 1e-3, (what, before, after)


def check_nesting(what, spans):
    open_spans = []
    for span in sorted(spans, key=lambda event: (event["ts"], -event["dur"])):
        while open_spans and end(open_spans[-1]) <= span["ts"] + 1e-3:
            open_spans.pop()
        assert not open_spans or end(span) <= end(open_spans[-1]) + 1e-3, (what, open_spans[-1], span)
        open_spans.append(span)


def overlap(first, second):
    """Time within both, microseconds."""
    total, at = 0, 0
    second = sorted(second, key=lambda event: event["ts"])
    for span in sorted(first, key=lambda event: event["ts"]):
        while at < len(second) and end(second[at]) <= span["ts"]:
            at += 1
        i = at
        while i < len(second) and second[i]["ts"] < end(span):
            total += max(0, min(end(span), end(second[i])) - max(span["ts"], second[i]["ts"]))
            i += 1
    return total


def take(cluster, seconds, file):
    out = cluster.ctl("trace", "--seconds", str(seconds), "-o", str(file), "--state-dir", str(cluster.state_dir)).stdout
    trace = Trace(file.read_text())
    match = re.search(r"(\d+) spans of (\d+) workers in ([\d.]+) s", out)
    assert match, out
    assert int(match[1]) == sum(len(spans) for spans in trace.workers.values())
    assert float(match[3]) == pytest.approx(seconds, rel=0.3), out
    assert "; 0 spans lost" in out, out
    return trace, out


def test_an_emulated_afd_cluster_under_load(tmp_path):
    # So few rows are not worth cutting on these devices; here they are, to see both sides compute.
    cluster = clusters.Cluster("afd", model_name="emulated-model", config="""
topology: afd
emulated: {model_shape: llama-3-70b, devices: rubin-lpx}
workers:
  - {pool: attention, flags: {micro-batches: 2}}
  - pool: ffn
""")
    with clusters.started(cluster):
        with Load(cluster):
            trace, out = take(cluster, 2, tmp_path / "trace.json")
        scale = cluster.workers()["attention-0"]["time_scale"]
        starts, ends = trace.check()
        assert {("attention-0", "device state"), ("attention-0", "steps"), ("attention-0", "prefill"), ("attention-0", "attention"),
                ("ffn-0", "device state"), ("ffn-0", "ffn")} <= trace.tracks
        attention, ffn = trace.of("attention-0", "attention"), trace.of("ffn-0", "ffn")
        assert len(attention) > 500 and len(ffn) > 500
        # Two micro-batches: while one is at the FFN, the other's attention is computed.
        assert {span["args"]["micro_batch"] for span in attention} == {0, 1}
        at_once = overlap(attention, ffn)
        assert at_once > 0.3 * sum(span["dur"] for span in ffn), out
        share = float(re.search(r"attention and FFN computed at once ([\d.]+) %", out)[1])
        assert share == pytest.approx(100 * at_once * 1e-6 * scale / 2, rel=0.1)
        # Of every layer and micro-batch of a whole step: one attention, one FFN, one hand-off within it.
        steps = trace.of("attention-0", "step")[1:-1]
        assert steps
        step = steps[len(steps) // 2]
        calls = {category: collections.Counter((span["args"]["layer"], span["args"]["micro_batch"])
                                               for span in trace.workers[worker]
                                               if span["cat"] == category and span["args"]["step"] == step["args"]["step"])
                 for worker, category in (("attention-0", "attention"), ("attention-0", "a2f"), ("ffn-0", "served"))}
        assert calls["attention"] == calls["a2f"] == calls["served"]
        assert set(calls["attention"].values()) == {1} and {layer for layer, _ in calls["attention"]} == set(range(80))
        for span in trace.of("attention-0", "attention", "head", "embed"):
            if span["args"]["step"] == step["args"]["step"]:
                assert step["ts"] - 1e-3 <= span["ts"] and end(span) <= end(step) + 1e-3
        # The rows of all streams are in its two micro-batches.
        assert sum({span["args"]["micro_batch"]: span["args"]["rows"]
                    for span in attention if span["args"]["step"] == step["args"]["step"]}.values()) == STREAMS
        # Nothing arrives before it was sent, on the one clock of both.
        assert len(starts) > 500 and all(ends[flow] >= starts[flow] for flow in starts)
        offset, known = re.search(r"largest clock offset (-?[\d.]+) ms, clocks known to ([\d.]+) ms", out).groups()
        assert abs(float(offset)) <= float(known) + 0.001 < 1
        # Every moment of a device is a compute or a wait: what is in neither is less than a hundredth.
        for worker in ("attention-0", "ffn-0"):
            spans = trace.of(worker, "wait", *COMPUTE)
            whole = max(map(end, spans)) - min(span["ts"] for span in spans)
            assert sum(span["dur"] for span in spans) > 0.99 * whole, worker
            assert whole == pytest.approx(2e6 / scale, rel=0.1)
        cluster.wait_idle()


def test_a_real_cluster_with_prefill(pd_afd, tmp_path):
    with Load(pd_afd, streams=3) as load:
        first = load.tokens[0]
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            tracing = pool.submit(take, pd_afd, 3, tmp_path / "trace.json")
            # Prompts that come while it is traced.
            while not tracing.done():
                load.client.completions.create(model=pd_afd.model_name, prompt="a prompt to prefill " * 20, max_tokens=1)
            trace, out = tracing.result()
        assert load.tokens[0] > first
    trace.check()
    assert trace.of("prefill-0", "prefill") and trace.of("prefill-0", "kv_sent")
    assert overlap(trace.of("attention-0", "attention"), trace.of("ffn-0", "ffn")) > 0
    assert "on their own clock: prefill-0" in out, out
    # One machine has one clock.
    assert abs(float(re.search(r"largest clock offset (-?[\d.]+) ms", out)[1])) < 5, out
    assert {worker["clock_aligned"] for worker in trace.file["otherData"]["workers"]} == {True, False}
    pd_afd.wait_idle()


def test_an_idle_cluster_waits_and_goes_to_stdout(pd_afd):
    pd_afd.wait_idle()
    result = pd_afd.ctl("trace", "--seconds", "0.3", "-o", "-", "--state-dir", str(pd_afd.state_dir))
    trace = Trace(result.stdout)
    trace.check()
    assert "3 workers" in result.stderr
    for worker in ("prefill-0", "attention-0", "ffn-0"):
        waits = trace.of(worker, "wait")
        # An FFN worker does not hear that a sender's step was given up, and calls it starved.
        assert [span["name"] for span in waits] in (["idle no_work"], ["idle starved"])
        assert waits[0]["dur"] == pytest.approx(0.3e6, rel=0.3)


@pytest.mark.parametrize("arguments, words", [
    (["--seconds", "0", "-o", "-"], ["--seconds", "60"]),
    (["--seconds", "61", "-o", "-"], ["--seconds", "60"]),
    (["--seconds", "1"], ["--out"]),
    (["-o", "/nowhere/trace.json"], ["/nowhere/trace.json", "No such file"]),
    (["-o", "-", "--router", "127.0.0.1:1"], ["127.0.0.1:1"]),
])
def test_what_cannot_be_traced_is_refused_with_its_reason(arguments, words, pd_afd):
    result = pd_afd.ctl("trace", *arguments, check=False)
    assert result.returncode != 0
    for word in words:
        assert word in result.stdout + result.stderr, (word, result.stdout, result.stderr)


def test_an_older_trace_stays_until_there_is_a_new_one(pd_afd, tmp_path):
    file = tmp_path / "trace.json"
    file.write_text("older, and longer than nothing" * 100_000)
    assert pd_afd.ctl("trace", "-o", str(file), "--router", "127.0.0.1:1", check=False).returncode == 1
    assert file.read_text().startswith("older")
    take(pd_afd, 0.2, file)


def test_no_more_readers_than_a_worker_takes(pd_afd):
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        ask = [pool.submit(pd_afd.ctl, "trace", "--seconds", "3", "-o", "-", "--state-dir", str(pd_afd.state_dir), check=False)
               for _ in range(6)]
        results = [future.result() for future in ask]
    refused = [result for result in results if result.returncode != 0]
    assert len(refused) >= 2
    for result in refused:
        assert "4 readers" in result.stderr, result.stderr
