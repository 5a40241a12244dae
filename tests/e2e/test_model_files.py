"""A GGUF that cannot be served is refused at start, naming file, tensor and number; one of another pool's model by the router."""
import re
import shutil
import subprocess

import pytest

import cluster as clusters
from api import complete
from gguf_file import Gguf


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    yield path
    shutil.rmtree(path, ignore_errors=True)


def start(model, stages="prefill,attention,ffn"):
    """Runs a worker by itself, with a router that does not exist; returns (exit code, everything it said)."""
    command = [str(clusters.BINARY / "bin" / "tandem-worker"), "--stages", stages, "--model", str(model), "--model-name", "m",
               "--pool", "p", "--worker-id", "w", "--memory-class", "hbm", "--router", "127.0.0.1:1", "--listen",
               "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=clusters.LONG)
    return result.returncode, result.stdout + result.stderr


def check_refused(model, *words, stages="prefill,attention,ffn"):
    code, said = start(model, stages)
    assert code not in (0, None) and code > 0, f"exit code {code}: {said}"
    assert model.name in said, said
    for word in words:
        assert re.search(word, said), f"{word!r} is not in: {said}"


def test_a_truncated_file_names_the_tensor_and_the_numbers(folder):
    gguf = Gguf(clusters.MODEL)
    last = max(gguf.tensors, key=lambda name: gguf.tensors[name][1])
    model = gguf.write(folder / "truncated.gguf", gguf.data_start + gguf.tensors[last][1] + 100)
    check_refused(model, re.escape(last), r"\d{4,}")


def test_a_file_cut_within_its_header_is_refused(folder):
    gguf = Gguf(clusters.MODEL)
    for size in (0, 3, 20, 1000, gguf.data_start - 1000):
        check_refused(gguf.write(folder / f"cut-{size}.gguf", size))


def test_what_is_no_gguf_is_refused(folder):
    model = folder / "text.gguf"
    model.write_text("This is no model.\n" * 1000)
    check_refused(model)
    code, said = start(folder / "absent.gguf")
    assert code > 0 and "absent.gguf" in said


def test_another_architecture_is_named(folder):
    gguf = Gguf(clusters.MODEL)
    offset, _ = gguf.values["general.architecture"]
    assert gguf.data[offset + 8:offset + 13] == b"llama"
    gguf.data[offset + 8:offset + 13] = b"mamba"
    check_refused(gguf.write(folder / "mamba.gguf"), "mamba")


@pytest.mark.parametrize("tensor, stages", [("blk.7.ffn_up.weight", "ffn"), ("blk.3.attn_k.weight", "attention"),
                                            ("output_norm.weight", "prefill,attention,ffn")])
def test_a_missing_tensor_is_named(folder, tensor, stages):
    gguf = Gguf(clusters.MODEL)
    name_at, _ = gguf.tensors[tensor]
    gguf.data[name_at:name_at + 3] = b"xxx"
    check_refused(gguf.write(folder / f"missing-{tensor}.gguf"), re.escape(tensor), stages=stages)


def test_a_worker_with_another_model_is_refused_with_the_reason(folder):
    """One byte of one tensor differs: another sha256, so another numerics class."""
    gguf = Gguf(clusters.MODEL)
    gguf.data[gguf.data_start + gguf.tensors["blk.7.ffn_up.weight"][1] + 10] ^= 1
    other = gguf.write(folder / "other.gguf")
    with clusters.running("pd-afd") as cluster:
        router = cluster.processes()["router"]["address"]
        log = folder / "intruder.log"
        with open(log, "w") as out:
            intruder = subprocess.Popen([str(clusters.BINARY / "bin" / "tandem-worker"), "--stages", "ffn", "--model",
                                         str(other), "--model-name", cluster.model_name, "--pool", "ffn", "--worker-id",
                                         "ffn-intruder", "--memory-class", "sram", "--router", router, "--listen",
                                         "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--admin-listen",
                                         "127.0.0.1:0"], stdout=out, stderr=subprocess.STDOUT)
        try:
            def refused():
                said = log.read_text()
                return "numerics" in said and "ffn-intruder" in cluster.log("router") and said
            said = clusters.wait_for("the worker says that it was refused, and why", refused)
            assert "gguf:" in said, said
            assert "ffn-intruder" not in cluster.workers()
            assert complete(cluster, "The sky is", 2)["usage"]["completion_tokens"] == 2
        finally:
            if intruder.poll() is None:
                clusters.terminate(intruder.pid)
            intruder.wait(clusters.LONG)
