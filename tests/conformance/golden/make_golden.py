#!/usr/bin/env python3
"""Makes the golden frames: messages of the hand-off as bytes, one file a frame, one folder a version of the protocol.

    tests/conformance/golden/make_golden.py            writes what is missing; says which files differ, and leaves them
    tests/conformance/golden/make_golden.py --rewrite  writes all: only for a frame that was never released

A frame that was released stays as it is for ever: whoever speaks its version must read it. Fields come from text by protoc.
Two things protoc cannot say are put together by hand: rows that stand last (what Tandem itself writes; protobuf's order of
fields is free), and fields and values that version 1 does not know (what a newer writer may add).
"""
import os
import struct
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
PROTO = os.path.normpath(os.path.join(HERE, "..", "..", "..", "proto"))
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5


def varint(number):
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def field(number, kind, payload):
    """One field as protobuf writes it; `payload` of a LENGTH field is its bytes, of the others what follows the tag."""
    tag = varint(number << 3 | kind)
    return tag + (varint(len(payload)) + payload if kind == LENGTH else payload)


def encode(kind, text):
    """The bytes of message tandem.v1.<kind>, fields in ascending order."""
    return subprocess.run(["protoc", "-I", PROTO, "--deterministic_output", "--encode", "tandem.v1." + kind,
                           os.path.join(PROTO, "tandem", "v1", "handoff.proto")],
                          input=text.encode(), capture_output=True, check=True).stdout


def escaped(data):
    return "".join("\\%03o" % byte for byte in data)


# Two rows of four: 0.5, 1, 1.5, ... 4.
ROWS = struct.pack("<8f", *(n / 2 for n in range(1, 9)))
# What no row of a real model holds, but F32 can: -0, the smallest denormal, the largest number, a third.
ODD_ROW = struct.pack("<4f", -0.0, 1e-45, 3.4028234663852886e38, 1 / 3)

OPEN = ('protocol_version: 1 attention_worker: "attention-0" model: "smollm2" hidden: 4 layers: 2 shard_epoch: 1732752000000000001 '
        'max_rows: 64 shard { last_layer: 2 columns: 1 }')
OPEN_FULL = ('protocol_version: 1 attention_worker: "attention-0" model: "smollm2" hidden: 4 layers: 2 '
             'ffn_class: "gguf:0123456789abcdef/ggml/cpu/abc/x86-64-v3/threads:1/column/2" shard_epoch: 7 max_rows: 64 '
             'shard { first_layer: 1 last_layer: 2 column: 1 columns: 2 } link { bytes_per_second: 1e11 latency_seconds: 2e-06 }')
CALL = "step: 300 layer: 1 micro_batch: 1 attempt: 0 rows: 2 dtype: DATA_TYPE_F32 shard_epoch: 7"
REPLY = "step: 300 layer: 1 micro_batch: 1 queue_seconds: 0.25 compute_seconds: 0.5 merged_rows: 6"

# What a writer of a later version may add within version 1: fields of any number and kind, which a reader skips.
NEWER = (field(19, VARINT, varint(1 << 63)) + field(500, LENGTH, b"a word of tomorrow") + field(501, FIXED64, b"\x01" * 8) +
         field(502, FIXED32, b"\x02" * 4))


def a2f(alternative, body):
    return field({"open": 1, "call": 2, "live": 3}[alternative], LENGTH, body)


def f2a(alternative, body):
    return field({"grant": 1, "reply": 2}[alternative], LENGTH, body)


V1 = {
    # In ascending order of fields, as most libraries write.
    "a2f_open": encode("A2fMessage", f"open {{ {OPEN} }}"),
    "a2f_open_full": encode("A2fMessage", f"open {{ {OPEN_FULL} }}"),
    "a2f_call": encode("A2fMessage", f'call {{ {CALL} data: "{escaped(ROWS)}" }}'),
    "a2f_call_segments": encode("A2fMessage", f'call {{ {CALL} data: "{escaped(ROWS)}" segments: [0, 2, 0] }}'),
    "a2f_call_odd_values": encode("A2fMessage", f'call {{ step: 1 rows: 1 dtype: DATA_TYPE_F32 data: "{escaped(ODD_ROW)}" }}'),
    "a2f_call_no_rows": encode("A2fMessage", "call { step: 301 layer: 1 dtype: DATA_TYPE_F32 shard_epoch: 7 }"),
    "a2f_call_again": encode("A2fMessage", f'call {{ {CALL.replace("attempt: 0", "attempt: 1")} data: "{escaped(ROWS)}" }}'),
    "a2f_call_routed": encode("A2fMessage", f'call {{ {CALL} data: "{escaped(ROWS)}" routing {{ slots: 2 '
                              f'expert_ids: [5, 0, 3, 7] weights: [0.75, 0.25, 0.5, 0.5] }} }}'),
    "a2f_live": encode("A2fMessage", "live { live: true arrives_at_nanoseconds: 5000000000 }"),
    "f2a_grant": encode("F2aMessage", "grant { credit_bytes: 2048 max_rows: 64 shard_epoch: 7 protocol_version: 1 }"),
    "f2a_refusal": encode("F2aMessage", 'grant { error { code: 9 message: "STALE_SHARD: at epoch 8, not 7" } shard_epoch: 8 '
                          "protocol_version: 1 }"),
    "f2a_reply": encode("F2aMessage", f'reply {{ {REPLY} data: "{escaped(ROWS)}" shared: true }}'),
    "f2a_reply_no_rows": encode("F2aMessage", "reply { step: 301 layer: 1 }"),
    "f2a_stale": encode("F2aMessage", 'reply { step: 300 layer: 1 micro_batch: 1 error { code: 9 message: "STALE_SHARD: at epoch 8, '
                        'not 7" } shard_epoch: 8 }'),
    # As Tandem writes them: the rows last, in the memory that they were computed in.
    "a2f_call_rows_last": a2f("call", encode("A2fCall", CALL) + field(7, LENGTH, ROWS)),
    "f2a_reply_rows_last": f2a("reply", encode("F2aReply", REPLY + " shared: true") + field(5, LENGTH, ROWS)),
    # Of a newer writer: unknown fields before, between and behind the known ones, inside and outside.
    "newer_a2f_open": a2f("open", NEWER + encode("HandoffOpen", OPEN)) + NEWER,
    "newer_a2f_call": NEWER + a2f("call", encode("A2fCall", CALL) + NEWER + field(7, LENGTH, ROWS) + NEWER),
    "newer_a2f_call_data_type": a2f("call", encode("A2fCall", CALL.replace("DATA_TYPE_F32", "77")) + field(7, LENGTH, ROWS)),
    "newer_f2a_grant": f2a("grant", encode("HandoffGrant", "credit_bytes: 2048 max_rows: 64 shard_epoch: 7") + NEWER),
    "newer_f2a_reply": f2a("reply", NEWER + field(5, LENGTH, ROWS) + encode("F2aReply", REPLY)) + NEWER,
}
VERSIONS = {"v1": V1}


def path_of(version, name):
    return os.path.join(HERE, version, name + ".binpb")


def differing():
    """(path, bytes that it should hold) of each file that is missing or holds something else."""
    for version, frames in VERSIONS.items():
        for name, data in frames.items():
            path = path_of(version, name)
            if not os.path.exists(path) or open(path, "rb").read() != data:
                yield path, data


def main():
    left = False
    for path, data in list(differing()):
        if os.path.exists(path) and "--rewrite" not in sys.argv[1:]:
            print(f"{path}: differs, left as it is")
            left = True
            continue
        with open(path, "wb") as f:
            f.write(data)
        print(f"{path}: {len(data)} bytes")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
