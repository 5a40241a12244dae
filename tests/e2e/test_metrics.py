"""Every second of every device is accounted for, and what the daemons export agrees with what clients saw."""
import pytest

import cluster as clusters
import metrics_page
from api import Stream, complete
from conftest import TOPOLOGIES

STATES = {"busy", "stall", "idle"}
CAUSES = {"busy": {""},  # in Prometheus the same as no label
          "stall": {"handoff", "peer_queue", "peer_compute", "kv_transfer", "batch_wait"},
          "idle": {"no_work", "starved", "starting", "draining", "down"}}


def ledger(metrics):
    """(stage, state, cause) to seconds, and the elapsed seconds of the same scrape."""
    cells, elapsed = {}, None
    for (name, labels), value in metrics.items():
        label = dict(labels)
        if name == "tandem_stage_seconds_total":
            assert {"pool", "stage", "state", "memory_class", "worker"} <= set(label), label
            cells[(label["stage"], label["state"], label.get("cause", ""))] = value
        if name == "tandem_device_elapsed_seconds_total":
            elapsed = value
    return cells, elapsed


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_states_of_each_device_sum_to_elapsed_time(topology):
    with clusters.running(topology) as cluster:
        streams = [Stream(cluster, f"Story {index}:", 40 + 10 * index, ignore_eos=True) for index in range(4)]
        for stream in streams:
            assert stream.wait_end().error is None, stream.error
        for name, worker in cluster.workers().items():
            cells, elapsed = ledger(cluster.metrics(name))
            assert elapsed and elapsed > 0, name
            assert sum(cells.values()) == pytest.approx(elapsed, rel=0.001), (name, cells, elapsed)
            for (stage, state, cause), seconds in cells.items():
                assert state in STATES and cause in CAUSES[state], (name, stage, state, cause)
                assert seconds >= 0, (name, stage, state, cause)
                assert stage in worker["stages"] + ["shared"], (name, stage)
            busy = sum(seconds for (_, state, _), seconds in cells.items() if state == "busy")
            assert busy > 0, f"{name} was never busy: {cells}"
            assert {stage for (stage, state, _), seconds in cells.items() if state == "busy" and seconds > 0} == \
                set(worker["stages"]), f"{name}: a stage was never busy: {cells}"


def test_the_routers_picture_agrees(pd_afd):
    """`tandemctl status`: the ledger of the heartbeats sums up too, and occupancy is busy over elapsed."""
    complete(pd_afd, "The sky is far and wide and", 8)
    workers = clusters.wait_for("a heartbeat of each worker tells of busy seconds", lambda: (
        lambda seen: all(worker["busy_seconds"] > 0 for worker in seen.values()) and seen)(pd_afd.workers()))
    for name, worker in workers.items():
        total = sum(entry["seconds"] for entry in worker["ledger"])
        assert total == pytest.approx(worker["elapsed_seconds"], rel=0.001), name
        assert worker["occupancy"] == pytest.approx(worker["busy_seconds"] / worker["elapsed_seconds"])
        assert 0 < worker["occupancy"] < 1, name


def test_status_names_everything_an_operator_asks_for(pd_afd):
    workers = pd_afd.workers()
    processes = pd_afd.processes()
    assert set(workers) == {"prefill-0", "attention-0", "ffn-0"}
    expected = {"prefill-0": ("prefill", ["prefill"], "hbm"), "attention-0": ("attention", ["attention"], "hbm"),
                "ffn-0": ("ffn", ["ffn"], "sram")}
    for name, (pool, stages, memory_class) in expected.items():
        worker = workers[name]
        assert (worker["pool"], worker["stages"], worker["memory_class"]) == (pool, stages, memory_class)
        assert worker["state"] == "ready"
        assert worker["address"] == processes[name]["address"]
        assert worker["pid"] == processes[name]["pid"]
        assert worker["metrics_url"] == processes[name]["metrics_url"]
        assert worker["numerics"][stages[0]].startswith("gguf:")
    assert workers["attention-0"]["group"] == ["ffn-0"]
    # A worker loads its own stages' tensors only (the issue's figures for this model).
    attention, ffn, head = 16_657_920, 49_835_520, 30_083_328
    assert workers["ffn-0"]["weights_bytes"] == ffn
    assert workers["attention-0"]["weights_bytes"] == attention + head
    assert workers["prefill-0"]["weights_bytes"] == attention + ffn + head
    text = pd_afd.ctl("status", "--state-dir", str(pd_afd.state_dir)).stdout
    for word in ("prefill-0", "attention-0", "ffn-0", "sram", "ready", "gguf:"):
        assert word in text, text


def test_the_gateway_counts_requests_and_tokens(pd_afd):
    def counted(name):
        return sum(value for (metric, _), value in pd_afd.metrics("gateway").items() if metric == name)
    requests, tokens = counted("tandem_gateway_requests_total"), counted("tandem_gateway_generation_tokens_total")
    first_tokens = counted("tandem_gateway_ttft_seconds_count")
    complete(pd_afd, "The sky is", 5, ignore_eos=True)
    clusters.wait_for("the request is counted", lambda: counted("tandem_gateway_requests_total") == requests + 1)
    assert counted("tandem_gateway_generation_tokens_total") == tokens + 5
    assert counted("tandem_gateway_ttft_seconds_count") == first_tokens + 1


def test_every_daemon_serves_metrics_in_base_units(pd_afd):
    for name in pd_afd.processes():
        metrics = pd_afd.metrics(name)
        ours = {metric for metric, _ in metrics if metric.startswith("tandem_")}
        assert ours, f"{name} exports nothing of its own"
        assert not [metric for metric in ours if metric.endswith(("_ms", "_milliseconds", "_kb", "_mb"))], ours


def test_the_page_of_metrics_has_all_that_real_daemons_export(pd_afd):
    workers = pd_afd.workers()
    found = []
    for name, process in pd_afd.processes().items():  # tests/dashboards asks for the reverse too, of an emulated cluster with prices
        found += metrics_page.differences(process["kind"], process["metrics_url"], workers.get(name), all_of_it=False)
    assert not found, "\n".join(found)


def test_no_log_line_holds_prompt_text(pd_afd):
    secret = "xylophone-marmalade-4711"
    complete(pd_afd, f"Remember {secret}.", 3)
    post_id = "e2e-log-0815"
    from api import post
    post(pd_afd, "/v1/completions", {"model": pd_afd.model_name, "prompt": secret, "max_tokens": 2},
         headers={"x-request-id": post_id})
    logs = {name: pd_afd.log(name) for name in pd_afd.processes()}
    assert not [name for name, text in logs.items() if secret in text]
    assert [name for name, text in logs.items() if post_id in text], "no daemon logged the request's id"
