"""Goal: inside one numerics class a sequence's tokens are the same in every topology, batch and chunking (DESIGN 8.1).

Method: the same prompts through real clusters of all four topologies, alone, as a batch of eight with staggered joins and
leaves, and as n choices; ids are compared, never text. Greedy ones are also compared with libllama decoding each alone.
"""
import json
import pathlib
import subprocess

import pytest

import cluster as clusters
from api import Stream, complete
from conftest import TOPOLOGIES

PROMPTS = json.loads((clusters.SOURCE / "tests" / "exact" / "prompts.json").read_text())["prompts"]
LONG_PROMPT_TOKENS = 300

SEEDED = [
    {"prompt": "Once upon a time", "max_tokens": 24, "temperature": 1.0, "seed": 42},
    {"prompt": "The recipe needs", "max_tokens": 24, "temperature": 0.8, "top_p": 0.9, "seed": 7},
    {"prompt": "In the year 2126", "max_tokens": 24, "temperature": 1.2, "top_k": 40, "min_p": 0.02, "seed": 1},
    {"prompt": "My favourite words are", "max_tokens": 24, "temperature": 0.9, "seed": 3, "repetition_penalty": 1.1,
     "presence_penalty": 0.5, "frequency_penalty": 0.3, "logit_bias": {"905": 2}},
]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Name of a prompt to {"prompt_ids", "ids"}: libllama in the reference class."""
    folder = tmp_path_factory.mktemp("reference")
    (folder / "prompts.json").write_text(json.dumps({"prompts": PROMPTS}))
    program = clusters.BINARY / "tests" / "reference_dump"
    result = subprocess.run([str(program), "--model", str(clusters.MODEL), "--prompts", str(folder / "prompts.json"),
                             "--out", str(folder / "ids.json"), "--ids-only"], capture_output=True, text=True, errors="replace",
                            timeout=900)
    assert result.returncode == 0, result.stderr
    found = {entry["name"]: entry for entry in json.loads((folder / "ids.json").read_text())["prompts"]}
    assert len(found) >= 12, "too few prompts"
    assert max(len(entry["prompt_ids"]) for entry in found.values()) > LONG_PROMPT_TOKENS, "no long prompt"
    return found


def ids_of(choice):
    assert choice.get("token_ids"), "the gateway returned no token_ids although return_token_ids was asked for"
    return choice["token_ids"]


def greedy(cluster, entry, **fields):
    return complete(cluster, entry["prompt_ids"], entry["max_tokens"], temperature=0, return_token_ids=True, **fields)


def one_by_one(cluster, reference):
    return {name: ids_of(greedy(cluster, entry)["choices"][0]) for name, entry in reference.items()}


def batch_of_eight(cluster, reference):
    """Eight sequences at once, of different lengths: each joins when the one before it has its first token, and leaves alone."""
    names = sorted(reference)[:8]
    streams = {}
    for name in names:
        entry = reference[name]
        streams[name] = Stream(cluster, entry["prompt_ids"], entry["max_tokens"], return_token_ids=True,
                               ignore_eos=True, tandem={"timings": True})
        streams[name].first.wait(clusters.LONG)
    for stream in streams.values():
        stream.wait_end()
        assert stream.error is None and stream.done, stream.error
    return {name: stream.ids for name, stream in streams.items()}


def crowd(cluster, reference):
    """Every prompt three times at once: joins and leaves at every step, more sequences than one micro-batch."""
    streams = [(name, Stream(cluster, entry["prompt_ids"], entry["max_tokens"], return_token_ids=True))
               for _ in range(3) for name, entry in sorted(reference.items())]
    for _, stream in streams:
        stream.wait_end()
        assert stream.error is None and stream.done, stream.error
    ids = {}
    for name, stream in streams:
        assert ids.setdefault(name, stream.ids) == stream.ids, f"{name}: two copies in one batch differ"
    return ids


def seeded(cluster):
    return [ids_of(complete(cluster, fields["prompt"], **{key: value for key, value in fields.items() if key != "prompt"},
                            return_token_ids=True)["choices"][0]) for fields in SEEDED]


def choices(cluster):
    reply = complete(cluster, "Tell me about the sea, please, and take your time:", 24, temperature=1.0, seed=99, n=2,
                     return_token_ids=True)
    return [ids_of(choice) for choice in sorted(reply["choices"], key=lambda choice: choice["index"])]


@pytest.fixture(scope="module")
def measured(reference):
    """Topology to everything that it produced. One cluster at a time: this machine may have two cores."""
    results = {}
    for topology in TOPOLOGIES:
        with clusters.running(topology) as cluster:
            results[topology] = {
                "alone": one_by_one(cluster, reference),
                "batch": batch_of_eight(cluster, reference),
                "crowd": crowd(cluster, reference),
                "seeded": seeded(cluster),
                "choices": choices(cluster),
            }
            cluster.wait_idle()
    return results


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_greedy_ids_equal_libllama_decoding_alone(measured, reference, topology):
    wrong = {name: (ids, reference[name]["ids"]) for name, ids in measured[topology]["alone"].items()
             if ids != reference[name]["ids"]}
    assert not wrong, wrong


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_batch_with_joins_and_leaves_changes_no_id(measured, reference, topology):
    for name, ids in measured[topology]["batch"].items():
        expected = reference[name]["ids"]
        # ignore_eos: it goes on past the end that the reference stopped at.
        assert ids[:len(expected)] == expected, name
        assert len(ids) == reference[name]["max_tokens"], name
    assert measured[topology]["batch"] == measured["colocated"]["batch"]
    assert measured[topology]["crowd"] == measured[topology]["alone"]


@pytest.mark.parametrize("topology", TOPOLOGIES[1:])
def test_seeded_samples_are_the_same_in_every_topology(measured, topology):
    assert measured[topology]["seeded"] == measured["colocated"]["seeded"]
    assert measured[topology]["choices"] == measured["colocated"]["choices"]


def test_the_choices_of_a_request_differ(measured):
    first, second = measured["colocated"]["choices"]
    assert first != second


def test_more_workers_change_no_id(reference):
    """Replicated FFN workers and two attention workers: whoever computes, the bits are the same."""
    with clusters.running("pd-afd", shape="1P2A2F") as cluster:
        ids = crowd(cluster, reference)
        assert ids == {name: entry["ids"] for name, entry in reference.items()}
        used = {worker["id"] for worker in cluster.status()["workers"] if worker["tokens_total"] > 0}
        assert used == {"attention-0", "attention-1"}, f"only {used} emitted tokens"
        cluster.wait_idle()
