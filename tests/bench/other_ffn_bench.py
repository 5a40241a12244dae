#!/usr/bin/env python3
"""The FFN server in numpy (tests/conformance/ffn_server.py) in a live `afd` cluster beside our own: tokens/s, and how many ids agree.

    tests/bench/run.sh build/release other_ffn       (with the Python of tests/e2e/setup.sh)
"""
import argparse
import os
import pathlib
import statistics
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("--build", required=True)
parser.add_argument("--rounds", type=int, default=3)
options = parser.parse_args()
os.environ["TANDEM_BINARY_DIR"] = str(pathlib.Path(options.build).resolve())
TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "e2e"), str(TESTS / "conformance")]

import cluster as clusters  # noqa: E402
import other_ffn  # noqa: E402
from api import Stream  # noqa: E402

TOKENS = 48
PROMPTS = ["The capital of France is", "Once upon a time there was", "To bake bread, first", "The three laws of motion say",
           "A good name for a cat is", "The sea was calm and", "In the year 2126", "My favourite words are"]


def one_round(cluster, batch):
    """(tokens/s of the streams together, their ids)."""
    start = time.monotonic()
    streams = [Stream(cluster, prompt, TOKENS, return_token_ids=True, ignore_eos=True) for prompt in PROMPTS[:batch]]
    for stream in streams:
        stream.wait_end()
        assert stream.error is None and len(stream.ids) == TOKENS, stream.error
    return batch * TOKENS / (time.monotonic() - start), [stream.ids for stream in streams]


def measure(cluster):
    one_round(cluster, 1)
    rates = {batch: statistics.median(one_round(cluster, batch)[0] for _ in range(options.rounds)) for batch in (1, 8)}
    return rates, one_round(cluster, 8)[1]


def main():
    load = os.getloadavg()[0]
    with clusters.running("afd") as cluster:
        our_rates, our_ids = measure(cluster)
    with other_ffn.running() as (cluster, _):
        rates, ids = measure(cluster)
    print("| batch | ours tok/s | numpy tok/s | of ours |\n|---|---|---|---|")
    for batch, rate in rates.items():
        print(f"| {batch} | {our_rates[batch]:.1f} | {rate:.1f} | {rate / our_rates[batch]:.2f} |")
    same = [next((n for n, (a, b) in enumerate(zip(theirs, ours)) if a != b), TOKENS) for theirs, ours in zip(ids, our_ids)]
    print(f"ids that agree until the first that differs, of {TOKENS}: {', '.join(map(str, same))}; {sum(n == TOKENS for n in same)} of {len(same)} texts are "
          f"the same; load before {load:.1f}")


main()
