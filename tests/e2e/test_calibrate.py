"""`tandemctl calibrate`: this machine's own calls become chips that the catalog and the stage fit take; what cannot be is refused."""
import json
import os
import pathlib
import subprocess

import pytest

import cluster as clusters

CTL = str(clusters.BINARY / "bin" / "tandemctl")
KINDS = {"attention", "ffn", "head", "prefill"}


def run(*arguments):
    return subprocess.run([CTL, *map(str, arguments)], capture_output=True, text=True, timeout=20 * clusters.LONG)


def ok(*arguments):
    result = run(*arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def refused(*arguments):
    result = run(*arguments)
    assert result.returncode == 1, result.stdout + result.stderr
    return result.stderr


@pytest.fixture(scope="module")
def calibration(tmp_path_factory):
    """(folder, what it printed); however busy the machine is, for no figure is judged here."""
    folder = tmp_path_factory.mktemp("calibration")
    return folder, ok("calibrate", "--quick", "--model", clusters.MODEL, "--out", folder, "--name", "here", "--max-spread", 1000)


def test_it_times_every_kind_of_call_alone_in_turns_and_beside_a_neighbour(calibration):
    folder, _ = calibration
    measured = json.loads((folder / "measurements" / "here.json").read_text())
    for pattern in ("alone", "turns", "contended"):
        calls = [call for call in measured["calls"] if call["pattern"] == pattern]
        # A prompt's chunks follow on each other: they have no turns.
        assert {call["kind"] for call in calls} == (KINDS - {"prefill"} if pattern == "turns" else KINDS)
        assert all(call["seconds"] > 0 for call in calls)
        # A row is work: sixteen of them take longer than one, on any machine.
        by_rows = {call["rows"]: call["seconds"] for call in calls if call["kind"] == "ffn"}
        assert by_rows[16] > 2 * by_rows[1]
    assert all(rate > 1e8 for rate in measured["read_bytes_per_s"].values())
    assert len(measured["handoffs"]) == 6 and all(trip["seconds"] > 1e-6 for trip in measured["handoffs"])


def test_the_chips_are_of_the_catalog(calibration):
    folder, printed = calibration
    for name in ("here", "here-attention", "here-ffn", "here-contended", "here-attention-contended", "here-ffn-contended"):
        entry = json.loads(ok("catalog", "chip", name, "--catalog", folder, "--json"))
        marks = {figure["mark"] for figure in entry["figures"]}
        assert {"measured", "fitted"} <= marks, entry
        assert f"wrote {folder}/chips/{name}.yaml" in printed
    shown = ok("catalog", "chip", "here", "--catalog", folder)
    assert "fitted to" in shown and "residual" in shown and "tandemctl calibrate" in shown
    assert "median error" in printed and "hand-off: " in printed


def test_the_stage_fit_takes_them(calibration):
    folder, _ = calibration
    shown = ok("fit", "smollm2-135m", "--chip", "here,here-ffn,h100", "--batch", 8, "--context", 64, "--prompt", 64, "--weights",
               "int4", "--catalog", folder)
    assert "here-ffn" in shown


def test_an_earlier_measurement_is_fitted_again_and_its_spread_is_judged(calibration, tmp_path):
    folder, _ = calibration
    measured = folder / "measurements" / "here.json"
    again = ok("calibrate", "--from", measured, "--out", tmp_path, "--max-spread", 1000)
    assert "local-cpu-ffn: " in again and (tmp_path / "chips" / "local-cpu.yaml").exists()
    busy = refused("calibrate", "--from", measured, "--out", tmp_path, "--max-spread", 0)
    assert "too busy" in busy and "% apart" in busy and "at most 0.0 %" in busy


def test_what_cannot_be_calibrated_is_refused(tmp_path):
    assert "no model /nowhere.gguf" in refused("calibrate", "--model", "/nowhere.gguf", "--out", tmp_path)
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    assert str(broken) in refused("calibrate", "--model", broken, "--out", tmp_path)
    file = tmp_path / "file"
    file.write_text("")
    assert f"cannot write {file}" in refused("calibrate", "--model", clusters.MODEL, "--out", file)
    if os.geteuid() != 0:  # root writes everywhere
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o500)
        assert "cannot write" in refused("calibrate", "--model", clusters.MODEL, "--out", closed)
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    assert "bad.json" in refused("calibrate", "--from", bad, "--out", tmp_path)
    assert "cannot read" in refused("calibrate", "--from", tmp_path / "none.json", "--out", tmp_path)
    assert not list(pathlib.Path(tmp_path).glob("chips/*.yaml"))
