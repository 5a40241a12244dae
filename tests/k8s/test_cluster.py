"""The chart on a real Kubernetes: kubelet, containerd, kube-proxy and pods on this machine, the real small model, the official client.

The tests are one story and run in this order; each leaves the release serving.
"""
import json
import os
import subprocess
import time

import pytest
import yaml

from chart import CHART
from kube import LONG, NODE, NODE_IP, SOURCE, Kube, left_over, settings, wait_for
from release import MODEL, Load, Release

RESTRICTED = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "serving", "labels": {
    "pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "latest"}}}
POOLS = ["prefill", "attention", "ffn"]


@pytest.fixture(scope="module")
def kube(tmp_path_factory):
    build = os.environ.get("TANDEM_BINARY_DIR", SOURCE / "build" / "dev")
    cluster, before = Kube(), settings()
    try:
        cluster.up()
        print(f"\n{cluster.seconds():.0f} s: the node is Ready")
        archive = tmp_path_factory.mktemp("image") / "tandem.tar"
        subprocess.run([SOURCE / "deploy/images/build.sh", "--build-dir", build, "--output", archive, "--import"], check=True,
                       env=os.environ | {"CONTAINERD_ADDRESS": str(cluster.cri)})
        cluster.apply(RESTRICTED)
        print(f"{cluster.seconds():.0f} s: the image is there")
        yield cluster
    finally:
        if os.environ.get("TANDEM_E2E_KEEP"):
            print(f"kept: {cluster.folder}")
        cluster.down(keep_logs="TANDEM_E2E_KEEP" in os.environ)
    assert settings() == before, "the machine's own settings were changed"
    assert not left_over()


@pytest.fixture(scope="module")
def release(kube):
    release = Release(kube)
    said = release.install()
    assert "violate" not in said.stderr, said.stderr  # PodSecurity's warnings
    print(f"{kube.seconds():.0f} s: the release is installed and ready")
    return release


@pytest.fixture(scope="module")
def text(release):
    """What every whole stream must say, whoever computes it."""
    with Load(release, clients=1) as load:
        load.more(1)
    assert not load.failed(), load.failed()
    assert len(load.texts()) == 1
    return next(iter(load.texts()))


def test_the_server_takes_every_object_strictly(kube):
    for values in sorted(CHART.glob("values*.yaml")):
        # A dry run makes no account that its pod could be held against.
        manifests = kube.helm("template", "dry", CHART, "--namespace", "serving", "--values", values, "--set", "serviceAccount.create=false").stdout
        kube.kubectl("--namespace", "serving", "apply", "--dry-run=server", "--validate=strict", "-f", "-", input=manifests)


def test_install_brings_up_every_pool(release):
    workers = release.status()["workers"]
    assert sorted(worker["pool"] for worker in workers) == sorted(POOLS * 2)
    assert {worker["id"] for worker in workers} == {name for pool in POOLS for name in release.ready("worker", pool)}
    assert len(release.ready("gateway")) == 2 and len(release.ready("router")) == 1


def test_no_container_has_been_started_twice(release):
    restarts = {name: pod["status"]["containerStatuses"][0]["restartCount"] for name, pod in release.all_pods().items()}
    assert set(restarts.values()) == {0}, restarts


def test_helm_test_asks_through_the_service_and_goes(release, kube):
    said = kube.helm("test", release.name, "--namespace", release.namespace).stdout
    assert "Phase:          Succeeded" in said, said
    assert "tandem-test" not in release.all_pods()


def test_the_command_of_the_notes_shows_a_step(release):
    said = release.kubectl("exec", "deployment/tandem-router", "--", "tandemctl", "explain", "--prompt", "The capital of France is", "--gateway",
                           "tandem:80").stdout
    assert '" Paris' in said and "tandem-attention-" in said and "tandem-ffn-" in said, said


def test_the_official_client_streams_through_the_service(release, text):
    with Load(release, clients=2) as load:
        load.more(4)
    assert not load.failed(), load.failed()
    assert load.texts() == {text}
    for record in load.whole():
        stages = {stage["stage"]: stage["worker"] for stage in record["tandem"]["stages"]}
        assert {stage: worker.rsplit("-", 2)[0] for stage, worker in stages.items()} == {pool: f"tandem-{pool}" for pool in POOLS}
        assert len(set(stages.values())) == 3, "one pod ran several stages"


def test_scaling_up_and_down_under_load_loses_no_stream(release, text):
    with Load(release) as load:
        for replicas in (3, 2):
            for pool in POOLS:
                release.kubectl("scale", f"deployment/tandem-{pool}", f"--replicas={replicas}")
            release.rolled(*POOLS)
            release.settled()
            load.more(3)
    assert not load.failed(), load.failed()
    assert load.texts() == {text}


def test_a_rolling_upgrade_under_load_loses_no_stream(release, text):
    old = set(release.pods("worker")) | set(release.pods("gateway"))
    with Load(release) as load:
        release.upgrade("--set", "poolDefaults.podAnnotations.roll=a", "--set", "gateway.podAnnotations.roll=a")
        release.settled()
        load.more(3)
    assert not old & (set(release.pods("worker")) | set(release.pods("gateway"))), "a pod was not rolled"
    assert not load.failed(), load.failed()
    assert load.texts() == {text}


def test_a_new_router_touches_no_stream_that_decodes(release, text):
    """What is asked for in the moment without one gets an honest 503."""
    with Load(release) as load:
        old = set(release.pods("router"))
        release.kubectl("rollout", "restart", "deployment/tandem-router")
        release.rolled("router")
        wait_for("the old router is gone", lambda: not old & set(release.all_pods()))
        load.more(4)
    refused = [record for record in load.records if record["error"] and record["ttft"] is None]
    assert len(load.failed()) == len(refused), load.failed()
    assert {record["status"] for record in refused} <= {503}, refused
    gap = max(record["ended"] for record in refused) - min(record["ended"] for record in refused) if refused else 0
    print(f"router rolled: {len(load.whole())} streams whole, {len(refused)} answered 503 within {gap:.1f} s: "
          f"{sorted({record['error'] for record in refused})}")
    assert load.texts() == {text}


def test_a_router_that_cannot_start_changes_nothing(release, kube, text):
    (old,) = release.ready("router")
    release.upgrade("--set", "poolDefaults.podAnnotations.roll=a", "--set", "gateway.podAnnotations.roll=a", "--set",
                    "router.args.max-workers=0", wait=False)
    new = lambda: [pod for name, pod in release.pods("router").items() if name != old]
    wait_for("the new one has ended", lambda: any(pod["status"].get("containerStatuses", [{}])[0].get("restartCount") for pod in new()))
    said = release.kubectl("logs", new()[0]["metadata"]["name"], "--previous").stdout
    assert "max-workers" in said, said
    with Load(release, clients=1) as load:
        load.more(2)
    assert not load.failed() and load.texts() == {text}
    assert release.ready("router") == {old}
    kube.helm("rollback", release.name, "--namespace", release.namespace, "--wait", "--timeout", f"{LONG}s")


def decoding(release):
    """Attention workers that hold a sequence."""
    return [worker["id"] for worker in release.status()["workers"] if worker["pool"] == "attention" and worker["sequences"]]


def delete_by_force(release, pod):
    """The object is gone at once; the kubelet gives the process two seconds from SIGTERM."""
    release.kubectl("delete", "pod", pod, "--force", "--grace-period=0")


def kill(release, pod):
    """SIGKILL, as the kernel does when memory is out; the container starts again in its pod."""
    container = release.pods("worker")[pod]["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    release.kube.run("ctr", "--address", release.kube.cri, "--namespace", "k8s.io", "task", "kill", "--signal", "SIGKILL", container)


def lives(release, pool):
    """(pod, restarts) of the pool's ready pods: what changes when one of them has died."""
    pods = release.pods("worker", pool)
    return {(name, pods[name]["status"]["containerStatuses"][0]["restartCount"]) for name in release.ready("worker", pool) if name in pods}


@pytest.mark.parametrize("end", [delete_by_force, kill], ids=lambda end: end.__name__)
def test_the_loss_of_a_worker_that_decodes_costs_honest_errors_at_most(release, text, end):
    with Load(release, clients=4) as load:
        victim = wait_for("a stream decodes", lambda: decoding(release))[0]
        before, asked = lives(release, "attention"), len(load.records)
        end(release, victim)
        died, at = time.monotonic(), time.time()
        wait_for("a stream that ended after it", lambda: [record for record in load.whole() if record["ended"] > at])
        served = time.monotonic() - died
        wait_for("the pool has two again", lambda: len(lives(release, "attention") - {life for life in before if life[0] == victim}) == 2)
        healed = time.monotonic() - died
        load.more(4)
    print(f"attention worker, {end.__name__}: next stream whole after {served:.1f} s, the pool whole after {healed:.1f} s, "
          f"{len(load.failed())} of {len(load.records) - asked} streams failed: {[record['error'] for record in load.failed()]}")
    for record in load.failed():
        assert record["error"], record
        assert text.startswith(record["text"]), "a token that was sent is not one that the whole answer has"
    assert load.texts() == {text}


@pytest.mark.parametrize("end", [delete_by_force, kill], ids=lambda end: end.__name__)
def test_a_pool_of_one_pauses_its_streams(release, text, end):
    release.kubectl("scale", "deployment/tandem-ffn", "--replicas=1")
    release.rolled("ffn")
    release.settled()
    with Load(release) as load:
        wait_for("a stream decodes", lambda: decoding(release))
        before = lives(release, "ffn")
        ((victim, _),) = before
        end(release, victim)
        wait_for("the pool has one again", lambda: lives(release, "ffn") - before)
        load.more(4)
    pause = max(record["longest_gap"] for record in load.whole())
    print(f"the only FFN worker, {end.__name__}: streams paused for {pause:.1f} s, {len(load.failed())} of {len(load.records)} failed: "
          f"{[(record['status'], record['error']) for record in load.failed()]}")
    for record in load.failed():
        assert record["error"], record
        assert text.startswith(record["text"])
    assert load.texts() == {text}
    release.kubectl("scale", "deployment/tandem-ffn", "--replicas=2")
    release.rolled("ffn")


@pytest.mark.parametrize("pool", POOLS)
def test_an_eviction_leaves_one_of_two(release, pool):
    """What `kubectl drain` asks for, pod by pod."""
    def evict(pod):
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": release.namespace}}
        return release.kubectl("create", "--raw", f"/api/v1/namespaces/{release.namespace}/pods/{pod}/eviction", "-f", "-",
                               input=json.dumps(eviction), check=False)
    budget = lambda: release.get("pdb", f"tandem-{pool}")["status"]
    wait_for("the budget has seen both", lambda: budget()["disruptionsAllowed"] >= 1)
    first, second = sorted(release.ready("worker", pool))
    assert evict(first).returncode == 0
    refused = evict(second)
    assert refused.returncode != 0 and "disruption budget" in refused.stderr, refused
    release.settled()
    release.rolled(pool)
    assert len(release.ready("worker", pool)) == 2


def test_a_pool_that_cannot_start_says_why_and_the_others_stay_up(release, text):
    values = ["--set", "poolDefaults.podAnnotations.roll=a", "--set", "gateway.podAnnotations.roll=a", "--set", "pools.odd.stages={ffn}",
              "--set", "pools.odd.replicas=1", "--set", "pools.odd.backend=emulated", "--set", "pools.odd.device=no-such-chip"]
    release.upgrade(*values, wait=False)
    logs = lambda: release.kubectl("logs", "-l", "tandem/pool=odd", check=False).stdout
    wait_for("its log names the device", lambda: "no-such-chip" in logs())
    pod = lambda: next(iter(release.pods("worker", "odd").values()))
    wait_for("its status says that it failed", lambda: pod()["status"]["containerStatuses"][0]["restartCount"] > 0)
    assert all(len(release.ready("worker", pool)) == 2 for pool in POOLS)
    with Load(release, clients=1) as load:
        load.more(1)
    assert not load.failed() and load.texts() == {text}


def test_a_rollback_brings_the_first_revision_back(release, kube, text):
    with Load(release) as load:
        kube.helm("rollback", release.name, "1", "--namespace", release.namespace, "--wait", "--timeout", f"{LONG}s")
        release.settled()
        load.more(3)
    assert not release.pods("worker", "odd")
    assert not load.failed(), load.failed()
    assert load.texts() == {text}


def test_every_pod_serves_its_metrics_where_a_podmonitor_looks(release, kube):
    expected = {"gateway": "tandem_gateway_requests_total", "router": "tandem_router_cluster_ready 1", "worker": "tandem_stage_seconds_total"}
    for component, metric in expected.items():
        for name, pod in release.pods(component).items():
            (port,) = [port["containerPort"] for port in pod["spec"]["containers"][0]["ports"] if port["name"] == "metrics"]
            page = kube.run("curl", "--silent", "--fail", f"http://{pod['status']['podIP']}:{port}/metrics").stdout
            assert metric in page, (name, page[:500])


def test_the_charts_own_requests_are_enough(release, kube):
    """These pods have been asked harder than a first try asks."""
    summary = json.loads(kube.kubectl("get", "--raw", f"/api/v1/nodes/{NODE}/proxy/stats/summary").stdout)
    used = {pod["podRef"]["name"]: pod["memory"]["workingSetBytes"] / 2**20 for pod in summary["pods"] if pod["podRef"]["name"] in release.all_pods()}
    print("working sets, MiB:", {name: round(value) for name, value in sorted(used.items())})
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    limits = {component: defaults[component]["resources"]["limits"]["memory"] for component in ("gateway", "router", "poolDefaults")}
    assert limits == {"gateway": "512Mi", "router": "256Mi", "poolDefaults": "1Gi"}
    for name, value in used.items():
        assert value < (512 if "gateway" in name else 256 if "router" in name else 1024), used


def test_a_model_is_downloaded_and_its_sum_checked(kube, release):
    folder = os.path.dirname(os.environ.get("TANDEM_MODEL") or os.path.expanduser(f"~/.cache/tandem/models/{MODEL}.gguf"))
    server = subprocess.Popen([*kube.enter(), "/usr/bin/python3", "-m", "http.server", "--bind", NODE_IP, "--directory", folder, "8000"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        second = Release(kube, name="second")
        sha256 = subprocess.run(["sha256sum", f"{folder}/{MODEL}.gguf"], capture_output=True, text=True, check=True).stdout.split()[0]
        one_pool = ["--values", CHART / "values-colocated.yaml", "--set", "pools.colocated.replicas=1", "--set", "gateway.replicas=1",
                    "--set", "model.source=download", "--set", "model.download.image=localhost/toolbox:1",
                    "--set", f"model.download.url=http://{NODE_IP}:8000/{MODEL}.gguf"]
        wrong = "0" * 64
        second.install(*one_pool, "--set-string", f"model.download.sha256={wrong}", wait=False)
        wait_for("the pod says that the sum is wrong", lambda: f"its sha256 is {sha256}, not {wrong}" in second.kubectl(
            "logs", "-l", "app.kubernetes.io/instance=second,app.kubernetes.io/component=gateway", "-c", "model", check=False).stdout)
        second.upgrade(*one_pool, "--set-string", f"model.download.sha256={sha256}")
        with Load(second, clients=1) as load:
            load.more(1)
        assert not load.failed(), load.failed()
        kube.helm("uninstall", "second", "--namespace", "serving", "--wait", "--timeout", f"{LONG}s")
    finally:
        server.kill()
        server.wait()


def test_uninstall_leaves_nothing(release, kube):
    kube.helm("uninstall", release.name, "--namespace", release.namespace, "--wait", "--timeout", f"{LONG}s")
    kinds = release.kubectl("api-resources", "--verbs=list", "--namespaced", "-o", "name").stdout.split()
    left = lambda: [item["metadata"]["name"] for item in release.get(",".join(kinds))["items"] if "tandem" in item["metadata"]["name"]
                    and item["kind"] not in ("Event",)]
    wait_for("nothing with the release's name is left", lambda: not left())
    print(f"{kube.seconds():.0f} s: uninstalled")
