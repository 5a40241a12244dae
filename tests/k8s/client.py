#!/usr/bin/env python3
"""client.py URL MODEL CLIENTS MAX_TOKENS [STREAMS]: the official OpenAI client, without retries, from so many threads. Each asks for the same greedy
chat and reads its stream, pauses for a second as somebody who reads it would, and asks again, until standard input ends or it has had
STREAMS. One JSON line a stream:

    {"status": 200, "error": null, "text": "...", "done": true, "seconds": 1.2, "ttft": 0.1, "longest_gap": 0.05, "tandem": {...}}

`status` is that of the answer's head; null: there was none. Each stream's first token is a line of its own, "first token". Run inside the
cluster's network.
"""
import json
import sys
import threading
import time

import openai

# A system message of our own, for the model's default one is longer than all the rest.
MESSAGES = [{"role": "system", "content": "You tell."}, {"role": "user", "content": "Tell me about the sea."}]
PAUSE = 1.0  # seconds between two streams of a client


def ask(client, model, max_tokens, first_token):
    record = {"status": None, "error": None, "text": "", "done": False, "ttft": None, "longest_gap": 0.0, "tandem": None}
    began = last = time.monotonic()
    try:
        with client.chat.completions.create(model=model, messages=MESSAGES, temperature=0, max_tokens=max_tokens, stream=True,
                                            extra_body={"ignore_eos": True, "tandem": {"timings": True}}) as stream:
            record["status"] = stream.response.status_code
            for chunk in stream:
                now = time.monotonic()
                if record["ttft"] is None:
                    record["ttft"] = now - began
                    first_token()
                else:
                    record["longest_gap"] = max(record["longest_gap"], now - last)
                last = now
                for choice in chunk.choices:
                    record["text"] += choice.delta.content or ""
                    record["done"] |= choice.finish_reason is not None
                record["tandem"] = (chunk.model_extra or {}).get("tandem") or record["tandem"]
    except openai.APIStatusError as error:
        record["status"], record["error"] = error.status_code, str(error)
    except (openai.APIError, OSError) as error:
        record["error"] = f"{type(error).__name__}: {error}"
    record["seconds"] = time.monotonic() - began
    record["ended"] = time.time()
    return record


def main(url, model, clients, max_tokens, streams=sys.maxsize):
    stop, lock = threading.Event(), threading.Lock()

    def say(what):
        with lock:
            print(json.dumps(what), flush=True)

    def loop():
        # A connection a request, as clients behind a load balancer have: Kubernetes chooses the gateway anew each time.
        with openai.OpenAI(base_url=url, api_key="none", timeout=300, max_retries=0, default_headers={"Connection": "close"}) as client:
            for _ in range(int(streams)):
                say(ask(client, model, int(max_tokens), lambda: say("first token")))
                if stop.wait(PAUSE):
                    break

    threads = [threading.Thread(target=loop) for _ in range(int(clients))]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
