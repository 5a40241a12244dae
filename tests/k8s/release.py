"""One release of the chart in the cluster of kube.py, and a load on it."""
import json
import pathlib
import re
import subprocess
import sys
import threading

from chart import CHART
from kube import LONG, is_ready, wait_for

HERE = pathlib.Path(__file__).resolve().parent
MODEL = "SmolLM2-135M-Instruct.Q4_1"
WAIT = ["--wait", "--timeout", f"{LONG}s"]
POOLS = ["prefill", "attention", "ffn"]   # of the chart as it stands
# In the place of a node each: so little that several fit on one with two cores.
SMALL = ["--set", "gateway.replicas=1"] + [
    flag for owner in ("gateway", "router", "poolDefaults") for flag in ("--set", f"{owner}.resources.requests.cpu=10m,{owner}.resources.requests.memory=64Mi")]


class Release:
    def __init__(self, kube, name="tandem", namespace="serving", values=HERE / "values.yaml"):
        self.kube, self.name, self.namespace, self.values = kube, name, namespace, values
        self.full = name if "tandem" in name else f"{name}-tandem"  # as the chart names its objects

    def _helm(self, command, *more, **options):
        return self.kube.helm(command, self.name, *more, "--namespace", self.namespace, **options)

    def _roll(self, command, *more, wait=True):
        said = self._helm(command, *more)
        if wait:  # not Helm's: that looks every two seconds, and is content when all but maxUnavailable pods of a pool are ready
            self.kubectl("rollout", "status", "deployment", "--selector", f"app.kubernetes.io/instance={self.name}", f"--timeout={LONG}s")
        return said

    def install(self, *more, wait=True):
        return self._roll("install", CHART, "--values", self.values, *more, *(WAIT if wait else ()), wait=wait)

    def upgrade(self, *more, **options):
        return self._roll("upgrade", CHART, "--values", self.values, *more, **options)

    def rollback(self, *revision):
        """To the revision before, or to one that is named."""
        return self._roll("rollback", *revision)

    def test(self):
        """`helm test`; what its pod said, where that was not what it hoped for."""
        said = self._helm("test", "--timeout", f"{LONG}s", check=False).stdout
        assert "Phase:          Succeeded" in said, (said, self.kubectl("logs", f"{self.full}-test", check=False).stdout)

    def uninstall(self, wait=True):
        return self._helm("uninstall", *(WAIT if wait else ()))

    def kubectl(self, *argv, **options):
        return self.kube.kubectl("--namespace", self.namespace, *argv, **options)

    def get(self, *argv):
        return self.kube.get("--namespace", self.namespace, *argv)

    def _pods(self, **labels):
        labels = {"app.kubernetes.io/instance": self.name} | labels
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        listed = self.kube.ask(f"/api/v1/namespaces/{self.namespace}/pods", labelSelector=selector)
        return {pod["metadata"]["name"]: pod for pod in listed["items"]}

    def pods(self, component, pool=None):
        """Those that nobody deletes yet: name to pod."""
        found = self._pods(**{"app.kubernetes.io/component": component}, **({"tandem/pool": pool} if pool else {}))
        return {name: pod for name, pod in found.items() if "deletionTimestamp" not in pod["metadata"]}

    def all_pods(self):
        return self._pods()

    def ready(self, component, pool=None):
        return {name for name, pod in self.pods(component, pool).items() if is_ready(pod)}

    def lives(self, component="worker", pool=None):
        """(pod, restarts) of ready pods: what changes when one of them has died."""
        return {(name, pod["status"]["containerStatuses"][0]["restartCount"]) for name, pod in self.pods(component, pool).items() if is_ready(pod)}

    def metric(self, name, component=None, pool=None):
        """Pod to the sum of its series of that name, asked of each pod itself: of all, of a component, or of one's pool."""
        def of(pod):
            (port,) = [port["containerPort"] for port in pod["spec"]["containers"][0]["ports"] if port["name"] == "metrics"]
            said = self.kube.run("curl", "--silent", "--show-error", "--fail", f"http://{pod['status']['podIP']}:{port}/metrics").stdout
            values = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", said, re.MULTILINE)
            assert values, f"{pod['metadata']['name']} has no {name}"
            return sum(map(float, values))
        return {name: of(pod) for name, pod in (self.pods(component, pool) if component else self.all_pods()).items()}

    def rolled(self, *names):
        for name in names:
            self.kubectl("rollout", "status", f"deployment/{self.full}-{name}", f"--timeout={LONG}s")

    def settled(self):
        """No pod of an old life is left."""
        wait_for("pods that were told to go are gone", lambda: all("deletionTimestamp" not in pod["metadata"] for pod in self.all_pods().values()))

    def status(self):
        """The cluster as its router knows it."""
        return json.loads(self.kubectl("exec", f"deployment/{self.full}-router", "--", "tandemctl", "status", "--json").stdout)

    def url(self):
        service = self.get("service", self.full)
        return f"http://{service['spec']['clusterIP']}:{service['spec']['ports'][0]['port']}/v1"


class Load:
    """Streams of client.py while it is entered, from when every client has its first token; `records` grows as they end, `tokens` tells how far each
    client's present one is, to within 32. Then they go on to their end, or are left as they are."""

    def __init__(self, release, clients=3, max_tokens=24, streams=None, leave=False):
        self.records, self.tokens, self._clients = [], {}, clients
        command = [sys.executable, HERE / "client.py", release.url(), MODEL, "--clients", clients, "--max-tokens", max_tokens,
                   *(["--streams", streams] if streams else []), *(["--leave"] if leave else [])]
        self._process = subprocess.Popen([*release.kube.enter(), *map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)

    def _read(self):
        for line in self._process.stdout:
            said = json.loads(line)
            if "tokens" in said:
                self.tokens[said["client"]] = said["tokens"]
            else:
                self.records.append(said)

    def __enter__(self):
        self._reader.start()
        try:
            self._until("every client streams", lambda: len(self.tokens) == self._clients)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._reader.join(LONG)
        self._process.wait(LONG)

    def more(self, count):
        """Waits until so many more streams have ended whole."""
        wanted = len(self.whole()) + count
        self._until(f"{count} more streams", lambda: len(self.whole()) >= wanted)

    def go_on(self):
        """Waits until every client's stream has come further than it is, or ended."""
        seen = dict(self.tokens)
        ended = lambda: {record["client"] for record in list(self.records)}
        self._until("every stream goes on", lambda: all(self.tokens[client] > seen[client] for client in seen.keys() - ended()))

    def _until(self, what, condition):
        def happened():
            assert not self._process.poll(), f"client.py: exit {self._process.poll()}"
            return condition()
        wait_for(what, happened)

    def whole(self):
        return [record for record in list(self.records) if record["done"] and not record["error"]]

    def failed(self):
        return [{key: record[key] for key in ("status", "error", "text", "ttft")} for record in list(self.records)
                if record["error"] or not (record["done"] or record["left"])]

    def texts(self):
        return {record["text"] for record in self.whole()}
