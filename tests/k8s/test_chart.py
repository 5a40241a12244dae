"""The chart without a cluster: Helm, the schema, Kubernetes' own OpenAPI, critics, and what every values file must hold."""
import json
import subprocess

import pytest
import yaml

import chart
from chart import CHART, VALUES

# kube-score's advice that does not fit, and why.
IGNORED = {
    "container-image-pull-policy": "tags are versions, and a digest may be given; Always would need a registry at every start",
    "container-ephemeral-storage-request-and-limit": "the root file system is read-only: what a pod can fill is its log, which the kubelet "
                                                     "rotates, and a downloaded model, whose size only its owner knows",
    "deployment-has-host-podantiaffinity": "topologySpreadConstraints say it, softly: a pool may be larger than the number of nodes",
    "deployment-replicas": "the router is one by design, and a pool of one is a device that there is one of",
}
# Kinds of others, whose schemas are not Kubernetes': their CRDs' own tests are not here.
FOREIGN = ["PodMonitor", "PrometheusRule", "InferencePool"]

every_values_file = pytest.mark.parametrize("values", VALUES, ids=lambda values: values or "values.yaml")


@every_values_file
def test_lint_finds_nothing(values):
    assert "0 chart(s) failed" in chart.tool("helm", "lint", "--strict", CHART, *chart.flags(values)).stdout


@every_values_file
def test_kubernetes_own_schemas_take_it(values):
    manifests = chart.template(values, *chart.MONITORING, "--set", "inferencePool.enabled=true,inferencePool.endpointPicker.name=picker").stdout
    said = chart.tool("kubeconform", "-strict", "-summary", "-output", "json", "-skip", ",".join(FOREIGN), "-schema-location",
                      f"{chart.CACHE}/schemas/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json", "-", input=manifests).stdout
    summary = json.loads(said)["summary"]
    assert summary["invalid"] == summary["errors"] == 0 and summary["valid"] > 15, said
    assert summary["skipped"] == 5, said  # three PodMonitors, a PrometheusRule, an InferencePool


def complaints(values):
    """(check, object, what it says) of everything that kube-score does not like."""
    said = chart.tool("kube-score", "score", "--kubernetes-version", "v1.37", "--ignore-container-cpu-limit", "--output-format", "json", "-",
                      input=chart.template(values).stdout, check=False).stdout
    objects = json.loads(said)
    assert len(objects) > 10, said
    return [(check["check"]["id"], entry["object_name"], [comment["summary"] for comment in check["comments"] or ()])
            for entry in objects for check in entry["checks"] if not check["skipped"] and check["grade"] < 10]


@every_values_file
def test_kube_score_has_nothing_new_to_say(values):
    assert not [complaint for complaint in complaints(values) if complaint[0] not in IGNORED]


def test_what_kube_score_may_say_it_does_say():
    assert {check for check, _, _ in complaints("")} == set(IGNORED)


def test_unit_suites():
    chart.tool("helm-unittest", "--strict", CHART)


@every_values_file
def test_every_stage_has_a_pool_and_every_pool_its_objects(values):
    documents = chart.render(values)
    workers = {name: spec for name, spec in chart.pods(documents).items() if spec.get("containers", [{}])[0]["name"] == "tandem-worker"}
    stages = {stage for spec in workers.values() for argument in spec["containers"][0]["args"] if argument.startswith("--stages=")
              for stage in argument.partition("=")[2].split(",")}
    assert stages == {"prefill", "attention", "ffn"}
    for kind in ("Service", "PodDisruptionBudget"):
        assert {name.partition("/")[2] for name in workers} <= set(chart.of_kind(documents, kind)), kind


@every_values_file
def test_every_pod_is_restricted(values):
    found = chart.pods(chart.render(values))
    assert len(found) >= 4
    for name, spec in found.items():
        assert spec["automountServiceAccountToken"] is False, name
        pod = spec["securityContext"]
        assert pod["runAsNonRoot"] and pod["runAsUser"] == 65532 and pod["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not [volume for volume in spec.get("volumes", ()) if "hostPath" in volume], name
        for container in [*spec.get("initContainers", ()), *spec["containers"]]:
            context = container["securityContext"]
            assert context == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}, name
            limits, requests = container["resources"]["limits"], container["resources"]["requests"]
            assert limits["memory"] and requests["cpu"] and requests["memory"], name


@every_values_file
def test_a_pod_may_drain_for_as_long_as_its_daemon_does(values):
    for name, spec in chart.pods(chart.render(values)).items():
        arguments = spec["containers"][0].get("args", [])
        drain = [int(argument.partition("=")[2]) for argument in arguments if argument.startswith("--drain-timeout-seconds=")]
        sleep = spec["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        for seconds in drain:
            assert spec["terminationGracePeriodSeconds"] >= sleep + seconds + 10, name


@every_values_file
def test_selectors_find_each_pool_and_nobody_elses_pods(values):
    deployments = chart.of_kind(chart.render(values), "Deployment")
    labels = {name: deployment["spec"]["template"]["metadata"]["labels"] for name, deployment in deployments.items()}
    for name, deployment in deployments.items():
        wanted = deployment["spec"]["selector"]["matchLabels"].items()
        assert [other for other, has in labels.items() if wanted <= has.items()] == [name]


def test_rules_and_dashboards_are_the_products_own_files():
    documents = chart.render("", *chart.MONITORING)
    rule = chart.of_kind(documents, "PrometheusRule")["tandem"]["spec"]
    own = [group for file in sorted((chart.SOURCE / "deploy/prometheus/rules").glob("*.yml"))
           for group in yaml.safe_load(file.read_text())["groups"]]
    assert rule["groups"] == own
    boards = chart.of_kind(documents, "ConfigMap")
    for file in (chart.SOURCE / "deploy/dashboards").glob("*.json"):
        assert boards[f"tandem-dashboard-{file.stem}"]["data"] == {f"tandem-{file.name}": file.read_text()}
        assert boards[f"tandem-dashboard-{file.stem}"]["metadata"]["labels"]["grafana_dashboard"] == "1"


def promtool_takes(file):
    result = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_promtool_takes_the_rules_as_rendered(tmp_path):
    rule = chart.of_kind(chart.render("", *chart.MONITORING), "PrometheusRule")["tandem"]["spec"]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rule))
    promtool_takes(tmp_path / "rules.yml")


def test_a_packaged_chart_carries_them_too(tmp_path):
    chart.tool("helm", "package", CHART, "--destination", tmp_path)
    package = next(tmp_path.glob("*.tgz"))
    packed = chart.tool("helm", "template", "tandem", package, "--namespace", "serving", *chart.MONITORING).stdout
    assert packed == chart.template("", *chart.MONITORING).stdout
    names = subprocess.run(["tar", "tzf", package], capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in names if name.endswith((".py", "dashboards/README.md"))]


def test_the_examples_are_taken():
    documents = chart.render("", "--values", chart.EXAMPLES / "hpa-values.yaml")
    assert set(chart.of_kind(documents, "HorizontalPodAutoscaler")) == {"tandem-gateway", "tandem-prefill", "tandem-attention", "tandem-ffn"}
    for document in yaml.safe_load_all((chart.EXAMPLES / "keda.yaml").read_text()):
        assert document["kind"] == "ScaledObject"
        assert document["spec"]["scaleTargetRef"]["name"] in chart.of_kind(documents, "Deployment")
        for trigger in document["spec"]["triggers"]:
            assert trigger["metadata"]["query"].rstrip().endswith("or vector(0)"), document["metadata"]["name"]


@pytest.mark.parametrize("setting, path", [
    ("pools.prefill.replicas=-1", "prefill"), ("pools.prefill.stages={decode}", "stages"), ("pools.prefill.memoryClas=hbm", "memoryClas"),
    ("service.port=0", "port"), ("model.source=s3", "source"), ("image.digest=latest", "digest"), ("pools.ffn.memoryClass=dram", "memoryClass"),
    ("gateway.args.Listen=x", "Listen"), ("nodeSelector.a=b", "nodeSelector"), ("router.replicas=2", "replicas"), ("emulation.timeScale=0", "timeScale"),
    ("pools.prefill.nodeSelector.a=true", "nodeSelector"), ("drainSeconds=soon", "drainSeconds"),
], ids=lambda value: value)
def test_the_schema_names_what_is_wrong(setting, path):
    said = chart.refusal("--set", setting)
    assert "values don't meet the specifications of the schema" in said and path in said, said


@pytest.mark.parametrize("stage", ["prefill", "attention", "ffn"])
def test_a_topology_without_a_pool_for_a_stage_fails_with_a_sentence(stage):
    for off in (f"pools.{stage}=null", f"pools.{stage}.replicas=0"):
        said = chart.refusal("--set", off)
        assert f"No pool runs stage {stage}, so no request could be served." in said, said


@pytest.mark.parametrize("more, sentence", [
    (["--set", "pools.prefill.shards.count=2"], "only a pool whose one stage is ffn can be divided"),
    (["--set", "pools.prefill.device="], "name a device of the catalog"),
    (["--set", "model.source=pvc"], "model.pvc.claimName"),
    (["--set", "model.source=image"], "model.image.reference"),
    (["--set", "model.source=download,model.download.image=x,model.download.url=y"], "model.download.sha256"),
    (["--set", "pools.prefill.autoscaling.enabled=true"], "nothing says when to scale"),
    (["--set", "inferencePool.enabled=true"], "endpoint picker"),
], ids=lambda value: str(value)[-30:])
def test_what_cannot_work_fails_at_template_time_with_a_sentence(more, sentence):
    assert sentence in chart.refusal(*more)


def test_an_older_kubernetes_is_refused_and_1_29_gets_no_sleep():
    assert "1.28" in chart.refusal("--kube-version", "1.28.9")
    assert "preStop" not in chart.template("", "--kube-version", "1.29.0").stdout
    assert "preStop" in chart.template("", "--kube-version", "1.30.0").stdout


def test_the_examples_ask_the_same_of_prometheus_whoever_scales(tmp_path):
    rules = yaml.safe_load((chart.EXAMPLES / "prometheus-adapter.yaml").read_text())["rules"]["external"]
    answered = {rule["name"]["as"]: rule["metricsQuery"].replace("<<.LabelMatchers>>", 'namespace="NS"') for rule in rules}
    scalers = yaml.safe_load((chart.EXAMPLES / "hpa-values.yaml").read_text())
    asked = {settings["autoscaling"]["metrics"][0]["external"]["metric"]["name"] for settings in [scalers["gateway"], *scalers["pools"].values()]}
    assert asked == set(answered)
    keda = [document["spec"]["triggers"][0]["metadata"]["query"] for document in yaml.safe_load_all((chart.EXAMPLES / "keda.yaml").read_text())]
    assert len(keda) == 3 and set(keda) <= set(answered.values())
    recorded = [{"record": f"query:{name}", "expr": query} for name, query in answered.items()]
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": recorded}]}))
    promtool_takes(tmp_path / "queries.yml")
