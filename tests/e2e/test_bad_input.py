"""Bad input gets a clear answer, nothing is lost: the right status with an OpenAI error object, KV back to zero, all ready."""
import json
import socket
import threading
import time

import pytest
import requests

from api import Stream, complete, post, raw_http

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
USER = [{"role": "user", "content": "Hi"}]
HUGE = 10**9


def check_error(reply, status, param=None, code=None):
    assert reply.status_code == status, f"{reply.status_code}: {reply.text[:500]}"
    assert reply.headers["Content-Type"].startswith("application/json")
    assert reply.headers.get("x-request-id"), "no x-request-id"
    error = reply.json()["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    assert error["message"]
    if param is not None:
        assert error["param"] == param, error
    if code is not None:
        assert error["code"] == code, error
    return error


@pytest.fixture(autouse=True)
def nothing_is_lost(pd_afd):
    """After each case: KV free, nothing queued, no daemon restarted, and a good request still works."""
    before = {name: process["pid"] for name, process in pd_afd.processes().items()}
    yield
    pd_afd.wait_idle()
    pd_afd.wait_ready()
    assert {name: process["pid"] for name, process in pd_afd.processes().items()} == before, "a daemon was restarted"
    assert complete(pd_afd, "The sky is", 2, temperature=0)["usage"]["completion_tokens"] == 2


CASES = {
    # name: (path, body without its model, status, param)
    "temperature_is_text": (CHAT, {"messages": USER, "temperature": "hot"}, 400, "temperature"),
    "temperature_is_too_high": (CHAT, {"messages": USER, "temperature": 3}, 400, "temperature"),
    "stream_is_a_number": (CHAT, {"messages": USER, "stream": 1}, 400, "stream"),
    "max_tokens_is_negative": (CHAT, {"messages": USER, "max_tokens": -1}, 400, "max_tokens"),
    "max_tokens_is_a_fraction": (CHAT, {"messages": USER, "max_tokens": 1.5}, 400, "max_tokens"),
    "max_tokens_is_zero": (CHAT, {"messages": USER, "max_tokens": 0}, 400, "max_tokens"),
    "max_tokens_is_zero_without_echo": (COMPLETIONS, {"prompt": "Hi", "max_tokens": 0}, 400, "max_tokens"),
    "max_tokens_is_huge": (CHAT, {"messages": USER, "max_tokens": HUGE}, 400, None),
    "max_tokens_is_beyond_32_bits": (CHAT, {"messages": USER, "max_tokens": 2**40}, 400, "max_tokens"),
    "messages_are_missing": (CHAT, {}, 400, "messages"),
    "messages_are_empty": (CHAT, {"messages": []}, 400, "messages"),
    "messages_are_text": (CHAT, {"messages": "Hi"}, 400, "messages"),
    "a_message_is_a_number": (CHAT, {"messages": [1]}, 400, "messages[0]"),
    "role_is_unknown": (CHAT, {"messages": [{"role": "king", "content": "Hi"}]}, 400, "messages[0].role"),
    "role_is_missing": (CHAT, {"messages": [{"content": "Hi"}]}, 400, "messages[0].role"),
    "content_is_missing": (CHAT, {"messages": [{"role": "user"}]}, 400, "messages[0].content"),
    "content_is_a_number": (CHAT, {"messages": [{"role": "user", "content": 1}]}, 400, "messages[0].content"),
    "prompt_is_missing": (COMPLETIONS, {}, 400, "prompt"),
    "prompt_is_empty": (COMPLETIONS, {"prompt": ""}, 400, "prompt"),
    "prompt_ids_are_empty": (COMPLETIONS, {"prompt": []}, 400, "prompt"),
    "prompt_id_is_beyond_the_vocabulary": (COMPLETIONS, {"prompt": [10**6]}, 400, "prompt"),
    "prompt_id_is_negative": (COMPLETIONS, {"prompt": [-1]}, 400, "prompt[0]"),
    "echo_with_logprobs": (COMPLETIONS, {"prompt": "Hi", "echo": True, "logprobs": 1}, 400, "echo"),
    "too_many_logprobs": (COMPLETIONS, {"prompt": "Hi", "logprobs": 99}, 400, "logprobs"),
    "top_logprobs_without_logprobs": (CHAT, {"messages": USER, "top_logprobs": 2}, 400, "top_logprobs"),
    "n_is_zero": (CHAT, {"messages": USER, "n": 0}, 400, "n"),
    "n_is_huge": (CHAT, {"messages": USER, "n": HUGE}, 400, "n"),
    "top_p_is_zero": (CHAT, {"messages": USER, "top_p": 0}, 400, "top_p"),
    "stop_is_a_number": (CHAT, {"messages": USER, "stop": 1}, 400, "stop"),
    "too_many_stops": (CHAT, {"messages": USER, "stop": list("abcdefgh")}, 400, "stop"),
    "logit_bias_of_no_token": (CHAT, {"messages": USER, "logit_bias": {"x": 1}}, 400, "logit_bias"),
    "logit_bias_beyond_the_vocabulary": (CHAT, {"messages": USER, "logit_bias": {"1000000": 1}}, 400, "logit_bias"),
    "tools_are_not_supported": (CHAT, {"messages": USER, "tools": [{"type": "function"}]}, 400, "tools"),
}


@pytest.mark.parametrize("name", CASES)
def test_wrong_fields_are_named(pd_afd, name):
    path, body, status, param = CASES[name]
    check_error(post(pd_afd, path, {"model": pd_afd.model_name, **body}), status, param)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"{\"model\": }", b"\x00", b"[" * 100_000],
                         ids=["empty", "open", "array", "null", "no_value", "nul", "deep"])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_malformed_json_is_refused(pd_afd, path, body):
    check_error(post(pd_afd, path, body), 400)


def test_invalid_utf8_is_refused(pd_afd):
    body = b'{"model": "%s", "messages": [{"role": "user", "content": "a\xff\xfe\xc3("}]}' % pd_afd.model_name.encode()
    check_error(post(pd_afd, CHAT, body), 400)
    surrogate = b'{"model": "%s", "prompt": "\\ud800", "max_tokens": 2}' % pd_afd.model_name.encode()
    assert post(pd_afd, COMPLETIONS, surrogate).status_code == 400


def test_an_unknown_model_is_not_found(pd_afd):
    check_error(post(pd_afd, CHAT, {"model": "absent", "messages": USER}), 404, code="model_not_found")
    check_error(post(pd_afd, CHAT, {"messages": USER}), 400, "model")


def test_a_prompt_longer_than_the_context_is_refused(pd_afd):
    words = "word " * 20_000
    error = check_error(post(pd_afd, CHAT, {"model": pd_afd.model_name, "messages": [{"role": "user", "content": words}]}), 400,
                        code="context_length_exceeded")
    assert any(character.isdigit() for character in error["message"]), "the numbers are not named"
    check_error(post(pd_afd, COMPLETIONS, {"model": pd_afd.model_name, "prompt": words, "max_tokens": 1}), 400)


def test_empty_content_is_answered(pd_afd):
    reply = post(pd_afd, CHAT, {"model": pd_afd.model_name, "messages": [{"role": "user", "content": ""}], "max_tokens": 4})
    assert reply.status_code == 200, reply.text


def test_paths_methods_and_types_have_their_own_statuses(pd_afd):
    check_error(requests.get(pd_afd.url + "/v1/absent", timeout=60), 404)
    check_error(requests.get(pd_afd.url + CHAT, timeout=60), 405)
    check_error(requests.delete(pd_afd.url + "/v1/models", timeout=60), 405)
    check_error(post(pd_afd, CHAT, b"model=x", headers={"Content-Type": "application/x-www-form-urlencoded"}), 415)


def test_a_body_of_20_mb_is_too_large(pd_afd):
    body = json.dumps({"model": pd_afd.model_name, "prompt": "x" * (20 << 20)}).encode()
    check_error(post(pd_afd, COMPLETIONS, body), 413)


def test_a_request_id_comes_back(pd_afd):
    reply = post(pd_afd, CHAT, {"model": pd_afd.model_name, "messages": USER, "max_tokens": 1},
                 headers={"x-request-id": "e2e-4711"})
    assert reply.headers["x-request-id"] == "e2e-4711"
    assert reply.headers["x-request-id"] != post(pd_afd, CHAT, {"model": pd_afd.model_name, "messages": USER,
                                                                "max_tokens": 1}).headers["x-request-id"]


@pytest.mark.parametrize("data", [b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00", b"GET / HTTP/9.9\r\n\r\n",
                                  b"POST /v1/completions HTTP/1.1\r\nContent-Length: abc\r\n\r\n",
                                  b"GET /livez HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n"],
                         ids=["no_version", "tls", "version_9", "length_abc", "long_header"])
def test_what_is_no_http_is_refused(pd_afd, data):
    received = raw_http(pd_afd, data)
    status = int(received.split()[1]) if received.startswith(b"HTTP/1.") else None
    assert status is None or status in (400, 431, 505), received[:300]


def test_slow_headers_end_and_hold_nobody_up(pd_afd):
    """Many connections that never finish their headers: others are served meanwhile, and the slow are told and cut."""
    slow = []
    for _ in range(40):
        connection = socket.create_connection(("127.0.0.1", pd_afd.port), timeout=120)
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n")
        slow.append(connection)
    assert complete(pd_afd, "The sky is", 2)["usage"]["completion_tokens"] == 2
    for connection in slow:
        received = b""
        while piece := connection.recv(65536):
            received += piece
        connection.close()
        assert received == b"" or received.startswith(b"HTTP/1.1 408"), received[:200]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_in_mid_answer_frees_everything(pd_afd, stream):
    """The fixture checks the KV; here, that the work really ended early."""
    before = pd_afd.workers()["attention-0"]["tokens_total"]
    body = json.dumps({"model": pd_afd.model_name, "prompt": "Tell a long story.", "max_tokens": 1500, "stream": stream,
                       "ignore_eos": True}).encode()
    with socket.create_connection(("127.0.0.1", pd_afd.port), timeout=120) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                           b"Content-Length: %d\r\n\r\n" % len(body) + body)
        if stream:
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        else:
            deadline = time.monotonic() + 120
            while pd_afd.workers()["attention-0"]["sequences"] == 0:
                assert time.monotonic() < deadline, "it never started"
    pd_afd.wait_idle()
    assert pd_afd.workers()["attention-0"]["tokens_total"] - before < 1400, "it went on without its client"


def test_a_client_that_leaves_during_prefill_frees_everything(pd_afd):
    body = json.dumps({"model": pd_afd.model_name, "prompt": "word " * 6000, "max_tokens": 50, "stream": True}).encode()
    with socket.create_connection(("127.0.0.1", pd_afd.port), timeout=120) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                           b"Content-Length: %d\r\n\r\n" % len(body) + body)
        deadline = time.monotonic() + 120
        while pd_afd.status()["router"]["live_sequences"] == 0:
            assert time.monotonic() < deadline, "it never started"


def test_300_connections_at_once_are_each_answered(pd_afd):
    """Every one ends: 200 with its tokens, or 429 with Retry-After."""
    results, lock = [], threading.Lock()

    def call(index):
        try:
            reply = post(pd_afd, COMPLETIONS, {"model": pd_afd.model_name, "prompt": f"Number {index}:", "max_tokens": 3,
                                               "temperature": 0, "ignore_eos": True})
            outcome = (reply.status_code, reply)
        except requests.RequestException as error:
            outcome = (None, error)
        with lock:
            results.append(outcome)

    threads = [threading.Thread(target=call, args=(index,)) for index in range(300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
    assert len(results) == 300, f"{300 - len(results)} were never answered"
    for status, reply in results:
        assert status in (200, 429), f"{status}: {reply if status is None else reply.text}"
        if status == 429:
            assert int(reply.headers["Retry-After"]) >= 1
            check_error(reply, 429)
        else:
            assert reply.json()["usage"]["completion_tokens"] == 3
    assert sum(status == 200 for status, _ in results) >= 1


def test_a_slow_reader_loses_no_token_while_it_is_within_bounds(pd_afd):
    stream = Stream(pd_afd, max_tokens=64, ignore_eos=True, return_token_ids=True).wait_end()
    assert stream.error is None and stream.finish == "length"
