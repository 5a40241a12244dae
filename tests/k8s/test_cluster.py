"""The chart on a real Kubernetes: kubelet, containerd, kube-proxy and pods on this machine, the real small model, the official client.

The tests are one story and run in this order; each leaves the release serving. It goes on in test_watching.py and test_operations.py, in
the same cluster.
"""
import time

import pytest

from chart import CHART
from kube import LONG, wait_for
from release import POOLS, Load


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


def test_helm_test_asks_through_the_service_and_goes(release):
    release.test()
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
    """Nor one that lasts longer than a gateway's preStop."""
    old = set(release.pods("worker")) | set(release.pods("gateway"))
    with Load(release, clients=1, max_tokens=600, streams=1) as long, Load(release, clients=2) as load:
        release.upgrade("--set", "poolDefaults.podAnnotations.roll=a", "--set", "gateway.podAnnotations.roll=a")
        release.settled()
        load.more(3)
    assert not old & (set(release.pods("worker")) | set(release.pods("gateway"))), "a pod was not rolled"
    assert not load.failed() and not long.failed(), (load.failed(), long.failed())
    assert load.texts() == {text} and len(long.texts()) == 1 and next(iter(long.texts())).startswith(text)
    print(f"a stream of 600 tokens took {long.whole()[0]['seconds']:.0f} s")


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
    try:
        wait_for("the new one has ended", lambda: any(pod["status"].get("containerStatuses", [{}])[0].get("restartCount") for pod in new()))
        # The container before the last may be gone already.
        wait_for("its log says which flag", lambda: "max-workers" in release.kubectl("logs", new()[0]["metadata"]["name"], "--previous",
                                                                                    check=False).stdout)
        with Load(release, clients=1) as load:
            load.more(2)
        assert not load.failed() and load.texts() == {text}
        assert release.ready("router") == {old}
    finally:
        release.rollback()  # or every test after it waits for a release that is whole


def decoding(release):
    """Attention workers that hold a sequence, by their own account: theirs is older by no `kubectl exec`, in which a stream may end."""
    return [name for name, held in release.metric("tandem_worker_sequences", "worker", "attention").items() if held]


def delete_by_force(release, pod):
    """The object is gone at once; the kubelet gives the process two seconds from SIGTERM."""
    release.kubectl("delete", "pod", pod, "--force", "--grace-period=0")


def kill(release, pod):
    """SIGKILL, as the kernel does when memory is out; the container starts again in its pod."""
    container = release.pods("worker")[pod]["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    release.kube.run("ctr", "--address", release.kube.cri, "--namespace", "k8s.io", "task", "kill", "--signal", "SIGKILL", container)


@pytest.mark.parametrize("end", [delete_by_force, kill], ids=lambda end: end.__name__)
def test_the_loss_of_a_worker_that_decodes_costs_honest_errors_at_most(release, text, end):
    """Two streams outlast it, wherever they are; whoever goes on with a cut one writes what the other has."""
    cut = lambda: sum(release.metric("tandem_gateway_resumes_total", component="gateway").values())
    wait_for("the streams before are over, to the router too", lambda: not any(worker["sequences"] for worker in release.status()["workers"]))
    before, cut_before = release.lives(pool="attention"), cut()
    with Load(release, clients=2, max_tokens=1500, streams=1, leave=True) as held:
        victim = wait_for("a worker decodes one", lambda: decoding(release))[0]
        end(release, victim)
        died = time.monotonic()
        with Load(release, clients=2) as load:
            load.more(1)
            served = time.monotonic() - died
            wait_for("the pool has two again", lambda: len(release.lives(pool="attention") - {life for life in before if life[0] == victim}) == 2)
            healed = time.monotonic() - died
            load.more(4)
        wait_for("what it held is cut", lambda: cut() > cut_before or held.records)
        held.go_on()
    failed, cuts = load.failed() + held.failed(), cut() - cut_before
    print(f"attention worker, {end.__name__}: a new stream whole after {served:.1f} s, the pool whole after {healed:.1f} s, {cuts:.0f} streams cut, "
          f"the longest pause {max(record['longest_gap'] for record in held.records):.1f} s, "
          f"{len(failed)} of {len(load.records) + 2} failed: {[record['error'] for record in failed]}")
    assert cuts or held.failed(), f"{victim} held no stream when it went, so nothing was tried"
    longest = max([text] + [record["text"] for record in held.records], key=len)
    for record in failed:
        assert record["error"], record
    for record in held.records + load.records:
        assert longest.startswith(record["text"]) and (record["text"] or record["error"]), "a token that was sent is not one that the other answer has"
    assert load.texts() == {text} and longest.startswith(text)


@pytest.fixture(scope="module")
def one_ffn_worker(release):
    def scale(replicas):
        release.kubectl("scale", "deployment/tandem-ffn", f"--replicas={replicas}")
        release.rolled("ffn")
    scale(1)
    release.settled()
    yield
    scale(2)


@pytest.mark.parametrize("end", [delete_by_force, kill], ids=lambda end: end.__name__)
def test_a_pool_of_one_pauses_its_streams(release, text, one_ffn_worker, end):
    with Load(release) as load:
        wait_for("a stream decodes", lambda: decoding(release))
        before = release.lives(pool="ffn")
        ((victim, _),) = before
        end(release, victim)
        wait_for("the pool has one again", lambda: release.lives(pool="ffn") - before)
        load.more(4)
    pause = max(record["longest_gap"] for record in load.whole())
    print(f"the only FFN worker, {end.__name__}: streams paused for {pause:.1f} s, {len(load.failed())} of {len(load.records)} failed: "
          f"{[(record['status'], record['error']) for record in load.failed()]}")
    assert not load.failed(), load.failed()
    assert load.texts() == {text}
