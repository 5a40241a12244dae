#!/usr/bin/env python3
"""Writes the binary files of tests/fuzz/corpus: messages from their text form (with protoc), model files by hand.

    tests/fuzz/make_corpus.py        from the root of the checkout; the other corpora are plain text, kept as files
"""
import os
import struct
import subprocess

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
CORPUS = os.path.join(ROOT, "tests", "fuzz", "corpus")


def save(target, name, data):
    assert len(data) < 4096, (target, name, len(data))
    os.makedirs(os.path.join(CORPUS, target), exist_ok=True)
    with open(os.path.join(CORPUS, target, name), "wb") as f:
        f.write(data)


def encode(kind, text):
    """The bytes of message tandem.v1.<kind>."""
    protos = [os.path.join(ROOT, "proto", "tandem", "v1", name + ".proto")
              for name in ("registry", "router", "step_tokens", "kv_transfer", "handoff", "trace")]
    return subprocess.run(["protoc", "-I", os.path.join(ROOT, "proto"), "--encode", "tandem.v1." + kind, *protos],
                          input=text.encode(), capture_output=True, check=True).stdout


# ---- Hand-off frames.

OPEN = 'open { protocol_version: 1 attention_worker: "a-0" model: "m" hidden: 4 layers: 2 shard_epoch: 3 max_rows: 8 }'
ROWS = "".join("\\%03o" % byte for byte in struct.pack("<8f", *range(8)))
CALL = f'call {{ step: 7 layer: 1 micro_batch: 1 rows: 2 dtype: DATA_TYPE_F32 data: "{ROWS}" shard_epoch: 3 }}'
HANDOFF = {
    "a2f_open": ("a", "A2fMessage", OPEN),
    "a2f_open_shard": ("a", "A2fMessage", OPEN.replace("max_rows", "shard { last_layer: 2 column: 1 columns: 2 } max_rows")),
    "a2f_open_no_layers": ("a", "A2fMessage", OPEN.replace("max_rows", "shard { first_layer: 1 last_layer: 1 columns: 1 } max_rows")),
    "a2f_open_no_columns": ("a", "A2fMessage", OPEN.replace("max_rows", "shard { last_layer: 2 } max_rows")),
    "a2f_open_huge_shard": ("a", "A2fMessage",
                            OPEN.replace("max_rows", "shard { last_layer: 4294967295 column: 4294967295 columns: 4294967295 } max_rows")),
    "a2f_call": ("a", "A2fMessage", CALL),
    "a2f_call_without_rows": ("a", "A2fMessage", "call { step: 1 dtype: DATA_TYPE_F32 }"),
    "a2f_call_of_half_a_float": ("a", "A2fMessage", 'call { rows: 1 dtype: DATA_TYPE_F32 data: "abcdef" }'),
    "a2f_live": ("a", "A2fMessage", "live { live: true arrives_at_nanoseconds: 5000000000 }"),
    "f2a_grant": ("f", "F2aMessage", "grant { credit_bytes: 65536 max_rows: 64 shard_epoch: 3 }"),
    "f2a_refusal": ("f", "F2aMessage", 'grant { error { code: 9 message: "another model" } }'),
    "f2a_reply": ("f", "F2aMessage",
                  f'reply {{ step: 7 layer: 1 data: "{ROWS}" queue_seconds: 0.1 compute_seconds: 0.2 merged_rows: 2 }}'),
    "f2a_stale": ("f", "F2aMessage", 'reply { step: 7 error { code: 9 message: "STALE_SHARD" } shard_epoch: 4 }'),
}

# ---- Commands to a worker, and its streams.

SAMPLING = "sampling { temperature: 0.7 top_k: 40 top_p: 0.9 logit_bias { key: 5 value: -3 } top_logprobs: 2 }"
DECODE = ('decode { reservation: "r-1" gateway_id: "g" request_id: "q" choices { choice: 0 seed: 9 } '
          f'choices {{ choice: 1 seed: 8 }} prompt_ids: [1, 2, 3] {SAMPLING} stop {{ max_tokens: 4 stop_token_ids: 2 }} '
          'reservation_lease_seconds: 30 }')
COMMANDS = {
    "decode": ("", "RouterCommand", f"command_id: 1 {DECODE}"),
    "decode_resumed": ("", "RouterCommand", 'decode { reservation: "r" gateway_id: "g" request_id: "q" choices { attempt: 1 emitted_ids: [4, 5] } '
                       "prompt_ids: 1 stop { max_tokens: 4 } local_prefill: true }"),
    "prefill": ("", "RouterCommand", 'prefill { reservation: "r" sequence { request_id: "q" } ids: [1, 2, 3] attention_worker: "a" '
                'attention_address: "h:1" }'),
    "release": ("", "RouterCommand", 'release { reservation: "r" sequences { request_id: "q" } reason: END_REASON_CANCELLED }'),
    "set_group": ("", "RouterCommand", 'set_group { router_epoch: 1 group_version: 2 holders { worker_id: "f" address: "h:2" shard_epoch: 3 } }'),
    "set_group_shards": ("", "RouterCommand", 'set_group { router_epoch: 1 group_version: 2 '
                         'holders { worker_id: "f" address: "h:2" shard { last_layer: 2 columns: 1 } } '
                         'holders { worker_id: "c" address: "h:3" shard { last_layer: 4 column: 1 columns: 2 } } '
                         'holders { worker_id: "x" address: "h:4" shard { first_layer: 3 last_layer: 2 column: 5 } } }'),
}
STREAMS = {
    "kv_frame": ("f", "KvFrame", 'reservation: "r" layer: 1 first_position: 32 count: 2 rows: "0123456789abcdef"'),
    "kv_last_frame": ("f", "KvFrame",
                      'reservation: "r" count: 1 rows: "01" prefill_time { stage: STAGE_PREFILL worker_id: "p" seconds: 0.5 calls: 3 }'),
    "kv_past_the_last_position": ("f", "KvFrame", 'reservation: "r" first_position: 4294967295 count: 2 rows: "01"'),
    "kv_too_many_positions": ("f", "KvFrame", 'reservation: "r" count: 65537 rows: "01"'),
    "kv_cancel": ("f", "KvFrame", 'reservation: "r" cancel: true'),
    "kv_ack": ("k", "KvAck", 'reservation: "r" layer: 1 positions: 34'),
    "kv_refused": ("k", "KvAck", 'reservation: "r" error { code: 5 message: "no such reservation" }'),
    "token_hello": ("t", "TokenHello",
                    'gateway_id: "g" protocol_version: 1 resume { sequence { request_id: "q" choice: 1 } received: 5 }'),
}

# ---- Messages to a gateway.

PLACED = 'sequence { request_id: "q" } topology: "pd-afd" prefill_worker: "p" attention { worker_id: "a" address: "h:1" }'
GATEWAY = {
    "state": ("r", "RouterMessage", 'state { ready: true context_tokens: 2048 attention_workers { worker_id: "a" address: "h:1" } }'),
    "placed": ("r", "RouterMessage", f"placed {{ {PLACED} }}"),
    "load": ("r", "RouterMessage", "load { queued_requests: 3 running_sequences: 4 kv_blocks: 100 kv_blocks_free: 200 block_tokens: 16 }"),
    "full": ("r", "RouterMessage",
             'end { sequence { request_id: "q" } reason: END_REASON_FAILED status { code: 8 message: "full" } retry_after_seconds: 2 }'),
    "retry_never": ("r", "RouterMessage", "end { reason: END_REASON_FAILED retry_after_seconds: inf }"),
    "tokens": ("c", "TokenStep",
               'step: 3 sequences { sequence { request_id: "q" } position: 4 ids: [5, 7] '
               "logprobs { logprob: -0.5 top_ids: [5, 6] top_logprobs: [-0.5, -2] } } "
               'sequences { sequence { request_id: "q" choice: 1 } ids: 8 }'),
    "chance_of_nothing": ("c", "TokenStep",
                          "sequences { ids: 0 logprobs { logprob: -inf top_ids: [0, 1] top_logprobs: [nan, inf] } }"),
    "ended": ("t", "TokenStep",
              'step: 4 sequences { sequence { request_id: "q" } ids: 2 end { reason: END_REASON_EOS '
              'times { stage: STAGE_FFN worker_id: "f" seconds: 0.25 calls: 60 } kv_transfer_seconds: 0.1 } }'),
    "ended_after_no_time": ("t", "TokenStep",
                            'sequences { end { reason: END_REASON_EOS times { seconds: nan } kv_transfer_seconds: inf } }'),
}


# ---- Sessions with a router.

def frame(kind, message, text):
    data = encode(message, text)
    return kind.encode() + struct.pack("<H", len(data)) + data


def registration(worker, stages, extra="", address="h:1", block_tokens=16):
    numerics = " ".join(f'{stage.lower()}: "class"' for stage in stages)
    return frame("r", "Registration",
                 f'worker_id: "{worker}" incarnation: 1 protocol_version: 1 pool: "{worker}" model: "m" '
                 + " ".join(f"stages: STAGE_{stage}" for stage in stages)
                 + f' memory_class: MEMORY_CLASS_HBM numerics {{ {numerics} }} address: "{address}" capacity {{ kv_blocks: 64 '
                 f"block_tokens: {block_tokens} max_sequences: 8 prefill_slots: 2 max_handoff_rows: 64 }} "
                 "dimensions { layers: 2 hidden: 64 "
                 f"kv_heads: 1 head_dim: 32 vocabulary: 96 context_tokens: 256 }} {extra}")


def worker(text):
    return frame("w", "WorkerMessage", text)


def generate(request, extra="choices { seed: 9 }"):
    return frame("g", "GatewayMessage",
                 f'generate {{ request_id: "{request}" prompt_ids: [1, 2, 3] stop {{ max_tokens: 4 }} {extra} }}')


def done(command):
    return worker(f"result {{ command_id: {command} }}")


def sequence(kind, text=""):
    return worker(f'sequence {{ sequence {{ request_id: "q" }} kind: KIND_{kind} {text} }}')


def account(busy, idle):
    elapsed = busy + idle if isinstance(busy, (int, float)) and isinstance(idle, (int, float)) else 5
    return worker(f'heartbeat {{ elapsed_seconds: {elapsed} prompts_total: 1 ledger {{ stage: "ffn" state: "busy" seconds: {busy} }} '
                  f'ledger {{ stage: "ffn" state: "idle" cause: "starved" seconds: {idle} }} }}')


HEARTBEAT = worker("heartbeat { kv_blocks_free: 60 sequences: 1 tokens_total: 9 }")
COLOCATED = registration("w", ["PREFILL", "ATTENTION", "FFN"])
ATTENTION = registration("a", ["ATTENTION", "FFN"])
A_SECOND = b"t\x0a\x00"
SESSIONS = {
    "colocated": COLOCATED + HEARTBEAT + generate("q") + done(1) + sequence("PREFILLED")
                 + sequence("ENDED", "reason: END_REASON_EOS"),
    "pd": registration("p", ["PREFILL"]) + ATTENTION + generate("q") + done(1) + A_SECOND + A_SECOND + done(2) + HEARTBEAT,
    "pd_afd": registration("p", ["PREFILL"]) + registration("f", ["FFN"]) + registration("a", ["ATTENTION"]) + done(1)
              + generate("q") + done(2) + worker('shard_lost { ffn_worker_id: "f" message: "gone" }'),
    "shards": registration("l", ["FFN"], "shard { last_layer: 1 columns: 1 }")
              + registration("a", ["PREFILL", "ATTENTION"]) + registration("h", ["FFN"], "shard { first_layer: 1 last_layer: 2 columns: 1 }")
              + done(1) + registration("c", ["FFN"], "shard { last_layer: 2 column: 1 columns: 2 }") + done(2) + generate("q") + done(3)
              + worker('shard_lost { ffn_worker_id: "h" message: "gone" }'),
    "shard_of_no_layers": registration("f", ["FFN"], "shard { first_layer: 2 last_layer: 1 columns: 1 }") + ATTENTION,
    "shard_of_no_columns": registration("f", ["FFN"], "shard { last_layer: 2 column: 3 }") + ATTENTION,
    "shard_huge": registration("f", ["FFN"], "shard { last_layer: 4294967295 column: 4294967294 columns: 4294967295 }") + ATTENTION,
    "shard_with_attention": registration("f", ["ATTENTION", "FFN"], "shard { last_layer: 1 columns: 1 }") + generate("q"),
    "address_past_the_limit": registration("p", ["PREFILL"]) + registration("a", ["ATTENTION", "FFN"], address="h" * 300)
                              + generate("q") + done(1),
    "blocks_of_nothing": registration("w", ["PREFILL", "ATTENTION", "FFN"], block_tokens=0) + generate("q") + done(1),
    "full": COLOCATED + generate("q") + worker('result { command_id: 1 error { code: 8 message: "full" } }') + A_SECOND,
    "abort": COLOCATED + generate("q", "choices { seed: 1 } choices { choice: 1 }") + done(1)
             + frame("g", "GatewayMessage", 'abort { request_id: "q" }'),
    "silence": COLOCATED + generate("q") + b"t\xff\x00",
    "restored": registration("w", ["PREFILL", "ATTENTION", "FFN"], 'live { request_id: "q" }') + generate("q"),
    "hello": frame("g", "GatewayMessage", 'hello { gateway_id: "g" protocol_version: 1 model: "m" }'),
    "accounts": registration("f", ["FFN"], 'time_scale: 2 device: "emulated/x" dollars_per_hour { value: 3 mark: "stated" }')
                + account(1, 4) + A_SECOND + account(2, 4.5) + A_SECOND + A_SECOND + account(1.5, 9) + account(3, 5),
    "account_of_no_time": registration("f", ["FFN"]) + account("nan", 4) + account(1, "inf") + account(-1, 4) + account(1, 1e300),
    "account_of_another_stage": COLOCATED + account(1, 4),
    "price_of_nothing": registration("f", ["FFN"], 'dollars_per_hour { value: -inf mark: "stated" } watts { value: 1 }'),
    "drain": COLOCATED + worker("heartbeat { draining: true }") + generate("q") + A_SECOND,
    "choice_past_the_limit": COLOCATED + generate("q", "choices { choice: 4000000000 }"),
    "live_choice_past_the_limit": registration("w", ["PREFILL", "ATTENTION", "FFN"],
                                               'live { request_id: "q" choice: 200 } live { request_id: "q" choice: 200 }'),
}


# ---- Model files.

def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def value(key, kind, data):
    return text(key) + struct.pack("<I", kind) + data


def u32(key, number):
    return value(key, 4, struct.pack("<I", number))


def f32(key, number):
    return value(key, 6, struct.pack("<f", number))


def strings(key, entries):
    return value(key, 9, struct.pack("<IQ", 8, len(entries)) + b"".join(text(entry) for entry in entries))


def model(vocabulary=2, eps=1e-5, base=10000.0, tokens=("a", "</s>"), more=(), gap=0):
    """A llama of one layer and width 8: all tensors are F32, each in one aligned piece of zeros."""
    values = [value("general.architecture", 8, text("llama")), u32("llama.block_count", 1),
              u32("llama.embedding_length", 8), u32("llama.feed_forward_length", 1), u32("llama.attention.head_count", 1),
              u32("llama.context_length", 16), f32("llama.attention.layer_norm_rms_epsilon", eps),
              f32("llama.rope.freq_base", base), strings("tokenizer.ggml.tokens", tokens), *more]
    shapes = [("token_embd", 8, vocabulary), ("output_norm", 8, 1)]
    shapes += [("blk.0." + part, 8, 1) for part in ("attn_norm", "ffn_norm", "ffn_gate", "ffn_up")]
    shapes += [("blk.0." + part, 8, 8) for part in ("attn_q", "attn_k", "attn_v", "attn_output")]
    shapes += [("blk.0.ffn_down", 1, 8)]
    tensors, offset = b"", 0
    for name, columns, rows in shapes:
        tensors += text(name + ".weight") + struct.pack("<IQQIQ", 2, columns, rows, 0, offset + gap)
        offset += (columns * rows * 4 + 31) // 32 * 32
    header = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(values)) + b"".join(values) + tensors
    return header + bytes(-len(header) % 32) + bytes(offset)


MODELS = {
    "whole": model(),
    "truncated": model()[:-40],
    "header_only": model()[:900],
    "gap": model(gap=32),
    "no_vocabulary": model(vocabulary=0, tokens=()),
    "nan_epsilon": model(eps=float("nan")),
    "negative_rope_base": model(base=-1.0),
    "more_tokens_than_vocabulary": model(tokens=("a", "b", "</s>")),
    "alignment_array": model(more=[value("general.alignment", 9, struct.pack("<IQ", 4, 0))]),
    "alignment_huge": model(more=[u32("general.alignment", 1 << 31)]),
    "eos_past_vocabulary": model(more=[u32("tokenizer.ggml.eos_token_id", 7)]),
    "experts": model(more=[u32("llama.expert_count", 8)]),
    "nameless_key": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + u32("", 1),
    "no_tensors": b"GGUF" + struct.pack("<IQQ", 3, 0, 0),
    "endless_string": b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 62),
    "countless_tensors": b"GGUF" + struct.pack("<IQQ", 3, 1 << 40, 0),
}


def pieces(*parts):
    return b"".join(bytes([len(part)]) + part for part in parts)


TEXTS = {
    "no_stops": b"\x00" + pieces(b"Hello", b", ", "wörld".encode(), b"!"),
    "split_character": b"\x00" + pieces(b"\xf0\x9f", b"\x98", b"\x80", b"\xe2\x82", b"x"),
    "stop_across_tokens": b"\x01" + pieces(b"\n\nUser", b"Hi", b"\n", b"\nUs", b"er: more"),
    "stops_that_overlap": b"\x02" + pieces(b"abab", b"bc", b"xaba", b"bb", b"c"),
    "almost_a_stop": b"\x01" + pieces(b"END", b"EN", b"EN", b"E", b"N"),
    "stop_in_a_broken_character": b"\x01" + pieces("€".encode(), b"\xe2", b"\x82", b"\xac"),
    "not_utf8": b"\x00" + pieces(b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff"),
}


# ---- Traces of two workers.

def traced(who, stages, *messages, started=1000000000, scale="time_scale: 20 "):
    """Start, messages and end of one worker."""
    stages = "".join(f"stages: STAGE_{stage} " for stage in stages)
    said = [f'start {{ worker_id: "{who}" device: "emulated/h100" {stages}{scale}started_at_nanoseconds: {started} }}', *messages,
            f"end {{ ended_at_nanoseconds: {started + 1000000000} }}"]
    return b"".join(frame(who, "TraceMessage", message) for message in said)


def span(kind, begin, end, extra="", started=1000000000):
    return f"spans {{ kind: SPAN_KIND_{kind} begin_nanoseconds: {started + begin} end_nanoseconds: {started + end} {extra}}} "


CALL_OF_A = "step: 7 layer: 3 micro_batch: 1 rows: 2 peer: 0 "
A_SAYS = ('spans { peers: "f" lost: 3 ' + span("ATTENTION", 0, 100, "step: 7 layer: 3 ") + span("A2F", 100, 900, CALL_OF_A)
          + span("WAIT", 100, 900, "cause: WAIT_CAUSE_HANDOFF ") + span("STEP", 0, 1000, "step: 7 ") + span("PREFILL", 900, 950)
          + span("KV_SENT", 900, 990, "peer: 0 ") + "}")
F_SAYS = ('spans { peers: "a" ' + span("FFN", 5000300, 5000700, CALL_OF_A + "calls: 1 ") + span("SERVED", 5000200, 5000700, CALL_OF_A) + "}")
TRACES = {
    "two_workers": traced("a", ["PREFILL", "ATTENTION"], A_SAYS) + traced("f", ["FFN"], F_SAYS),
    "real_time": traced("a", ["ATTENTION"], A_SAYS, scale="") + traced("f", ["FFN"], F_SAYS, scale=""),
    "tiny_time_scale": traced("a", ["ATTENTION"], A_SAYS, scale="time_scale: 1e-300 ") + traced("f", ["FFN"], F_SAYS),
    "far_clock": traced("a", ["ATTENTION"], A_SAYS)
                 + traced("f", ["FFN"], "spans { " + span("FFN", 1, 2, "", 1 << 59) + "}", started=1 << 59, scale="time_scale: 1e-9 "),
    "no_stage": traced("a", []),
    "unknown_peer": traced("a", ["ATTENTION"], "spans { " + span("A2F", 1, 2, "peer: 9 ") + "}"),
    "backwards": traced("f", ["FFN"], "spans { " + span("FFN", 9, 2) + "}"),
    "wait_without_cause": traced("f", ["FFN"], "spans { " + span("WAIT", 1, 2) + "}"),
    "foreign_stage": traced("f", ["FFN"], "spans { " + span("HEAD", 1, 2) + span("STEP", 0, 9) + "}"),
    "broken_off": frame("a", "TraceMessage", 'start { worker_id: "a" stages: STAGE_FFN }'),
}


def main():
    for target, messages in (("handoff_frame", HANDOFF), ("router_command", COMMANDS),
                             ("worker_stream", STREAMS), ("gateway_message", GATEWAY)):
        for name, (selector, kind, body) in messages.items():
            save(target, name, selector.encode() + encode(kind, body))
    for target, files in (("router_session", SESSIONS), ("trace_reply", TRACES), ("gguf_file", MODELS), ("choice_text", TEXTS)):
        for name, data in files.items():
            save(target, name, data)


if __name__ == "__main__":
    main()
