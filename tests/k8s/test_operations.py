"""What an operator does to the release of test_cluster.py: drains its node, misconfigures it, rolls it back, takes it away; and the other ways to
install the chart."""
import concurrent.futures
import os
import subprocess

from chart import CHART, VALUES
from kube import LONG, NODE, NODE_IP, wait_for
from release import MODEL, POOLS, SMALL, Load, Release


def test_a_drain_of_the_node_respects_the_budgets(release, kube, text):
    """One of each two goes, the second waits until the first has a successor; no stream is lost. The router stays: on the only node there is no
    place for another, and a cluster without one admits nothing new (test_cluster.py has its move)."""
    guarded = {"gateway": None} | {pool: pool for pool in POOLS}
    ready = lambda name: release.ready("worker", name) if name in POOLS else release.ready("gateway")
    old = {name: ready(name) for name in guarded}
    with Load(release) as load:
        drain = subprocess.Popen([*kube.enter(), *kube.client(), "drain", NODE, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout",
                                  f"{LONG}s", "--pod-selector", "app.kubernetes.io/component!=router"], text=True, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE)
        try:
            for name in guarded:
                wait_for(f"one of {name} has left", lambda: len(ready(name) & old[name]) == 1)
            load.more(2)
            assert all(len(ready(name) & old[name]) == 1 for name in guarded), "a budget of one did not hold"
            kube.kubectl("uncordon", NODE)
            _, said = drain.communicate(timeout=LONG)
        finally:
            drain.kill()
        assert drain.returncode == 0, said
        assert said.count("disruption budget") >= len(guarded), said
        release.rolled("gateway", *POOLS)
        load.more(1)
    assert not any(ready(name) & old[name] for name in guarded)
    assert not load.failed(), load.failed()
    assert load.texts() == {text}


# Pools that cannot start, each for a reason of its own; what their pods must say, and where.
ODD = {
    "odd-device": (["backend=emulated", "device=no-such-chip"], "log", "no-such-chip"),
    "odd-gpu": (["backend=ggml", "ggmlDevice=cuda:0"], "log", "ggml has no 'cuda:0' on this machine"),
    "odd-model": (["volumes[0].name=none,{0}.volumes[0].emptyDir.medium=Memory", "volumeMounts[0].name=none,{0}.volumeMounts[0].mountPath=/usr/share/tandem/models"],
                  "log", f"{MODEL}.gguf"),
    "odd-secret": (["env[0].name=KEY,{0}.env[0].valueFrom.secretKeyRef.name=no-such-secret,{0}.env[0].valueFrom.secretKeyRef.key=key"],
                   "status", 'secret "no-such-secret" not found'),
}


def test_pools_that_cannot_start_say_why_and_the_others_stay_up(release, text):
    flags = []
    for pool, (settings, _, _) in ODD.items():
        for setting in ["stages={ffn}", "replicas=1", *settings]:
            flags += ["--set", f"pools.{pool}." + setting.replace("{0}", f"pools.{pool}")]
    well = lambda: release.lives("gateway") | release.lives("router") | release.lives("worker")
    before = well()
    release.upgrade("--reuse-values", *flags, wait=False)

    def status(pool):
        return [state for pod in release.pods("worker", pool).values() for state in pod["status"].get("containerStatuses", ())]

    def says(pool, where, what):
        if where == "status":
            return any(what in state["state"].get("waiting", {}).get("message", "") for state in status(pool))
        return what in release.kubectl("logs", "-l", f"tandem/pool={pool}", "--tail=-1", check=False).stdout and any(
            state["restartCount"] for state in status(pool))
    for pool, (_, where, what) in ODD.items():
        wait_for(f"the {where} of {pool} says {what}", lambda: says(pool, where, what))
    with Load(release, clients=1) as load:
        load.more(1)
    assert not load.failed() and load.texts() == {text}
    assert before <= well(), "a pod that was well is gone, or has started again"


def test_a_rollback_brings_the_first_revision_back(release, text):
    with Load(release) as load:
        release.rollback("1")
        release.settled()
        load.more(2)
    assert not [pool for pool in ODD if release.pods("worker", pool)]
    assert not load.failed(), load.failed()
    assert load.texts() == {text}


def test_uninstall_leaves_nothing(release, kube):
    release.uninstall()
    kinds = release.kubectl("api-resources", "--verbs=list", "--namespaced", "-o", "name").stdout.split()
    left = lambda: [item["metadata"]["name"] for item in release.get(",".join(kinds))["items"] if "tandem" in item["metadata"]["name"]
                    and item["kind"] not in ("Event",)]
    wait_for("nothing with the release's name is left", lambda: not left())
    print(f"{kube.seconds():.0f} s: uninstalled")


def preset_answers(kube, values):
    name = "preset-" + (values or "values-default.yaml").removeprefix("values-").removesuffix(".yaml")
    kube.make_namespace(name)
    preset = Release(kube, namespace=name, values=CHART / (values or "values.yaml"))
    preset.install(*SMALL)
    preset.test()
    print(f"{kube.seconds():.0f} s: {name} answers")
    preset.uninstall(wait=False)  # makes room for the others
    return name


def downloaded_model_answers(kube):
    """And one whose sum is wrong does not start."""
    folder = os.path.dirname(os.environ.get("TANDEM_MODEL") or os.path.expanduser(f"~/.cache/tandem/models/{MODEL}.gguf"))
    server = subprocess.Popen([*kube.enter(), "/usr/bin/python3", "-m", "http.server", "--bind", NODE_IP, "--directory", folder, "8000"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        kube.make_namespace("download")
        release = Release(kube, namespace="download", values=CHART / "values-colocated.yaml")
        sha256 = subprocess.run(["sha256sum", f"{folder}/{MODEL}.gguf"], capture_output=True, text=True, check=True).stdout.split()[0]
        flags = [*SMALL, "--set", "pools.colocated.replicas=1", "--set", "model.source=download", "--set",
                 "model.download.image=localhost/toolbox:1", "--set", f"model.download.url=http://{NODE_IP}:8000/{MODEL}.gguf"]
        wrong = "0" * 64
        release.install(*flags, "--set-string", f"model.download.sha256={wrong}", wait=False)
        wait_for("the pod says that the sum is wrong", lambda: f"its sha256 is {sha256}, not {wrong}" in release.kubectl(
            "logs", "-l", "app.kubernetes.io/component=gateway", "-c", "model", check=False).stdout)
        release.upgrade(*flags, "--set-string", f"model.download.sha256={sha256}")
        with Load(release, clients=1) as load:
            load.more(1)
        assert not load.failed(), load.failed()
        print(f"{kube.seconds():.0f} s: a downloaded model answers")
        release.uninstall(wait=False)
        return "download"
    finally:
        server.kill()
        server.wait()


def test_every_preset_and_a_downloaded_model_come_up_and_answer(kube):
    """Each values file but the one that asks for GPUs, with its emulated devices, in a restricted namespace of its own, all at once."""
    presets = [values for values in VALUES if values != "values-cuda.yaml"]
    assert len(presets) == 5
    with concurrent.futures.ThreadPoolExecutor(len(presets) + 1) as pool:
        tried = [pool.submit(downloaded_model_answers, kube), *(pool.submit(preset_answers, kube, values) for values in presets)]
        assert len({one.result() for one in tried}) == 6
