"""Pools that hold every GPU there is, on nodes that KWOK plays: real control plane, real scheduler, no container. What this proves is placing and
rolling; probes, traffic and drain are test_cluster.py's."""
import collections
import json
import contextlib

import pytest

from chart import CHART
from kube import Kube, is_ready, wait_for
from release import Release

NODES, GPUS = 8, 8   # a node
POOLS = {"prefill": 32, "decode": 32}
ZONE, HOST = "topology.kubernetes.io/zone", "kubernetes.io/hostname"


def node(name, gpus, zone):
    gpu = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    room = {"cpu": "96", "memory": "1Ti", "pods": "110"} | gpu
    return {"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "annotations": {"kwok.x-k8s.io/node": "fake"},
                         "labels": {HOST: name, ZONE: zone} | ({"nvidia.com/gpu.present": "true"} if gpus else {})},
            "spec": {"taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]} if gpus else {},
            "status": {"allocatable": room, "capacity": room}}


# What values-cuda.yaml finds on a cluster of GPUs: nodes with the vendor's label and taint, its runtime class, a volume with the model.
CLUSTER = [
    *(node(f"gpu-{number}", GPUS, "zone-small" if number < 2 else "zone-large") for number in range(NODES)), node("cpu-0", 0, "zone-small"),
    {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}, "handler": "nvidia"},
    {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "model"},
     "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadOnlyMany"], "storageClassName": "", "claimRef":
              {"namespace": "default", "name": "tandem-model"}, "nfs": {"server": "127.0.0.1", "path": "/"}}},
    {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "tandem-model", "namespace": "default"},
     "spec": {"accessModes": ["ReadOnlyMany"], "storageClassName": "", "volumeName": "model", "resources": {"requests": {"storage": "1Gi"}}}}]
FULL = [flag for pool, replicas in POOLS.items() for flag in ("--set", f"pools.{pool}.replicas={replicas}")]


@pytest.fixture(scope="module")
def kube():
    cluster = Kube()
    try:
        cluster.up_without_kubelet()
        cluster.apply(*CLUSTER)
        wait_for("every node is Ready", lambda: all(map(is_ready, cluster.ask("/api/v1/nodes")["items"])))
        print(f"\n{cluster.seconds():.0f} s: {NODES * GPUS} GPUs on {NODES} nodes")
        yield cluster
    finally:
        cluster.down()


@pytest.fixture(scope="module")
def release(kube):
    release = Release(kube, namespace="default", values=CHART / "values-cuda.yaml")
    release.install(*FULL)
    print(f"{kube.seconds():.0f} s: installed")
    return release


def places(release, pool, key):
    """How many of the pool's pods are where."""
    where = {node["metadata"]["name"]: node["metadata"]["labels"][key] for node in release.kube.get("nodes")["items"]}
    return collections.Counter(where[pod["spec"]["nodeName"]] for pod in release.pods("worker", pool).values())


def test_the_pools_hold_every_gpu(release):
    held = collections.Counter()
    for pool, replicas in POOLS.items():
        assert len(release.ready("worker", pool)) == replicas
        held += places(release, pool, HOST)
    assert held == {f"gpu-{number}": GPUS for number in range(NODES)}


def test_gateways_and_router_stay_off_the_gpu_nodes(release):
    for component in ("gateway", "router"):
        assert {pod["spec"]["nodeName"] for pod in release.pods(component).values()} == {"cpu-0"}


def test_a_full_pool_rolls(release, kube):
    old = {pool: set(release.pods("worker", pool)) for pool in POOLS}
    began = kube.seconds()
    release.upgrade(*FULL, "--set", "poolDefaults.podAnnotations.roll=a")
    print(f"{sum(POOLS.values())} pods that hold every GPU rolled in {kube.seconds() - began:.0f} s")
    for pool, replicas in POOLS.items():
        assert len(release.ready("worker", pool)) == replicas and not old[pool] & set(release.pods("worker", pool))


def test_with_a_surge_it_would_wait_for_ever(release):
    """Why the chart adds no pod to a pool of devices."""
    release.upgrade(*FULL, "--set", "poolDefaults.podAnnotations.roll=b,poolDefaults.strategy.type=RollingUpdate,"
                    "poolDefaults.strategy.rollingUpdate.maxSurge=1,poolDefaults.strategy.rollingUpdate.maxUnavailable=0", wait=False)

    def waits(pod):
        return any("Insufficient nvidia.com/gpu" in condition.get("message", "") for condition in pod["status"].get("conditions", ()))
    for pool, replicas in POOLS.items():
        wait_for(f"a pod of {pool} that no node has a GPU for", lambda: any(map(waits, release.pods("worker", pool).values())))
        assert len(release.ready("worker", pool)) == replicas
    release.rollback()
    assert all(len(release.ready("worker", pool)) == replicas for pool, replicas in POOLS.items())


def test_a_drained_node_takes_one_pod_of_a_pool_at_a_time(release, kube):
    """PodDisruptionBudgets: the pool is full, so what leaves the node has nowhere to go, and the next one must not follow."""
    refused = kube.kubectl("drain", "gpu-0", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=1s", check=False)
    assert refused.returncode != 0 and "disruption budget" in refused.stderr, refused
    for pool, replicas in POOLS.items():
        wait_for(f"one pod of {pool} has left", lambda: len(release.ready("worker", pool)) == replicas - 1)
    kube.kubectl("uncordon", "gpu-0")
    release.rolled(*POOLS)


def test_pools_are_spread_as_declared(release):
    """By default over the nodes, softly; here decode over the zones, strictly: half of it on the two nodes of the small one. Placed from nothing,
    for whom a pool that shrinks gives up is not the chart's to say."""
    release.kubectl("scale", "--replicas=0", *(f"deployment/tandem-{pool}" for pool in POOLS))
    wait_for("both pools are gone", lambda: not release.pods("worker"))
    release.upgrade("--set", f"pools.prefill.replicas={2 * NODES},pools.decode.replicas=15", "--set-json", "pools.decode.topologySpreadConstraints=" + json.dumps(
        [{"topologyKey": ZONE, "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}]))
    assert places(release, "prefill", HOST) == {f"gpu-{number}": 2 for number in range(NODES)}
    assert sorted(places(release, "decode", ZONE).values()) == [7, 8]
