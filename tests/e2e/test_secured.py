"""A whole cluster with TLS on every link and API keys at its gateway."""
import hashlib
import os
import signal
import time

import openai
import pytest

import cluster as clusters
from certificates import Authority, flags

KEY = "sk-e2e-" + hashlib.sha256(os.urandom(16)).hexdigest()
CLUSTER = """
topology: pd-afd
tls: {{cert: {0}/tls.crt, key: {0}/tls.key, ca: {0}/ca.crt}}
gateway: {{flags: {{api-keys-file: {1}}}}}
workers: [{{pool: prefill}}, {{pool: attention}}, {{pool: ffn}}]
"""


def line_of(name, key):
    return f"{name} {hashlib.sha256(key.encode()).hexdigest()}\n"


def replace(file, text):
    fresh = file.with_suffix(".new")
    fresh.write_text(text)
    os.replace(fresh, file)


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("secured")
    keys = folder / "api-keys"
    keys.write_text("# who may ask\n" + line_of("alice", KEY))
    files = Authority(folder / "authority", "the authority").issue(folder / "tls")
    with clusters.running("pd-afd", config=CLUSTER.format(files, keys)) as cluster:
        cluster.files, cluster.keys, cluster.folder = files, keys, folder
        yield cluster


def client(cluster, key=KEY):
    return openai.OpenAI(base_url=cluster.url + "/v1", api_key=key, max_retries=0)


def chat(cluster, key=KEY, **fields):
    return client(cluster, key).chat.completions.create(
        model=cluster.model_name, messages=[{"role": "user", "content": "Hello!"}],
        **{"max_tokens": 8, "extra_body": {"ignore_eos": True}, **fields})


def value(cluster, name, metric):
    return [value for (found, _), value in cluster.metrics(name).items() if found == metric]


def daemons(cluster):
    return [name for name, process in cluster.processes().items() if process["kind"] != "prometheus"]


def status(cluster, *more):
    router = cluster.processes()["router"]["admin_address"]
    return cluster.ctl("status", "--router", router, *more, check=False)


def test_a_chat_completes_over_links_with_tls(secured):
    assert chat(secured).usage.completion_tokens == 8
    for name in daemons(secured):
        [until] = value(secured, name, "tandem_tls_certificate_not_after_seconds")
        assert time.time() < until < time.time() + 2 * 86400, name
        assert "tls=true" in secured.log(name), name


def test_tandemctl_needs_a_certificate_too(secured):
    asked = status(secured, *flags(secured.files))
    assert asked.returncode == 0 and "attention-0" in asked.stdout, asked.stderr
    refused = status(secured)
    assert refused.returncode == 1 and not refused.stdout
    assert len(refused.stderr.splitlines()) == 1 and "give --tls-cert, --tls-key and --tls-ca" in refused.stderr, refused.stderr
    stranger = Authority(secured.folder / "stranger", "another authority").issue(secured.folder / "stranger-tls")
    assert status(secured, *flags(stranger)).returncode == 1
    lacking = status(secured, *flags(secured.files)[:4])
    assert "--tls-ca is missing" in lacking.stderr, lacking.stderr
    # Without --router it is the local cluster that is asked, with what that was started with.
    out = secured.folder / "trace.json"
    secured.ctl("trace", "--seconds", "0.2", "--out", str(out), "--state-dir", str(secured.state_dir))
    assert out.stat().st_size > 0


def test_only_a_known_key_may_ask(secured):
    for call in (lambda: chat(secured, "sk-of-nobody"), lambda: client(secured, "sk-of-nobody").models.list()):
        with pytest.raises(openai.AuthenticationError) as error:
            call()
        assert error.value.status_code == 401 and error.value.code == "invalid_api_key"
        assert error.value.type == "invalid_request_error"
        assert error.value.response.headers["www-authenticate"] == "Bearer"
    assert [model.id for model in client(secured).models.list()] == [secured.model_name]
    chat(secured)
    log = secured.log("gateway")
    assert "api_key=alice" in log
    assert KEY not in log and "sk-of-nobody" not in log


def test_replaced_keys_count_and_bad_ones_do_not(secured):
    other = KEY[::-1]
    replace(secured.keys, line_of("bob", other))
    clusters.wait_for("the new key is known", lambda: value(secured, "gateway", "tandem_gateway_api_keys") == [1] and accepted(secured, other))
    assert not accepted(secured, KEY)
    replace(secured.keys, "alice " + KEY)  # the key and not its hash
    clusters.wait_for("the bad list is counted", lambda: value(secured, "gateway", "tandem_gateway_api_key_reload_failures_total") == [1])
    assert accepted(secured, other)
    assert KEY not in secured.log("gateway")
    replace(secured.keys, line_of("alice", KEY) + line_of("bob", other))
    clusters.wait_for("both are known", lambda: accepted(secured, KEY) and accepted(secured, other))


def accepted(cluster, key):
    try:
        client(cluster, key).models.list()
        return True
    except openai.AuthenticationError:
        return False


def test_certificates_are_replaced_down_to_the_authority_while_a_stream_runs(secured):
    until = {name: value(secured, name, "tandem_tls_certificate_not_after_seconds") for name in daemons(secured)}
    stream = chat(secured, stream=True, max_tokens=400)
    pieces = iter(stream)
    next(pieces)
    time_of_old = max(until.values())[0]
    clusters.wait_for("a second later, so that the new ones expire later", lambda: time.time() > time_of_old - 86400 + 1)
    Authority(secured.folder / "next", "the next authority").issue(secured.files)
    for name in daemons(secured):
        clusters.wait_for(f"{name} has the new certificate", lambda: value(secured, name, "tandem_tls_certificate_not_after_seconds") > until[name])
    assert list(pieces)[-1].choices[0].finish_reason == "length", "the stream was cut"
    # All links anew, of daemons that only know the new files: one that starts now, and one that was there.
    secured.signal("ffn-0", signal.SIGKILL)
    clusters.wait_for("ffn-0 was started again", lambda: secured.processes()["ffn-0"]["restarts"] == 1)
    secured.wait_ready()
    assert chat(secured).usage.completion_tokens == 8
    assert not [name for name in daemons(secured) if value(secured, name, "tandem_tls_reload_failures_total") != [0]]
