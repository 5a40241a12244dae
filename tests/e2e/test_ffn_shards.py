"""Goal: an FFN divided over two workers changes no id within its numerics class, and survives one of them being killed.

Method: real clusters through `tandemctl local up --ffn-shards` and the YAML of deploy/local. Layer shards are of class `whole`: the
same ids as one FFN worker. Column shards are a class of their own: the same ids alone, again and in a crowd, and not compared
with `whole`.
"""
import signal

import pytest

import cluster as clusters
from api import Stream, complete

PROMPTS = ["The capital of France is", "Once upon a time there was", "To bake bread, first", "The three laws of motion say"]
TOKENS = 24


def ids_of(cluster):
    return [complete(cluster, prompt, TOKENS, temperature=0, return_token_ids=True)["choices"][0]["token_ids"]
            for prompt in PROMPTS]


def crowd_of(cluster):
    streams = [(index, Stream(cluster, prompt, TOKENS, return_token_ids=True))
               for _ in range(3) for index, prompt in enumerate(PROMPTS)]
    ids = {}
    for index, stream in streams:
        stream.wait_end()
        assert stream.error is None and stream.done, stream.error
        assert ids.setdefault(index, stream.ids) == stream.ids, f"{PROMPTS[index]}: two copies in one batch differ"
    return [ids[index] for index in range(len(PROMPTS))]


def shards_of(cluster):
    return {name: worker["shard"]["text"] for name, worker in cluster.workers().items() if worker["shard"]}


def kill_one(cluster, name):
    """Kills it in mid-stream: an honest error or the whole text; then it is back, and the text is the same."""
    whole = Stream(cluster, max_tokens=200, ignore_eos=True).wait_end()
    assert whole.error is None and whole.done, whole.error
    before = cluster.processes()[name]
    stream = Stream(cluster, max_tokens=200, ignore_eos=True).wait_first()
    cluster.signal(name, signal.SIGKILL)
    stream.wait_end()
    if stream.error is None:
        assert stream.done and stream.text == whole.text, "tokens were lost, repeated or changed"
    else:
        assert stream.error["message"] and whole.text.startswith(stream.text), stream.error
    clusters.wait_for(f"{name} is started again", lambda: cluster.processes()[name]["pid"] not in (None, before["pid"]))
    cluster.wait_ready()
    again = Stream(cluster, max_tokens=200, ignore_eos=True).wait_end()
    assert again.error is None and again.text == whole.text, again.error
    cluster.wait_idle()


@pytest.fixture(scope="module")
def whole_ids():
    with clusters.running("pd-afd") as cluster:
        return ids_of(cluster)


def test_layer_shards_have_the_ids_of_one_whole_worker_and_survive_a_kill(whole_ids):
    with clusters.running("pd-afd", shape="1P2A2F", extra=["--ffn-shards", "layers"]) as cluster:
        assert shards_of(cluster) == {"ffn-0": "layers [0, 15)", "ffn-1": "layers [15, 30)"}
        workers = cluster.workers()
        assert all(workers[name]["numerics"]["ffn"].endswith("/whole") for name in ("ffn-0", "ffn-1"))
        assert workers["ffn-0"]["weights_bytes"] + workers["ffn-1"]["weights_bytes"] == 49_835_520
        assert ids_of(cluster) == whole_ids
        assert crowd_of(cluster) == whole_ids
        kill_one(cluster, "ffn-1")
        crossings = {key: value for name in ("attention-0", "attention-1") for key, value in cluster.metrics(name).items()
                     if key[0] == "tandem_worker_ffn_class_crossings_total" and value}
        assert not crossings, crossings


def test_column_shards_are_a_class_of_their_own_and_survive_a_kill():
    config = (clusters.SOURCE / "deploy" / "local" / "column-shards.yaml").read_text()
    with clusters.running("pd-afd", config=config) as cluster:
        assert shards_of(cluster) == {"ffn-0": "column 0/2", "ffn-1": "column 1/2"}
        workers = cluster.workers()
        assert all(workers[name]["numerics"]["ffn"].endswith("/column/2") for name in ("ffn-0", "ffn-1"))
        alone = ids_of(cluster)
        assert ids_of(cluster) == alone
        assert crowd_of(cluster) == alone
        kill_one(cluster, "ffn-0")
        assert ids_of(cluster) == alone


def test_a_missing_shard_is_named_until_it_is_there():
    config = """
topology: afd
workers:
  - pool: attention
  - {pool: ffn, count: 2, shards: layers}
"""
    with clusters.running("afd", config=config) as cluster:
        cluster.signal("ffn-1", signal.SIGSTOP)  # silent for longer than its lease
        try:
            reason = clusters.wait_for("the router is not ready", lambda: not cluster.status()["router"]["ready"]
                                       and cluster.status()["router"]["reason"])
            assert "no ready FFN worker holds layers [15, 30)" in reason
        finally:
            cluster.signal("ffn-1", signal.SIGCONT)
        cluster.wait_ready()
        assert complete(cluster, "The sky is", 2)["usage"]["completion_tokens"] == 2
