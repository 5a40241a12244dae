"""Goal: an FFN server that is not ours, written from docs/handoff.md, serves the real model in a live cluster; and it passes the suite.

Method: an `afd` cluster whose FFN pool is left to ffn_server.py (numpy, float32: another numerics class). Ids of the same prompts from a
cluster of our own are the yardstick, and how many of them agree is said.
"""
import json

import pytest

import cluster as clusters
import other_ffn
from api import Stream, complete

PROMPTS = ["The capital of France is", "Once upon a time there was", "To bake bread, first", "The three laws of motion say"]
TOKENS = 24


def ids_of(cluster):
    return [complete(cluster, prompt, TOKENS, temperature=0, return_token_ids=True)["choices"][0]["token_ids"] for prompt in PROMPTS]


@pytest.fixture(scope="module")
def world():
    with other_ffn.running() as (cluster, server):
        yield cluster, server


@pytest.fixture(scope="module")
def own():
    """A cluster of ours alone."""
    with clusters.running("afd") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def our_ids(own):
    return ids_of(own)


def test_a_chat_goes_through_it(world):
    cluster, _ = world
    stream = Stream(cluster, "What is the capital of France?", max_tokens=16, chat=True).wait_end()
    assert stream.error is None and stream.done, stream.error
    assert "Paris" in stream.text, stream.text
    worker = cluster.workers()["ffn-numpy"]
    assert worker["numerics"]["ffn"].startswith("gguf:b179c9523d0e6a0f/numpy/cpu/")
    assert worker["stages"] == ["ffn"] and worker["device"] == "numpy"


def test_within_its_class_ids_are_exact_and_they_begin_as_ours_do(world, our_ids, record_property):
    cluster, _ = world
    alone = ids_of(cluster)
    streams = [(index, Stream(cluster, prompt, TOKENS, return_token_ids=True)) for _ in range(2) for index, prompt in enumerate(PROMPTS)]
    for index, stream in streams:
        stream.wait_end()
        assert stream.error is None and stream.done, stream.error
        assert stream.ids == alone[index], f"{PROMPTS[index]}: another text in a batch than alone"
    agree = [next((n for n, (a, b) in enumerate(zip(theirs, ours)) if a != b), len(ours)) for theirs, ours in zip(alone, our_ids)]
    record_property("agree", json.dumps(agree))
    print(f"ids that agree with ours until the first that differs: {agree} of {TOKENS}")
    assert all(theirs and ours and theirs[0] == ours[0] for theirs, ours in zip(alone, our_ids)), agree
    cluster.wait_idle()


def suite(cluster, address, *arguments):
    """What `tandemctl conformance ffn --json` says of a server: (exit code, name to case)."""
    result = cluster.ctl("conformance", "ffn", "--address", address, "--model", str(clusters.MODEL), "--model-name", "smollm2",
                         "--patience", "60", "--json", *arguments, check=False)
    assert result.stdout, result.stderr
    return result.returncode, {case["name"]: case for case in json.loads(result.stdout)["cases"]}


def test_the_suite_passes_it_and_names_its_distance(world):
    cluster, server = world
    code, cases = suite(cluster, server.address)
    assert code == 0 and len(cases) == 40, [case for case in cases.values() if not case["passed"]]
    assert "a class of its own: at most 0.02" in cases["values/precision"]["what"], cases["values/precision"]
    # A tolerance that another arithmetic cannot keep: caught, with the first difference.
    code, cases = suite(cluster, server.address, "--case", "values/precision", "--tolerance", "1e-6")
    assert code == 1 and not cases["values/precision"]["passed"]
    assert "row 0 element " in cases["values/precision"]["first_difference"]


def test_the_suite_passes_our_own_worker_bit_by_bit(own):
    worker = own.workers()["ffn-0"]
    code, cases = suite(own, worker["address"])
    assert code == 0 and len(cases) == 40, [case for case in cases.values() if not case["passed"]]
    assert "bit by bit the reference's" in cases["values/precision"]["what"]
    table = own.ctl("conformance", "ffn", "--address", worker["address"], "--model", str(clusters.MODEL), "--model-name", "another",
                    "--case", "open/granted", check=False)
    assert table.returncode == 1 and "open/granted  FAIL" in table.stdout and "0 of 1 cases passed" in table.stdout, table.stdout
    nobody = own.ctl("conformance", "ffn", "--address", "127.0.0.1:1", "--model", str(clusters.MODEL), check=False)
    assert nobody.returncode == 1 and "127.0.0.1:1: the stream ended with UNAVAILABLE" in nobody.stderr, nobody.stderr
    assert complete(own, "The sky is", 2)["usage"]["completion_tokens"] == 2, "and it serves on"


def test_a_router_refuses_it_beside_ours_and_says_why(own):
    router = json.loads((own.state_dir / "state.json").read_text())["router"]
    with other_ffn.served("--router", router) as server:
        said = clusters.wait_for("the router refused it", lambda: server.said("refused: "))
        assert "numerics class of ffn is 'gguf:b179c9523d0e6a0f/numpy/" in said and "that of worker ffn-0 is" in said
        assert "ffn-numpy" not in own.workers()
        assert complete(own, "The sky is", 2)["usage"]["completion_tokens"] == 2
