"""A cluster with its Prometheus, a load on it, and what Prometheus says."""
import contextlib
import json
import random
import threading
import urllib.parse
import urllib.request

import requests

import boards
import cluster as clusters

# Prefill, two attention workers and an FFN worker, all emulated; the prefill pool has no price. The objectives lie where some answers
# miss them.
CONFIG = """topology: pd-afd
emulated:
  model_shape: llama-3-70b
  devices: rubin-lpx
  time_scale: {time_scale}
gateway:
  flags: {{slo-ttft-ms: {slo_ttft_ms}, slo-tpot-ms: {slo_tpot_ms}}}
router:
  flags: {{prices: {prices}}}
workers:
  - {{pool: prefill}}
  - {{pool: attention, count: 2}}
  - {{pool: ffn}}
"""
PRICES = {"attention": 40, "ffn": 90}


class Monitored(clusters.Cluster):
    """Started with `local up --monitoring`."""

    def __init__(self, time_scale=16, slo_ttft_ms=60, slo_tpot_ms=6, prices=None):
        super().__init__("pd-afd", model_name="emulated-model", config="", extra=["--monitoring"])
        listed = "".join(f"  - {{pool: {pool}, dollars_per_hour: {price}}}\n"
                         for pool, price in (prices or PRICES).items())
        file = self.state_dir / "prices.yaml"
        file.write_text("prices:\n" + listed)
        (self.state_dir / "cluster.yaml").write_text(CONFIG.format(time_scale=time_scale, slo_ttft_ms=slo_ttft_ms,
                                                                   slo_tpot_ms=slo_tpot_ms, prices=file))

    @property
    def prometheus(self):
        return Prometheus("http://" + self.processes()["prometheus"]["address"])


class Prometheus:
    def __init__(self, url):
        self.url = url

    def fetch(self, url):
        with urllib.request.urlopen(url, timeout=30) as reply:
            return reply.read()

    def get(self, path, **parameters):
        return json.loads(self.fetch(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"))["data"]

    def query(self, expr):
        """[(labels, value)] now."""
        return [(series["metric"], float(series["value"][1])) for series in self.get("query", query=expr)["result"]]

    def series(self, expr, start, end, step=1):
        """[(labels, [(time, value)])]"""
        result = self.get("query_range", query=expr, start=start, end=end, step=step)["result"]
        return [(series["metric"], [(at, float(value)) for at, value in series["values"]]) for series in result]

    def metric_names(self):
        return set(self.get("label/__name__/values"))

    def now(self):
        """By Prometheus' own clock."""
        return float(self.get("query", query="time()")["result"][1])

    def targets(self):
        """Process name to (health, address)."""
        return {target["labels"]["process"]: (target["health"], target["labels"]["instance"])
                for target in self.get("targets", state="active")["activeTargets"]}


def unknown_metrics(prometheus):
    """What a query or rule asks for that nobody exports: metric to who asks."""
    asked = {}
    for name, title, _, expr in boards.queries():
        for metric in boards.metrics_of(expr):
            asked.setdefault(metric, set()).add(f"{name}: {title}")
    for rule in boards.rules():
        for metric in boards.metrics_of(rule["expr"]):
            asked.setdefault(metric, set()).add(rule.get("alert") or rule["record"])
    known = prometheus.metric_names()
    return {metric: who for metric, who in asked.items() if metric not in known}


def rules_not_evaluated(prometheus):
    """Rules that have an error, are not loaded, or are not ours: name to what is wrong."""
    loaded = {rule["name"]: rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]}
    own = {rule.get("alert") or rule["record"] for rule in boards.rules()}
    return {name: rule["lastError"] for name, rule in loaded.items() if rule["health"] != "ok"} | {
        name: "not loaded" if name in own else "not ours" for name in own ^ set(loaded)}


def without_data(prometheus, began, end):
    """(dashboard, panel) of every query without a series in that time."""
    return [(name, title) for name, title, _, expr in boards.queries() if not prometheus.series(expr, began, end)]


class Load:
    """A closed loop of clients: each asks, reads its answer and asks again. Some leave early, some ask for nonsense."""

    def __init__(self, cluster, clients, max_tokens=48, seed=1):
        self._cluster, self._max_tokens = cluster, max_tokens
        self._stop = threading.Event()
        self.finished, self.failed, self.left, self.refused = 0, 0, 0, 0
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._client, args=(random.Random(f"{seed}-{number}"),), daemon=True)
                         for number in range(clients)]

    def _count(self, what):
        with self._lock:
            setattr(self, what, getattr(self, what) + 1)

    def _client(self, chance):
        with requests.Session() as session:
            while not self._stop.is_set():
                with contextlib.suppress(requests.RequestException):
                    self._ask(session, chance)

    def _ask(self, session, chance):
        body = {"model": self._cluster.model_name, "prompt": "word " * chance.randint(1, 300), "ignore_eos": True, "stream": True,
                "max_tokens": chance.randint(8, self._max_tokens)}
        leaves, nonsense = chance.random() < 0.05, chance.random() < 0.05
        if nonsense:
            body["temperature"] = -1
        with session.post(self._cluster.url + "/v1/completions", json=body, stream=True, timeout=120) as reply:
            if reply.status_code != 200:
                self._count("refused" if reply.status_code == 400 else "failed")
                reply.content
                # A cluster that is down answers at once: do not spin.
                return self._stop.wait(0 if reply.status_code == 400 else 0.2)
            for line in reply.iter_lines(chunk_size=1):
                if leaves and line.startswith(b"data:"):
                    return self._count("left")
                if b'"error"' in line:
                    return self._count("failed")
        self._count("finished")

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(clusters.LONG)
