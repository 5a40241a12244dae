"""A real Prometheus beside a live emulated cluster under load, started as `./dev up --monitoring` does: every panel has data that change,
no query or rule asks for a metric that nobody exports, the books balance as Prometheus sees them, and docs/metrics.md is true."""
import math
import signal
import socket

import pytest

import boards
import cluster as clusters
import metrics_page
from monitored import Load, Monitored, rules_not_evaluated, unknown_metrics

BOOKS_WINDOW = 20  # seconds


@pytest.fixture(scope="module")
def story():
    """The cluster, and when: its load began, ran evenly, lost its FFN worker and an attention worker, and went on. Under load yet."""
    cluster = Monitored()
    with clusters.started(cluster) as said:
        prometheus = cluster.prometheus
        assert f"Prometheus: {prometheus.url}/graph" in said, said
        began = prometheus.now()
        with Load(cluster, clients=24) as load:
            clusters.wait_for("every state that the load causes has been seen", lambda: min(
                value for _, value in prometheus.query("sum by (worker) (tandem_stage_seconds_total{state='busy'})") or [({}, 0)]) > 0)
            even = prometheus.now()
            clusters.wait_for("a window of even load", lambda: prometheus.now() > even + BOOKS_WINDOW + 3)
            books = prometheus.query(
                f"sum by (worker) (increase(tandem_stage_seconds_total[{BOOKS_WINDOW}s]))"
                f" / sum by (worker) (increase(tandem_device_elapsed_seconds_total[{BOOKS_WINDOW}s]))")
            with Load(cluster, clients=6, seed=2):  # a closed loop of as many clients has as many requests in flight
                for victim in ("ffn-0", "attention-1"):
                    restarts = cluster.processes()[victim]["restarts"]
                    cluster.signal(victim, signal.SIGKILL)
                    clusters.wait_for(f"{victim} is started again", lambda: cluster.processes()[victim]["restarts"] > restarts)
                    cluster.wait_ready()
                    served = load.finished
                    clusters.wait_for("requests are served again", lambda: load.finished > served + 24)
            settled = prometheus.now()
            clusters.wait_for("all of it is scraped and evaluated", lambda: prometheus.now() > settled + 6)
            yield {"cluster": cluster, "prometheus": prometheus, "began": began, "end": prometheus.now(), "books": books, "load": load}


def test_every_daemon_is_scraped_where_it_exports(story):
    targets = story["prometheus"].targets()
    expected = {name: ("up", process["metrics_url"].split("/")[2]) for name, process in story["cluster"].processes().items()
                if name != "prometheus"}
    assert targets == expected


def test_every_second_is_accounted_for_as_prometheus_sees_it(story):
    workers = {labels["worker"]: ratio for labels, ratio in story["books"]}
    assert set(workers) == set(story["cluster"].workers())
    for worker, ratio in workers.items():
        assert ratio == pytest.approx(1, abs=1e-3), (worker, ratio)


@pytest.mark.parametrize("name, title, legend, expr", list(boards.queries()), ids=lambda value: str(value)[:40])
def test_every_panel_shows_data_that_change_under_load(story, name, title, legend, expr):
    found = story["prometheus"].series(expr, story["began"], story["end"])
    assert found, f"{name}: {title} ({legend}) has no data: {expr}"
    moving = [labels for labels, points in found
              if len({value for _, value in points if math.isfinite(value)}) > 1]
    assert moving, f"{name}: {title} ({legend}) stands still: {[(labels, points[-1]) for labels, points in found]}: {expr}"


def test_no_query_or_rule_asks_for_an_unknown_metric(story):
    assert not unknown_metrics(story["prometheus"])


def test_the_rules_are_loaded_and_evaluate(story):
    assert not rules_not_evaluated(story["prometheus"])


def test_nothing_leaks(story):
    leaked = story["prometheus"].query("max by (worker) (max_over_time(tandem_worker_kv_blocks_leaked[10m]))")
    assert {labels["worker"] for labels, _ in leaked} == {"prefill-0", "attention-0", "attention-1"}
    assert not [entry for entry in leaked if entry[1] > 0], leaked


def test_the_page_of_metrics_is_true(story):
    workers, found = story["cluster"].workers(), []
    for name, process in story["cluster"].processes().items():
        if process["kind"] != "prometheus":
            found += metrics_page.differences(process["kind"], process["metrics_url"], workers.get(name))
    assert not found, "\n".join(found)


def test_a_metrics_port_has_metrics_alone(story):
    import urllib.error
    import urllib.request
    url = story["cluster"].processes()["router"]["metrics_url"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url + "x", timeout=30)
    assert refused.value.code == 404 and refused.value.read() == b"only /metrics\n"


def test_a_cluster_that_runs_with_monitoring_says_so(story):
    cluster = story["cluster"]
    status = cluster.ctl("local", "status", "--state-dir", str(cluster.state_dir)).stdout
    assert "prometheus" in status and story["prometheus"].url[7:] in status, status


@pytest.fixture
def cold():
    cluster = clusters.Cluster("colocated")
    yield cluster
    cluster.down()


def one_line(result):
    assert result.returncode == 1, result
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


def test_without_prometheus_the_error_names_the_package(cold, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    line = one_line(cold.ctl(*cold.up_command, "--monitoring", check=False))
    assert "prometheus" in line and "Debian's package" in line, line
    assert cold.ctl("local", "status", "--state-dir", str(cold.state_dir), check=False).returncode == 1


def test_a_monitoring_port_that_is_taken_is_an_error(cold):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = one_line(cold.ctl(*cold.up_command, "--monitoring-port", str(port), check=False))
    assert f"prometheus: port {port}" in line, line
