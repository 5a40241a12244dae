"""The chart as data: what Helm makes of it for each values file."""
import os
import pathlib
import subprocess

import yaml

from kube import BIN, CACHE, SOURCE

CHART = SOURCE / "deploy" / "helm" / "tandem"
EXAMPLES = SOURCE / "deploy" / "helm" / "examples"
# Each way in which the chart is shipped to be used; "" is values.yaml alone.
VALUES = ["", *sorted(path.name for path in CHART.glob("values-*.yaml"))]
MONITORING = ["--api-versions", "monitoring.coreos.com/v1/PodMonitor", "--api-versions", "monitoring.coreos.com/v1/PrometheusRule"]


# What `helm` means: Helm 3, or helm4 in ./dev soak.
HELM = os.environ.get("TANDEM_HELM", "helm")


def tool(name, *arguments, check=True, **options):
    program = BIN / (HELM if name == "helm" else name)
    assert program.exists(), f"no {program}: run tests/k8s/setup.sh"
    result = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, **options)
    assert not check or result.returncode == 0, f"{name} {' '.join(map(str, arguments))}: exit {result.returncode}\n{result.stdout}{result.stderr}"
    return result


def flags(values, *more):
    return [*(["--values", CHART / values] if values else []), *more]


def template(values="", *more, check=True):
    return tool("helm", "template", "tandem", CHART, "--namespace", "serving", *flags(values, *more), check=check)


def render(values="", *more):
    """Every object, in the order of their kinds and names."""
    documents = [document for document in yaml.safe_load_all(template(values, *more).stdout) if document]
    return sorted(documents, key=lambda document: (document["kind"], document["metadata"]["name"]))


def of_kind(documents, kind):
    return {document["metadata"]["name"]: document for document in documents if document["kind"] == kind}


def pods(documents):
    """Name to pod spec, of everything that makes pods."""
    found = {}
    for document in documents:
        name = f"{document['kind']}/{document['metadata']['name']}"
        if document["kind"] == "Pod":
            found[name] = document["spec"]
        elif "template" in document.get("spec", {}):
            found[name] = document["spec"]["template"]["spec"]
    return found


def refusal(*more, values=""):
    """What Helm says of values that it does not take."""
    result = template(values, *more, check=False)
    assert result.returncode != 0, f"taken: {more}"
    return result.stderr
