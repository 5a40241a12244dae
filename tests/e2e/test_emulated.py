"""Emulated clusters: every ready device set answers an OpenAI client, in scaled time that is labelled as such, with tokens that do not
depend on the topology, and books in which every second has its place."""
import signal

import openai
import pytest

import cluster as clusters
from api import Stream
from emulated_cluster import SETS, Emulated, expect_balanced_books, expect_refused

PROMPT = "Every second accounted for"


@pytest.fixture(scope="module")
def tokens():
    """The ids that each model gave first."""
    return {}


def what_decides_the_tokens(name):
    lines = (clusters.SOURCE / "deploy" / "local" / (name + ".yaml")).read_text().splitlines()
    return tuple(line.split()[1] for line in lines if line.split()[:1] in (["model_shape:"], ["numerics:"]))


def complete(cluster):
    client = openai.OpenAI(base_url=cluster.url + "/v1", api_key="none")
    reply = client.completions.with_raw_response.create(model=cluster.model_name, prompt=PROMPT, max_tokens=12, temperature=0,
                                                        extra_body={"return_token_ids": True})
    return reply.headers, reply.parse()


@pytest.mark.parametrize("name", SETS)
def test_every_set_answers_and_accounts_for_its_time(name, tokens):
    cluster = Emulated(name)
    with clusters.started(cluster) as out:
        headers, reply = complete(cluster)
        scale = float(headers["x-tandem-time-scale"])
        assert f"time_scale {scale:g}: " in out, out
        ids = reply.choices[0].model_extra["token_ids"]
        assert len(ids) == 12 and reply.choices[0].finish_reason == "length"
        # A hash chain (or a model): one swapped row, stale block or skipped layer would change every later token.
        assert ids == tokens.setdefault(what_decides_the_tokens(name), ids)
        for worker in cluster.workers().values():
            assert worker["device"].startswith("emulated/") and worker["time_scale"] == scale
            if worker["stages"] == ["ffn"]:  # it waited for rows of a sequence that lived
                assert any(entry["cause"] == "starved" and entry["seconds"] > 0 for entry in worker["ledger"])
        expect_balanced_books(cluster)
        cluster.wait_idle()


def test_the_books_balance_though_workers_die():
    cluster = Emulated("emulated-rubin-lpx")
    with clusters.started(cluster):
        for victim in ("ffn-0", "attention-0"):
            streams = [Stream(cluster, f"Story {number}", max_tokens=300, ignore_eos=True) for number in range(3)]
            for stream in streams:
                stream.wait_first()
            expect_balanced_books(cluster)
            restarts = cluster.processes()[victim]["restarts"]
            cluster.signal(victim, signal.SIGKILL)
            for stream in streams:
                stream.wait_end()  # with an error, or with all of it
            clusters.wait_for(f"{victim} is started again", lambda: cluster.processes()[victim]["restarts"] > restarts)
            cluster.wait_ready()
            assert len(complete(cluster)[1].choices[0].model_extra["token_ids"]) == 12
            expect_balanced_books(cluster)
            cluster.wait_idle()


def test_rows_as_wide_as_the_models_give_the_same_ids():
    ids = []
    for name in ("emulated-h100", "emulated-rubin-lpx"):  # one device; attention and FFN apart
        cluster = Emulated(name, ["--model-shape", "llama-3-8b", "--payload", "real"])
        with clusters.started(cluster):
            ids.append(complete(cluster)[1].choices[0].model_extra["token_ids"])
    assert len(ids[0]) == 12 and ids[0] == ids[1]


@pytest.mark.parametrize("flags, words", [
    (["--model-shape", "llama-9"], ["llama-9", "llama-3-8b"]),
    (["--model-shape", "llama-3-70b", "--devices", "h101"], ["h101", "rubin-lpx"]),
    (["--model-shape", "llama-3-70b", "--time-scale", "0"], ["time_scale", "0"]),
    (["--model-shape", "llama-3-70b", "--weights", "fp3"], ["fp3"]),
    (["--model-shape", "llama-3-405b", "--devices", "cs-3"], ["cs-3", "GB"]),
    ([], ["model_shape"]),
])
def test_what_makes_no_sense_is_refused_with_its_reason(flags, words):
    cluster = clusters.Cluster("afd", extra=["--backend", "emulated", "--devices", "rubin-lpx", *flags]
                               if "--devices" not in flags else ["--backend", "emulated", *flags])
    expect_refused(cluster, words)
