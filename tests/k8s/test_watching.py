"""What Prometheus sees of the release that test_cluster.py has driven, and what scales by it."""
import yaml

from chart import CHART, EXAMPLES
from kube import NODE, wait_for
from monitored import rules_not_evaluated, unknown_metrics, without_data
from release import POOLS, Load

# Empty with workers on CPU, full with emulated devices: tests/dashboards/test_live.py has those.
EMULATED_ONLY = [("stages", "How far the host falls behind emulated devices")]
# The thresholds and the patience of a test; what is scaled on, by which query and within which bounds is the example's.
FAST = "{scaleDown: {stabilizationWindowSeconds: 5, policies: [{type: Pods, value: 8, periodSeconds: 2}]}}"
ONE_IN_FLIGHT = f"""
gateway:
  autoscaling:
    metrics: [{{type: External, external: {{metric: {{name: tandem_requests_in_flight}}, target: {{type: AverageValue, averageValue: "1"}}}}}}]
    behavior: {FAST}
"""


def test_every_pod_is_scraped_by_the_charts_own_podmonitors(release, monitoring):
    ready = lambda: {name: f"tandem-{component}" for component in ("gateway", "router", "worker") for name in release.ready(component)}

    def scraped():
        return {entry["labels"]["process"]: entry["labels"]["job"] for entry in monitoring.prometheus.get("targets", state="active")["activeTargets"]
                if entry["health"] == "up" and entry["labels"]["pod"] == entry["labels"]["process"]}
    wait_for("every pod is up", lambda: scraped() == ready())
    assert len(scraped()) >= 9


def test_every_dashboard_query_has_data(release, monitoring):
    prometheus = monitoring.prometheus
    assert sorted(set(without_data(prometheus, monitoring.began, prometheus.now()))) == EMULATED_ONLY


def test_the_charts_rules_are_loaded_and_evaluate(monitoring):
    assert not rules_not_evaluated(monitoring.prometheus)


def test_no_query_or_rule_asks_for_an_unknown_metric(monitoring):
    assert set(unknown_metrics(monitoring.prometheus)) == {"tandem_emulation_lag_ratio"}


def test_a_metric_that_is_absent_is_zero_to_an_hpa(monitoring):
    names = {rule["name"]["as"] for rule in yaml.safe_load((EXAMPLES / "prometheus-adapter.yaml").read_text())["rules"]["external"]}
    assert monitoring.external_metrics() == names
    for name in names:
        assert monitoring.external(name, namespace="nothing-runs-here") == [0], name


def test_pools_and_gateways_scale_by_the_examples(release, kube, monitoring, text, tmp_path):
    """Gateways up by the requests in flight and down again; every pool's own signal is answered, and holds it at its minimum."""
    (tmp_path / "fast.yaml").write_text(ONE_IN_FLIGHT)
    gateways = lambda: len(release.ready("gateway"))
    with Load(release, clients=1) as few:
        release.upgrade("--reuse-values", "--values", EXAMPLES / "hpa-values.yaml", "--values", tmp_path / "fast.yaml")
        hpas = lambda: {hpa["metadata"]["name"]: {condition["type"]: condition for condition in hpa["status"].get("conditions", ())}
                        for hpa in kube.ask(f"/apis/autoscaling/v2/namespaces/{release.namespace}/horizontalpodautoscalers")["items"]}
        wait_for("every HPA has its metric", lambda: len(hpas()) == 4 and all(
            conditions.get("ScalingActive", {}).get("status") == "True" for conditions in hpas().values()))
        began = kube.seconds()
        with Load(release, clients=5) as many:
            wait_for("three gateways or more for six clients", lambda: gateways() >= 3)
            print(f"gateways scaled up in {kube.seconds() - began:.0f} s")
        began = kube.seconds()
        wait_for("two gateways for one", lambda: gateways() == 2)
        release.settled()
        print(f"and down in {kube.seconds() - began:.0f} s")
        few.more(1)
    assert not few.failed() and not many.failed(), (few.failed(), many.failed())
    assert few.texts() == many.texts() == {text}
    assert all(len(release.ready("worker", pool)) == 2 for pool in POOLS)
    release.rollback()
    assert not release.get("hpa")["items"]


def test_the_charts_own_requests_are_enough(release, kube):
    """These pods have been asked harder than a first try asks."""
    summary = kube.ask(f"/api/v1/nodes/{NODE}/proxy/stats/summary")
    used = {pod["podRef"]["name"]: pod["memory"]["workingSetBytes"] / 2**20 for pod in summary["pods"] if pod["podRef"]["name"] in release.all_pods()}
    print("working sets, MiB:", {name: round(value) for name, value in sorted(used.items())})
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    limits = {component: defaults[component]["resources"]["limits"]["memory"] for component in ("gateway", "router", "poolDefaults")}
    assert limits == {"gateway": "512Mi", "router": "256Mi", "poolDefaults": "1Gi"}
    for name, value in used.items():
        assert value < (512 if "gateway" in name else 256 if "router" in name else 1024), used
