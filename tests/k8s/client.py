#!/usr/bin/env python3
"""The official OpenAI client, without retries, from so many threads. Each asks for the same greedy chat and reads its stream, pauses for a
second as somebody who reads it would, and asks again, until standard input ends. One JSON line a stream:

    {"client": 0, "status": 200, "error": null, "text": "...", "done": true, "left": false, "seconds": 1.2, "ttft": 0.1, "longest_gap": 0.05,
     "tandem": {...}}

`status` is that of the answer's head; null: there was none. And a line at a stream's first token and at every 32nd: {"client": 0, "tokens": 32}.
Run inside the cluster's network.
"""
import argparse
import json
import sys
import threading
import time

import openai

# A system message of our own, for the model's default one is longer than all the rest.
MESSAGES = [{"role": "system", "content": "You tell."}, {"role": "user", "content": "Tell me about the sea."}]
PAUSE = 1.0  # seconds between two streams of a client
TOLD_EVERY = 32  # tokens


def ask(client, model, max_tokens, told, leaves):
    record = {"status": None, "error": None, "text": "", "done": False, "left": False, "ttft": None, "longest_gap": 0.0, "tandem": None}
    began = last = time.monotonic()
    tokens = 0
    try:
        with client.chat.completions.create(model=model, messages=MESSAGES, temperature=0, max_tokens=max_tokens, stream=True,
                                            extra_body={"ignore_eos": True, "tandem": {"timings": True}}) as stream:
            record["status"] = stream.response.status_code
            for chunk in stream:
                now = time.monotonic()
                if record["ttft"] is None:
                    record["ttft"] = now - began
                else:
                    record["longest_gap"] = max(record["longest_gap"], now - last)
                last = now
                for choice in chunk.choices:
                    record["text"] += choice.delta.content or ""
                    record["done"] |= choice.finish_reason is not None
                record["tandem"] = (chunk.model_extra or {}).get("tandem") or record["tandem"]
                tokens += 1
                if tokens == 1 or tokens % TOLD_EVERY == 0:
                    told(tokens)
                if leaves():
                    record["left"] = not record["done"]
                    break
    except openai.APIStatusError as error:
        record["status"], record["error"] = error.status_code, str(error)
    except (openai.APIError, OSError) as error:
        record["error"] = f"{type(error).__name__}: {error}"
    record["seconds"] = time.monotonic() - began
    record["ended"] = time.time()
    return record


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--max-tokens", type=int, required=True)
    parser.add_argument("--streams", type=int, default=sys.maxsize, help="of a client, at most")
    parser.add_argument("--leave", action="store_true", help="at the end of standard input, in mid-stream")
    args = parser.parse_args()
    stop, lock = threading.Event(), threading.Lock()

    def say(what):
        with lock:
            print(json.dumps(what), flush=True)

    def loop(number):
        told = lambda tokens: say({"client": number, "tokens": tokens})
        leaves = lambda: args.leave and stop.is_set()
        # A connection a request, as clients behind a load balancer have: Kubernetes chooses the gateway anew each time.
        with openai.OpenAI(base_url=args.url, api_key="none", timeout=300, max_retries=0, default_headers={"Connection": "close"}) as client:
            for _ in range(args.streams):
                say({"client": number} | ask(client, args.model, args.max_tokens, told, leaves))
                if stop.wait(PAUSE):
                    break

    threads = [threading.Thread(target=loop, args=(number,)) for number in range(args.clients)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
