"""A release with TLS on every link and API keys: a namespace of its own in the cluster of test_cluster.py."""
import base64
import hashlib
import json
import secrets

import pytest

from certificates import Authority
from chart import CHART
from kube import BUILD, LONG, wait_for
from release import SMALL, Release

KEY = "sk-" + secrets.token_hex(16)
FLAGS = [*SMALL, "--set", "tls.enabled=true,apiKeys.existingSecret=keys,apiKeys.test.existingSecret=keys"]


@pytest.fixture(scope="module")
def secured(kube):
    kube.make_namespace("secured")
    release = Release(kube, namespace="secured", values=CHART / "values-colocated.yaml")
    release.kubectl("create", "secret", "generic", "keys", f"--from-literal=api-key={KEY}",
                    f"--from-literal=api-keys=test {hashlib.sha256(KEY.encode()).hexdigest()}")
    release.install(*FLAGS)
    print(f"\n{kube.seconds():.0f} s: installed with TLS")
    yield release
    release.uninstall()


def certificate(secured):
    return {name: base64.b64decode(text) for name, text in secured.get("secret", "tandem-tls")["data"].items()}


def not_after(secured):
    """When the certificate that each pod shows now ends, by its own account."""
    return secured.metric("tandem_tls_certificate_not_after_seconds")


def grpc_addresses(secured):
    ports = {"router": 9300, "worker": 9200}
    return [f"{pod['status']['podIP']}:{port}" for component, port in ports.items() for pod in secured.pods(component).values()]


def takes(secured, address, issued):
    """Whether a client with this certificate, and who trusts its authority alone, comes through the handshake."""
    return secured.kube.run("openssl", "s_client", "-connect", address, "-alpn", "h2", "-verify_return_error", "-CAfile", issued / "ca.crt", "-cert",
                            issued / "tls.crt", "-key", issued / "tls.key", check=False, input="",
                            errors="replace").returncode == 0


def test_every_pod_has_a_certificate_and_all_work_together(secured):
    until = not_after(secured)
    assert len(until) >= 3 and len(set(until.values())) == 1 and min(until.values()) > 0, until
    secured.test()
    assert len(secured.status()["workers"]) == 1


def test_a_client_without_a_certificate_is_refused(secured, tmp_path):
    """On the links of router and worker, though it knows their authority; tandemctl says what it lacks."""
    (tmp_path / "own").mkdir()
    for name, text in certificate(secured).items():
        (tmp_path / "own" / name).write_bytes(text)
    stranger = Authority(tmp_path / "authority", "stranger").issue(tmp_path / "tls")
    assert len(grpc_addresses(secured)) == 2
    for address in grpc_addresses(secured):
        ask = [BUILD / "bin/tandemctl", "status", "--router", address]
        bare = secured.kube.run(*ask, check=False)
        assert bare.returncode == 1 and not bare.stdout and "--tls-cert" in bare.stderr, (address, bare)
        foreign = secured.kube.run(*ask, "--tls-cert", stranger / "tls.crt", "--tls-key", stranger / "tls.key", "--tls-ca",
                                   stranger / "ca.crt", check=False)
        assert foreign.returncode == 1 and not foreign.stdout, (address, foreign)
        host, port = address.split(":")
        curl = ["curl", "--silent", "--show-error", "--output", "/dev/null", "--cacert", tmp_path / "own/ca.crt", "--resolve", f"tandem:{port}:{host}",
                f"https://tandem:{port}/"]
        assert secured.kube.run(*curl, check=False).returncode, address
        secured.kube.run(*curl, "--cert", tmp_path / "own/tls.crt", "--key", tmp_path / "own/tls.key")


def test_a_caller_without_a_key_is_refused(secured):
    for key, status in ((None, 401), ("sk-wrong", 401), (KEY, 200)):
        header = ["--header", f"Authorization: Bearer {key}"] if key else []
        said = secured.kube.run("curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", *header, f"{secured.url()}/models")
        assert said.stdout == str(status), key


def test_an_upgrade_keeps_the_certificate_and_a_new_one_needs_no_restart(secured, tmp_path):
    first, lives = certificate(secured), {component: secured.lives(component) for component in ("gateway", "router", "worker")}
    secured.upgrade(*FLAGS, "--set", "gateway.args.max-connections=500")
    secured.settled()
    assert certificate(secured) == first
    lives["gateway"] = secured.lives("gateway")   # rolled, since its flags changed
    before = not_after(secured)
    issued = Authority(tmp_path / "authority", "successor").issue(tmp_path / "tls")
    text = {name: base64.b64encode((issued / name).read_bytes()).decode() for name in first}
    secured.kubectl("patch", "secret", "tandem-tls", "--type=merge", "--patch-file=/dev/stdin", input=json.dumps({"data": text}))
    began = secured.kube.seconds()
    wait_for("every pod shows the new one", lambda: all(until != before[pod] for pod, until in not_after(secured).items()))
    # A pod says so when it has given it to gRPC, which looks once a second.
    wait_for("router and workers take it on the wire", lambda: all(takes(secured, address, issued) for address in grpc_addresses(secured)))
    print(f"a replaced certificate counted in every pod after {secured.kube.seconds() - began:.0f} s")
    secured.test()
    assert {component: secured.lives(component) for component in lives} == lives, "a pod has started again"
