"""The HTTP API as bytes and JSON, for what the official client hides: status codes, token ids, broken requests."""
import json
import socket
import threading

import requests

TIMEOUT = 180


def post(cluster, path, body, **options):
    """The reply of a POST; `body` is JSON unless it is bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **options.pop("headers", {})}
    return requests.post(cluster.url + path, data=data, headers=headers, timeout=TIMEOUT, **options)


def complete(cluster, prompt, max_tokens, **fields):
    """A whole completion as JSON, greedy unless told otherwise (a sampled one may end early); fails with the error it was answered with."""
    body = {"model": cluster.model_name, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, **fields}
    reply = post(cluster, "/v1/completions", body)
    assert reply.status_code == 200, f"{reply.status_code}: {reply.text}"
    return reply.json()


def events(response):
    """The data of each server-sent event of a streaming `requests` response, up to and with [DONE]."""
    for line in response.iter_lines(chunk_size=1):
        if line.startswith(b"data:"):
            yield line[5:].strip().decode()


class Stream(threading.Thread):
    """A streaming completion read by a thread: `first` is set at its first text, `text`, `finish`, `error` tell the rest."""

    def __init__(self, cluster, prompt="Write a long story about a lighthouse keeper.", max_tokens=400, chat=False,
                 **fields):
        super().__init__(daemon=True)
        self.first = threading.Event()
        self.text, self.finish, self.error, self.done, self.status = "", None, None, False, None
        self.ids = []
        body = {"model": cluster.model_name, "max_tokens": max_tokens, "stream": True, "temperature": 0, **fields}
        if chat:
            body["messages"] = [{"role": "user", "content": prompt}]
            path = "/v1/chat/completions"
        else:
            body["prompt"] = prompt
            path = "/v1/completions"
        self._call = lambda: post(cluster, path, body, stream=True)
        self.start()

    def run(self):
        try:
            with self._call() as response:
                self.status = response.status_code
                if response.status_code != 200:
                    self.error = response.json()["error"]
                    return
                for data in events(response):
                    if data == "[DONE]":
                        self.done = True
                        return
                    self._take(json.loads(data))
        except (requests.RequestException, ValueError) as error:
            self.error = {"message": f"connection: {error}", "type": "connection"}
        finally:
            self.first.set()

    def _take(self, chunk):
        if "error" in chunk:
            self.error = chunk["error"]
            return
        for choice in chunk["choices"]:
            self.text += choice["text"] if "text" in choice else choice["delta"].get("content") or ""
            self.ids += choice.get("token_ids") or []
            self.finish = choice["finish_reason"] or self.finish
        if self.text:
            self.first.set()

    def wait_first(self):
        assert self.first.wait(TIMEOUT), "no token came"
        assert self.error is None, self.error
        return self

    def wait_end(self):
        self.join(TIMEOUT)
        assert not self.is_alive(), f"the stream never ended; text so far: {self.text!r}"
        return self


def raw_http(cluster, data, shut=False):
    """Sends bytes and returns all that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", cluster.port), timeout=TIMEOUT) as connection:
        connection.sendall(data)
        if shut:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while True:
            piece = connection.recv(65536)
            if not piece:
                return received
            received += piece
