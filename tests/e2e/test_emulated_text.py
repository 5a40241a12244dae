"""Goal: emulated devices answer with a real model's text, to the id, in every topology; what cannot be is refused with its numbers.

Method: the same greedy prompts through emulated clusters whose first 30 layers are SmolLM2's and through plain ggml workers; ids are
compared, never text. The devices' own time is compared with that of the hash chain on the same cluster.
"""
import pytest

import cluster as clusters
from api import complete, post
from emulated_cluster import SETS, Emulated, expect_balanced_books, expect_refused

# One ends by itself within the limit, and one is longer than the 32 rows that the real model gets at once.
PROMPTS = ["The capital of France is", "Once upon a time there was", "To bake bread, first", " ".join(f"item {i}," for i in range(40))]
QUESTION = "In one sentence: why is the sky blue?"
TOKENS = 16
SCALE = 40  # of the devices' time: two cores keep up, or are late without a wrong id


def emulated(topology, shape="llama-3-8b", numerics="model", extra=(), workers=""):
    return clusters.Cluster(topology, shape=workers,
                            extra=["--backend", "emulated", "--model-shape", shape, "--devices", "rubin-lpx",
                                   "--numerics", numerics, "--time-scale", str(SCALE), *extra])


def answers(cluster):
    """Ids of each prompt, then of a chat that the model ends itself."""
    ids = [complete(cluster, prompt, TOKENS, temperature=0, return_token_ids=True)["choices"][0]["token_ids"] for prompt in PROMPTS]
    reply = post(cluster, "/v1/chat/completions", {"model": cluster.model_name, "max_tokens": 64, "temperature": 0,
                                                   "return_token_ids": True, "messages": [{"role": "user", "content": QUESTION}]})
    assert reply.status_code == 200, reply.text
    choice = reply.json()["choices"][0]
    assert choice["finish_reason"] == "stop" and "blue" in choice["message"]["content"], choice
    return [*ids, choice["token_ids"]]


@pytest.fixture(scope="module")
def real():
    with clusters.running("colocated") as cluster:
        return answers(cluster)


@pytest.fixture(scope="module")
def real_columns():
    with clusters.running("afd", shape="1A2F", extra=["--ffn-shards", "columns"]) as cluster:
        return answers(cluster)


@pytest.mark.parametrize("topology, shape", [("colocated", "llama-3-8b"), ("pd", "llama-3-8b"), ("afd", "llama-3-8b"),
                                             ("pd-afd", "llama-3-70b")])
def test_every_topology_gives_the_real_models_ids(topology, shape, real):
    cluster = emulated(topology, shape)
    with clusters.started(cluster):
        assert answers(cluster) == real
        for worker in cluster.workers().values():
            assert worker["device"].startswith("emulated/") and worker["time_scale"] == SCALE
        cluster.wait_idle()


@pytest.mark.parametrize("name", SETS)
def test_every_set_of_devices_answers_with_the_models_text(name, real):
    cluster = Emulated(name, ["--numerics", "model", "--time-scale", str(SCALE)])
    with clusters.started(cluster):
        prompt, expected = PROMPTS[0], real[0]
        assert complete(cluster, prompt, TOKENS, temperature=0, return_token_ids=True)["choices"][0]["token_ids"] == expected
        expect_balanced_books(cluster)


# Of Llama-3-70B's 80 layers in three parts the real model's 30 lie in the first two.
def test_layer_shards_give_them_too_though_one_holds_no_real_layer(real):
    cluster = emulated("afd", "llama-3-70b", extra=["--ffn-shards", "layers"], workers="1A3F")
    with clusters.started(cluster):
        shards = {name: worker["shard"]["text"] for name, worker in cluster.workers().items() if worker["shard"]}
        assert shards == {"ffn-0": "layers [0, 26)", "ffn-1": "layers [26, 53)", "ffn-2": "layers [53, 80)"}
        assert answers(cluster) == real


def test_column_shards_give_the_ids_of_real_column_shards(real_columns):
    cluster = emulated("afd", extra=["--ffn-shards", "columns"], workers="1A2F")
    with clusters.started(cluster):
        assert answers(cluster) == real_columns


@pytest.mark.parametrize("flags, words", [
    (["--model-shape", "gpt-oss-20b", "--numerics", "model"], ["has 30 layers", "gpt-oss-20b 24"]),
    (["--numerics", "chain"], ["numerics: 'chain'", "synthetic, model"]),
    (["--numerics", "model:/no/such.gguf"], ["/no/such.gguf"]),
    (["--numerics", "model", "--payload", "elided"], ["payload", "elided"]),
])
def test_what_makes_no_sense_is_refused_with_its_reason(flags, words):
    shape = [] if "--model-shape" in flags else ["--model-shape", "llama-3-8b"]
    cluster = clusters.Cluster("colocated", extra=["--backend", "emulated", "--devices", "h100", "--time-scale", "20", *shape, *flags])
    expect_refused(cluster, words)


def stage_seconds(cluster):
    reply = complete(cluster, PROMPTS[-1], TOKENS, temperature=0, ignore_eos=True, tandem={"timings": True})
    return {entry["stage"]: entry["seconds"] for entry in reply["tandem"]["stages"]}


def test_the_devices_need_the_same_time_for_text_as_for_the_hash_chain():
    """Rows are 576 wide in one and a digest in the other; the devices are charged for Llama's 4096 in both."""
    measured = {}
    for numerics in ("model", "synthetic"):
        cluster = emulated("afd", numerics=numerics)
        with clusters.started(cluster):
            measured[numerics] = stage_seconds(cluster)
    assert set(measured["model"]) == {"prefill", "attention", "ffn"}
    assert measured["model"] == pytest.approx(measured["synthetic"], rel=1e-3)
