"""`tandemctl conformance backend NAME`: the suite of backends on this machine's CPU with the real model, and on an emulated device."""
import subprocess

import pytest

import cluster as clusters


def conformance(*arguments):
    return subprocess.run([clusters.BINARY / "bin/tandemctl", "conformance", "backend", *arguments], capture_output=True, text=True)


def verdicts(said):
    rows = [line.split() for line in said.stdout.splitlines() if line.startswith("Own/")]
    assert rows and said.stdout.splitlines()[-1] == f"{len(rows)} cases, {sum(row[2] == 'FAIL' for row in rows)} failed", said.stdout
    return {row[0].removeprefix("Own/"): row[2] for row in rows}


@pytest.mark.parametrize("name, shards", [("cpu", True), ("emulated", False)])
def test_our_backends_pass(name, shards):
    said = conformance(name)
    assert said.returncode == 0, said.stdout + said.stderr
    told = verdicts(said)
    assert set(told.values()) == {"pass"}
    assert {case.split(".")[0] for case in told} == {"BackendConformance", "FfnConformance"} | ({"ShardConformance"} if shards else set())


def test_one_case_can_be_asked_for():
    assert list(verdicts(conformance("emulated", "--case", "EveryRowCounts"))) == ["BackendConformance.EveryRowCounts"]


@pytest.mark.parametrize("arguments, what", [
    (["cuda:7"], "no backend 'cuda:7' on this machine; there is: cpu, "),
    (["cpu", "--model", "/etc/passwd"], "/etc/passwd: not a GGUF file"),
    (["cpu", "--case", "no-such-case"], "no case has 'no-such-case' in its name"),
    (["cpu", "--bin-dir", "/nowhere"], "/nowhere/tandem-backend-conformance: No such file or directory (of a built tree, not of the image: ./dev build)"),
])
def test_what_is_wrong_is_named(arguments, what):
    said = conformance(*arguments)
    assert said.returncode == 1 and not said.stdout and what in said.stderr, said
