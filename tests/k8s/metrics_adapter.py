#!/usr/bin/env python3
"""metrics_adapter.py ADDRESS PORT CERTIFICATE KEY PROMETHEUS_URL RULES.yaml: answers external.metrics.k8s.io/v1beta1 from a Prometheus.

A stand-in for prometheus-adapter, which is not to be had here: reads the same rules (`rules.external`), and does of them what those of
deploy/helm/examples use. A metric without an answer is an error, as an HPA gets it there.
"""
import datetime
import http.server
import json
import ssl
import sys
import urllib.parse
import urllib.request

import yaml

GROUP = "external.metrics.k8s.io"


def query_of(rule, namespace):
    """The rule's query for the HPAs of a namespace."""
    return rule["metricsQuery"].replace("<<.LabelMatchers>>", f'namespace="{namespace}"')


def ask(prometheus, query):
    with urllib.request.urlopen(f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}", timeout=10) as reply:
        return json.load(reply)["data"]["result"]


def answer(prometheus, rules, path):
    """(HTTP status, object) of a path of the API."""
    match urllib.parse.urlsplit(path).path.strip("/").split("/"):
        case ["apis"]:
            return 200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": []}
        case ["apis", group, version] if group == GROUP:
            resources = [{"name": name, "singularName": "", "namespaced": True, "kind": "ExternalMetricValueList", "verbs": ["get"]} for name in rules]
            return 200, {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{group}/{version}", "resources": resources}
        case ["apis", group, version, "namespaces", namespace, name] if group == GROUP and name in rules:
            now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
            items = [{"metricName": name, "metricLabels": series["metric"], "timestamp": now, "value": f"{round(1000 * float(series['value'][1]))}m"}
                     for series in ask(prometheus, query_of(rules[name], namespace))]
            if items:
                return 200, {"kind": "ExternalMetricValueList", "apiVersion": f"{group}/{version}", "metadata": {}, "items": items}
    return 404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404, "message": f"no metric {path}"}


def main(address, port, certificate, key, prometheus, file):
    with open(file) as text:
        rules = {rule["name"]["as"]: rule for rule in yaml.safe_load(text)["rules"]["external"]}

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            status, said = answer(prometheus, rules, self.path)
            body = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = http.server.ThreadingHTTPServer((address, int(port)), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
