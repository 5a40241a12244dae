"""Monitoring for the cluster of kube.py, made of what a release brings: its PodMonitors say what is scraped, its PrometheusRule what is computed.

In the place of the Prometheus operator, which is not to be had here: Debian's Prometheus, given what the operator would make of those objects.
In the place of prometheus-adapter: metrics_adapter.py, with the rules of deploy/helm/examples. The kinds are known to the API server, as
wherever the operator is installed, so that the chart finds them by itself.
"""
import json
import os
import pathlib
import re
import sys
import threading

import yaml

import kube as kubernetes
from chart import EXAMPLES
from monitored import Prometheus

HERE = pathlib.Path(__file__).resolve().parent
SHIPPED = kubernetes.SOURCE / "deploy/prometheus/prometheus.yml"
ADAPTER_PORT = 6444
EXTERNAL_METRICS = "/apis/external.metrics.k8s.io/v1beta1"
OPERATOR_KINDS = ["PodMonitor", "PrometheusRule"]


def definition(kind):
    """A CustomResourceDefinition that takes any object of the kind: its own schema is the operator's."""
    plural = kind.lower() + "s"
    return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": f"{plural}.monitoring.coreos.com"},
            "spec": {"group": "monitoring.coreos.com", "scope": "Namespaced", "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
                     "versions": [{"name": "v1", "served": True, "storage": True, "schema": {
                         "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}}]}}


def install_kinds(kube):
    kube.apply(*map(definition, OPERATOR_KINDS))
    for kind in OPERATOR_KINDS:
        kube.kubectl("wait", "--for=condition=Established", f"crd/{kind.lower()}s.monitoring.coreos.com", f"--timeout={kubernetes.LONG}s")


def start_adapter(kube):
    """What HPAs ask. It takes the API server seconds to see that it is there."""
    kube.start("metrics-adapter", sys.executable, HERE / "metrics_adapter.py", kubernetes.NODE_IP, ADAPTER_PORT, kube.pki / "api.crt",
               kube.pki / "api.key", "http://127.0.0.1:9090", EXAMPLES / "prometheus-adapter.yaml")
    name = {"name": "metrics-adapter", "namespace": "kube-system"}
    kube.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": name, "spec": {"ports": [{"port": 443, "targetPort": ADAPTER_PORT}]}},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
         "metadata": name | {"labels": {"kubernetes.io/service-name": name["name"]}},
         "ports": [{"name": "", "port": ADAPTER_PORT, "protocol": "TCP"}],
         "endpoints": [{"addresses": [kubernetes.NODE_IP], "conditions": {"ready": True}}]},
        {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1beta1.external.metrics.k8s.io"},
         "spec": {"group": "external.metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
                  "insecureSkipTLSVerify": True, "service": name | {"port": 443}}})


def target(monitor, pod):
    """What Prometheus scrapes of a pod by a PodMonitor, with its labels; nothing for a pod without an address."""
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    if not wanted <= pod["metadata"]["labels"].items() or not pod["status"].get("podIP"):
        return None
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (port,) = [port["containerPort"] for container in pod["spec"]["containers"] for port in container["ports"] if port["name"] == endpoint["port"]]
    meta = {"__meta_kubernetes_pod_name": pod["metadata"]["name"], "__meta_kubernetes_namespace": pod["metadata"]["namespace"]}
    labels = {"namespace": pod["metadata"]["namespace"], "pod": pod["metadata"]["name"], "__metrics_path__": endpoint["path"]}
    for rule in endpoint["relabelings"]:
        assert set(rule) <= {"sourceLabels", "targetLabel", "replacement"}, f"not done here: {rule}"
        source = ";".join(meta[label] for label in rule.get("sourceLabels", ()))
        labels[rule["targetLabel"]] = rule.get("replacement", source)
    return {"targets": [f"{pod['status']['podIP']}:{port}"], "labels": labels}


class Monitoring:
    """Prometheus, and by the adapter the metrics of HPAs, for one namespace. Ends with the cluster."""

    def __init__(self, kube, namespace):
        self._kube, self._namespace = kube, namespace
        self._folder = kube.folder / "prometheus"
        self._folder.mkdir()
        get = lambda kind: kube.get("--namespace", namespace, kind)["items"]
        self._monitors = get("podmonitors")
        (rule,) = get("prometheusrules")
        assert len(self._monitors) == 3, self._monitors
        self._pods = {}
        self._start_prometheus(rule["spec"])
        kubernetes.wait_for("the API server reaches the adapter", self.external_metrics)

    def _start_prometheus(self, rules):
        (self._folder / "rules").mkdir()
        (self._folder / "rules/release.yml").write_text(yaml.safe_dump(rules))
        config = yaml.safe_load(SHIPPED.read_text())
        config["global"] |= {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "2s"}
        (self._folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._write_targets()
        # Debian's Prometheus cannot ask Kubernetes itself; it reads its targets' file again whenever that changes.
        read, write = os.pipe()
        self._kube.start("watch-pods", *self._kube.client(), "--namespace", self._namespace, "get", "pods",
                         "--watch", "--output-watch-events", "-o", "json", stdout=write)
        os.close(write)
        threading.Thread(target=self._follow, args=[os.fdopen(read)], daemon=True).start()
        self._kube.start("prometheus", "prometheus", "--config.file", self._folder / "prometheus.yml", "--storage.tsdb.path", self._folder / "data",
                         "--web.listen-address", "127.0.0.1:9090", "--log.level", "warn")
        self.prometheus = ClusterPrometheus(self._kube)
        kubernetes.wait_for("Prometheus answers", lambda: self._kube.alive("prometheus") and self.prometheus.answers())
        self.began = self.prometheus.now()

    def _follow(self, events):
        for line in events:
            event = json.loads(line)
            name = event["object"]["metadata"]["name"]
            if event["type"] == "DELETED":
                self._pods.pop(name, None)
            else:
                self._pods[name] = event["object"]
            self._write_targets()

    def _write_targets(self):
        found = [target(monitor, pod) for pod in self._pods.values() for monitor in self._monitors]
        part = self._folder / "targets.part"
        part.write_text(json.dumps([entry for entry in found if entry]))
        part.rename(self._folder / "targets.json")

    def external_metrics(self):
        """Those that an HPA can name."""
        return {entry["name"] for entry in (self._kube.ask(EXTERNAL_METRICS) or {"resources": ()})["resources"]}

    def external(self, metric, namespace):
        """What an HPA in the namespace sees of it."""
        said = self._kube.ask(f"{EXTERNAL_METRICS}/namespaces/{namespace}/{metric}")
        return [int(re.fullmatch(r"(\d+)m", item["value"])[1]) / 1000 for item in said["items"]]


class ClusterPrometheus(Prometheus):
    """Asked from within the cluster's network."""

    def __init__(self, kube):
        super().__init__("http://127.0.0.1:9090")
        self._kube = kube

    def fetch(self, url):
        return self._kube.run("curl", "--silent", "--show-error", "--fail", url).stdout

    def answers(self):
        return self._kube.run("curl", "--silent", "--fail", f"{self.url}/-/ready", check=False).returncode == 0
