"""What an emulated attention-FFN cluster costs while it serves: `tandemctl tco` and GET /admin/v1/tco, with prices unknown and given."""
import json
import re
import urllib.error
import urllib.request

import pytest

import cluster as clusters
from api import Stream
from emulated_cluster import Emulated

ATTENTION = "prices:\n  - device: vera-rubin-x8\n    dollars_per_hour: 40\n"
BOTH = ATTENTION + "  - device: groq3-lpx-rack\n    dollars_per_hour: {value: 90, mark: assumed, source: a test}\n"


@pytest.fixture(scope="module")
def loaded():
    """A cluster that has just served some requests."""
    # A scale of its own, so that finding one sends no requests.
    cluster = Emulated("emulated-rubin-lpx", extra=["--time-scale", "8"])
    with clusters.started(cluster):
        streams = [Stream(cluster, f"Every second accounted for, {number}", max_tokens=48, ignore_eos=True) for number in range(4)]
        for stream in streams:
            stream.wait_end()
        # A heartbeat a second: wait for the one that counts the last token.
        clusters.wait_for("all tokens are in the account",
                          lambda: tco(cluster)["totals"]["tokens_out"] >= 4 * 48)
        yield cluster


def run_tco(cluster, *flags, check=True):
    return cluster.ctl("tco", "--state-dir", str(cluster.state_dir), "--window", "10m", *flags, check=check)


def tco(cluster, *flags):
    result = run_tco(cluster, "--json", *flags, check=False)
    if result.returncode != 0:
        raise OSError(result.stderr)
    return json.loads(result.stdout)


def write(cluster, name, text):
    path = cluster.state_dir / name
    path.write_text(text)
    return str(path)


def test_every_device_second_has_its_dollars(loaded):
    report = tco(loaded, "--prices", write(loaded, "both.yaml", BOTH))
    prices = {"attention": 40, "ffn": 90}
    dollars = 0
    assert {worker["pool"] for worker in report["workers"]} == set(prices)
    for worker in report["workers"]:
        booked = sum(cell["seconds"] for cell in worker["ledger"])
        assert booked == pytest.approx(worker["elapsed_seconds"], rel=1e-3, abs=1e-2)
        # Emulated time: a device second takes time_scale of the machine's.
        assert worker["elapsed_seconds"] * worker["time_scale"] == pytest.approx(worker["wall_seconds"], rel=1e-2)
        dollars += booked * prices[worker["pool"]] / 3600
    totals = report["totals"]
    assert totals["total"]["dollars"] == pytest.approx(dollars, rel=1e-6)
    assert sum(row["cost"]["all"]["dollars"] for row in report["rows"]) == pytest.approx(dollars, rel=1e-6)
    assert totals["input"]["dollars"] > 0 and totals["output"]["dollars"] > 0
    assert totals["prompts"] == 4 and totals["tokens_out"] == 4 * 48 and totals["tokens_in"] > 0
    assert totals["dollars_per_mtok_total"] == pytest.approx(
        1e6 * dollars / (totals["tokens_in"] + totals["tokens_out"]), rel=1e-6)
    assert totals["mark"] == "assumed"  # the weakest of its inputs
    assert report["emulated"]["devices"] == 2
    assert {row["stage"] for row in report["rows"] if row["pool"] == "ffn"} == {"ffn"}


def test_an_unknown_specialist_price_shows_the_price_at_which_it_pays(loaded):
    report = tco(loaded, "--prices", write(loaded, "attention.yaml", ATTENTION))
    assert report["totals"]["unpriced_devices"] == ["groq3-lpx-rack"]
    assert report["totals"]["dollars_per_mtok_total"] is None
    baseline, price = report["baseline"], report["break_even"]["dollars_per_hour"]
    assert baseline["kind"] == "forecast" and baseline["device"] == "h100-x2", baseline
    assert baseline["tpot_seconds"] <= baseline["slo_tpot_seconds"]
    # A few short requests pay for no cluster: the attention workers alone cost more a token than the baseline.
    assert price["value"] is None and "at no price" in price["why_not"]
    # Free attention: then there is a price, and at it a token costs what the baseline asks.
    free = "prices:\n  - pool: attention\n    dollars_per_hour: 0\n"
    price = tco(loaded, "--prices", write(loaded, "free.yaml", free))["break_even"]["dollars_per_hour"]
    assert price["low"] < price["value"] < price["high"], price
    report = tco(loaded, "--prices", write(loaded, "at.yaml", free + f"  - pool: ffn\n    dollars_per_hour: {price['value']!r}\n"))
    # Idle time went on between the two questions.
    assert report["totals"]["dollars_per_mtok_total"] == pytest.approx(report["baseline"]["dollars_per_mtok_total"], rel=0.3)
    assert report["break_even"]["occupancy"]["value"] == pytest.approx(report["specialist"]["occupancy"], rel=0.3)


def test_the_baseline_is_run_when_it_is_asked_for(loaded):
    flags = ["--baseline", "h100-x2-colocated", "--engine", "none", "--prices", write(loaded, "both.yaml", BOTH)]
    # An objective that a few sequences at once meet, so that few clients are played.
    alone = re.search(r"one sequence takes ([0-9.]+) ms", tco(loaded, *flags, "--slo-tpot-ms", "1")["baseline"]["why_not"])
    result = run_tco(loaded, *flags, "--measure", "--json", "--slo-tpot-ms", str(1.1 * float(alone.group(1))))
    assert "clients decode; measuring" in result.stderr and "time_scale" in result.stderr, result.stderr
    report = json.loads(result.stdout)  # progress is not in it
    baseline = report["baseline"]
    measured = baseline["measured"]
    assert measured["clients"] == baseline["batch"] and measured["tokens_out"] > 0
    # The forecast of an engine that adds nothing is what ours can reach at best; a busy host makes it slower.
    assert baseline["tpot_seconds"] * 0.9 < measured["tpot_seconds"] < baseline["tpot_seconds"] * 3, baseline
    # One device, priced by the hour, whose every second is counted.
    per_hour = next(figure["value"] for figure in baseline["inputs"] if figure["name"].startswith("price of h100-x2"))
    tokens = measured["tokens_in"] + measured["tokens_out"]
    assert measured["dollars_per_mtok_total"] == pytest.approx(
        1e6 * per_hour * measured["device_seconds"] / 3600 / tokens, rel=1e-6)


def test_a_baseline_that_there_is_none_of_is_not_run(loaded):
    result = run_tco(loaded, "--measure", "--slo-tpot-ms", "0.01", check=False)
    assert result.returncode == 1 and "--measure: there is no baseline to run" in result.stderr, result.stderr


def test_the_table_labels_emulated_time_and_unknown_prices(loaded):
    text = run_tco(loaded).stdout
    assert "time is emulated" in text and "forecast" in text and "unknown" in text, text
    assert "vera-rubin-x8, groq3-lpx-rack" in text or "groq3-lpx-rack, vera-rubin-x8" in text, text
    assert all(len(line) <= 100 for line in text.splitlines()), text


def test_the_router_answers_the_same_over_http(loaded):
    status = loaded.processes()["router"]
    address = json.loads((loaded.state_dir / "state.json").read_text())["router_admin"]
    with urllib.request.urlopen(f"http://{address}/admin/v1/tco?window=10m", timeout=30) as reply:
        assert reply.headers["content-type"] == "application/json"
        report = json.load(reply)
    assert {worker["worker"] for worker in report["workers"]} == {"attention-0", "ffn-0"}, status
    assert report["totals"]["tokens_out"] == 4 * 48
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://{address}/admin/v1/tco?window=never", timeout=30)
    assert refused.value.code == 400 and "window" in refused.value.read().decode()
    metrics = loaded.metrics("router")
    assert metrics[("tandem_cost_price_known", (("pool", "ffn"),))] == 0
    assert metrics[("tandem_cost_unpriced_seconds_total", (("pool", "ffn"),))] > 0


@pytest.mark.parametrize("flags, words", [
    (["--baseline", "h101-colocated"], ["h101-colocated", "h100-colocated"]),
    (["--window", "0s"], ["window", "3600"]),
    (["--window", "2h"], ["window", "3600"]),
    (["--specialist", "fpga"], ["fpga", "attention, ffn"]),
    (["--engine", "orca"], ["orca", "vllm"]),
    (["--prices", "/nowhere.yaml"], ["/nowhere.yaml"]),
])
def test_what_makes_no_sense_is_refused_with_its_reason(loaded, flags, words):
    result = loaded.ctl("tco", "--state-dir", str(loaded.state_dir), *flags, check=False)
    assert result.returncode == 1 and not result.stdout, result.stdout
    for word in words:
        assert word in result.stderr, result.stderr


@pytest.mark.parametrize("price", ["-1", "nan", "cheap", "{value: -1, mark: stated, source: x}"])
def test_a_price_that_is_none_is_refused_by_file_line_and_key(loaded, price):
    path = write(loaded, "bad.yaml", f"prices:\n  - device: groq3-lpx-rack\n    dollars_per_hour: {price}\n")
    result = run_tco(loaded, "--prices", path, check=False)
    assert result.returncode == 1 and f"{path}:3: prices.dollars_per_hour" in result.stderr, result.stderr
