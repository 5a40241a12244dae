#!/usr/bin/env python3
"""An FFN server that is not ours: docs/handoff.md in numpy, on its own or in a cluster. Nothing of Tandem's code is in it.

    ffn_server.py --model FILE.gguf --listen 127.0.0.1:0 [--router HOST:PORT]... [--model-name NAME]

It prints "serving ADDRESS epoch EPOCH" when it is ready. Weights are kept as float32 and multiplied by numpy, so it is of a numerics class of
its own. Sections named below are docs/handoff.md's.
"""
import os

for library in ("OPENBLAS", "OMP", "MKL"):
    os.environ.setdefault(library + "_NUM_THREADS", "1")  # before numpy is loaded; its threads would spin

import argparse
import collections
import hashlib
import pathlib
import queue
import signal
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import gguf
import grpc
import numpy
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"
MAX_MESSAGE_BYTES = 64 << 20
INVALID_ARGUMENT, NOT_FOUND, RESOURCE_EXHAUSTED, FAILED_PRECONDITION, UNIMPLEMENTED, INTERNAL = 3, 5, 8, 9, 12, 13
F32, FFN, SRAM = 1, 3, 2  # DataType, Stage, MemoryClass
TILE_ROWS = 8
MAX_ROWS = 256  # of one call
MAX_CREDIT_BYTES = 256 << 20  # over all streams


def load_messages():
    """Classes of the messages, by name, from the .proto files."""
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run(["protoc", "-I", str(PROTO), "--include_imports", "-o", out.name,
                        str(PROTO / "tandem/v1/handoff.proto"), str(PROTO / "tandem/v1/registry.proto")], check=True)
        files = descriptor_pb2.FileDescriptorSet.FromString(pathlib.Path(out.name).read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName("tandem.v1." + name))
            for name in ("A2fMessage", "F2aMessage", "A2fCall", "F2aReply", "HandoffGrant", "WorkerMessage", "RouterCommand")}


V1 = load_messages()


class Model:
    """The FFN of every layer (section 4), in float32."""

    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        tensors = {tensor.name: tensor for tensor in reader.tensors}

        def value(key):
            return reader.fields[key].contents()

        def weights(name):
            return numpy.ascontiguousarray(
                gguf.quants.dequantize(tensors[name].data, tensors[name].tensor_type), dtype=numpy.float32)

        if value("general.architecture") != "llama":
            raise SystemExit(f"{path}: architecture {value('general.architecture')}, only llama is served")
        self.layers, self.hidden = int(value("llama.block_count")), int(value("llama.embedding_length"))
        heads = int(value("llama.attention.head_count"))
        self.epsilon = numpy.float32(value("llama.attention.layer_norm_rms_epsilon"))
        self.dimensions = dict(
            layers=self.layers, hidden=self.hidden, kv_heads=int(value("llama.attention.head_count_kv")),
            head_dim=int(value("llama.rope.dimension_count")) if "llama.rope.dimension_count" in reader.fields else self.hidden // heads,
            vocabulary=len(reader.fields["tokenizer.ggml.tokens"].data), context_tokens=int(value("llama.context_length")))
        # Transposed, so that a tile of rows is multiplied from the left.
        self.weights = []
        for layer in range(self.layers):
            norm, gate, up, down = (weights(f"blk.{layer}.{name}.weight") for name in ("ffn_norm", "ffn_gate", "ffn_up", "ffn_down"))
            self.weights.append((norm, numpy.concatenate([gate, up]).T.copy(), down.T.copy()))
        self.bytes = sum(array.nbytes for layer in self.weights for array in layer)
        with open(path, "rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
        self.tile = TILE_ROWS if self._tiles_are_invariant() else 1
        self.numerics = f"gguf:{digest[:16]}/numpy/cpu/{numpy.__version__}/f32-tile{self.tile}/threads:1/whole"

    def _of_tile(self, layer, rows):
        norm, gate_up, down = self.weights[layer]
        scale = 1 / numpy.sqrt(numpy.mean(rows * rows, axis=1, keepdims=True, dtype=numpy.float32) + self.epsilon)
        both = (rows * scale * norm) @ gate_up
        gate, up = both[:, :both.shape[1] // 2], both[:, both.shape[1] // 2:]
        with numpy.errstate(over="ignore"):
            return (gate / (1 + numpy.exp(-gate)) * up) @ down

    def _tiles_are_invariant(self):
        """Whether a row's bits are the same at every place of a tile, whatever stands beside it."""
        random = numpy.random.default_rng(7)
        rows = random.standard_normal((TILE_ROWS, self.hidden), dtype=numpy.float32)
        first = self._of_tile(0, rows)
        for turn in range(1, TILE_ROWS):
            if not numpy.array_equal(self._of_tile(0, numpy.roll(rows, turn, axis=0)), numpy.roll(first, turn, axis=0)):
                return False
        alone = numpy.zeros_like(rows)
        alone[3] = rows[0]
        return numpy.array_equal(self._of_tile(0, alone)[3], first[0])

    def ffn(self, layer, rows):
        """[rows, hidden] to [rows, hidden]. BLAS adds in an order that hangs on the shape, so every product has one shape: a tile."""
        out = numpy.empty_like(rows)
        for start in range(0, len(rows), self.tile):
            part = rows[start:start + self.tile]
            tile = numpy.zeros((self.tile, self.hidden), dtype=numpy.float32)
            tile[:len(part)] = part
            out[start:start + len(part)] = self._of_tile(layer, tile)[:len(part)]
        return out


Waiting = collections.namedtuple("Waiting", "stream call arrival behind")


class Stream:
    """One sender's stream, once granted."""

    def __init__(self, name, max_rows, credit):
        self.name, self.max_rows, self.credit = name, max_rows, credit
        self.outstanding = 0  # bytes of replies owed or not yet taken by gRPC
        self.names = set()  # of outstanding calls
        self.replies = queue.SimpleQueue()  # (reply, bytes of its call's rows); None: the end
        self.live = self.open = False


class Server:
    """Streams in, one thread that computes (section 5)."""

    def __init__(self, model, model_name, epoch):
        self.model, self.model_name, self.epoch = model, model_name, epoch
        self.lock = threading.Condition()
        self.waiting = collections.deque()
        self.streams = set()
        self.granted = 0
        self.started = time.monotonic()
        self.busy = 0.0  # seconds
        self.idle = collections.Counter()  # seconds by cause
        threading.Thread(target=self._compute, daemon=True).start()

    # ---- Opening (section 3).

    def _refusal(self, hello):
        """(code, message) or None."""
        model = self.model
        if hello.protocol_version != 1:
            return INVALID_ARGUMENT, f"protocol version {hello.protocol_version}, this server speaks 1"
        if not 1 <= len(hello.attention_worker) <= 256:
            return INVALID_ARGUMENT, f"attention_worker has {len(hello.attention_worker)} bytes, not 1 to 256"
        if hello.max_rows < 1:
            return INVALID_ARGUMENT, "max_rows is 0"
        if hello.hidden < 1 or hello.layers < 1:
            return INVALID_ARGUMENT, f"hidden {hello.hidden}, layers {hello.layers}: each at least 1"
        if (hello.model, hello.hidden, hello.layers) != (self.model_name, model.hidden, model.layers):
            return FAILED_PRECONDITION, (f"this server holds {self.model_name} ({model.layers} layers of {model.hidden}), not "
                                         f"{hello.model} ({hello.layers} layers of {hello.hidden})")
        if hello.ffn_class not in ("", model.numerics):
            return FAILED_PRECONDITION, f"this server computes in class {model.numerics}, not {hello.ffn_class}"
        if hello.HasField("shard"):
            shard = hello.shard
            if (shard.first_layer, shard.last_layer, shard.column, shard.columns) != (0, model.layers, 0, 1):
                return FAILED_PRECONDITION, (f"this server holds all layers whole, not layers [{shard.first_layer}, {shard.last_layer}) "
                                             f"column {shard.column}/{shard.columns}")
        if hello.shard_epoch != self.epoch:
            return FAILED_PRECONDITION, f"STALE_SHARD: this server is at epoch {self.epoch}, not {hello.shard_epoch}"
        return None

    def _open(self, hello):
        """(stream or None, the message that answers)."""
        answer = V1["F2aMessage"]()
        grant = answer.grant
        grant.protocol_version, grant.shard_epoch = 1, self.epoch
        refusal = self._refusal(hello)
        if refusal is None:
            rows = min(hello.max_rows, MAX_ROWS)
            credit = 2 * rows * self.model.hidden * 4
            with self.lock:
                if self.granted + credit <= MAX_CREDIT_BYTES:
                    stream = Stream(hello.attention_worker, rows, credit)
                    stream.open = True
                    self.granted += credit
                    self.streams.add(stream)
                    grant.credit_bytes, grant.max_rows = credit, rows
                    return stream, answer
                refusal = RESOURCE_EXHAUSTED, f"{credit} B of credit for a stream; {self.granted} of {MAX_CREDIT_BYTES} B are granted"
        grant.error.code, grant.error.message = refusal
        return None, answer

    def exchange(self, messages, context):
        """Handoff.Exchange."""
        first = next(messages, None)
        if first is None:
            return
        if first.WhichOneof("message") != "open":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message is no open")
        stream, answer = self._open(first.open)
        yield answer
        if stream is None:
            return
        if not context.add_callback(lambda: self._close(stream)):
            self._close(stream)  # the sender is gone already
        fault = []
        threading.Thread(target=self._read, args=(stream, messages, fault), daemon=True).start()
        while (item := stream.replies.get()) is not None:
            reply, size, name = item
            with self.lock:
                stream.outstanding -= size
                stream.names.discard(name)
            yield reply
        if fault:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, fault[0])

    def _close(self, stream):
        with self.lock:
            if not stream.open:
                return
            stream.open = False
            self.streams.discard(stream)
            self.granted -= stream.credit
            self.waiting = collections.deque(item for item in self.waiting if item.stream is not stream)
        stream.replies.put(None)

    def _read(self, stream, messages, fault):
        try:
            for message in messages:
                kind = message.WhichOneof("message")
                if kind == "call":
                    self._take(stream, message.call)
                elif kind == "live":
                    stream.live = message.live.live
                else:
                    fault.append("a second open" if kind == "open" else "a message without open, call or live")
                    break
        except Exception:  # gRPC ends the iterator so when the stream is cancelled
            pass
        self._close(stream)

    # ---- Calls (section 4).

    def _check(self, stream, call):
        hidden, layers = self.model.hidden, self.model.layers
        if call.HasField("routing"):
            return UNIMPLEMENTED, "routing: the layers of this server are dense"
        if call.layer >= layers:
            return INVALID_ARGUMENT, f"layer {call.layer} of {layers}"
        if call.dtype != F32:
            return INVALID_ARGUMENT, f"data type {call.dtype}, only F32 is taken"
        if call.scales:
            return INVALID_ARGUMENT, f"{len(call.scales)} bytes of scales with F32"
        if call.rows > stream.max_rows:
            return INVALID_ARGUMENT, f"{call.rows} rows exceed {stream.max_rows} of the grant"
        if len(call.data) != call.rows * hidden * 4:
            return INVALID_ARGUMENT, f"{len(call.data)} bytes of data, {call.rows} rows of {hidden} need {call.rows * hidden * 4}"
        if call.segments and sum(call.segments) != call.rows:
            return INVALID_ARGUMENT, f"segments of {sum(call.segments)} rows in a call of {call.rows}"
        if call.shard_epoch != self.epoch:
            return FAILED_PRECONDITION, f"STALE_SHARD: this server is at epoch {self.epoch}, not {call.shard_epoch}"
        return None

    def _take(self, stream, call):
        name = (call.step, call.layer, call.micro_batch, call.attempt)
        error = self._check(stream, call)
        with self.lock:
            if error is None and name in stream.names:
                error = INVALID_ARGUMENT, "the same call is outstanding"
            size = len(call.data)
            if error is None and stream.outstanding + size > stream.credit:
                error = RESOURCE_EXHAUSTED, f"{size} B more than {stream.outstanding} of {stream.credit} B of credit"
            if error is None:
                if stream.open:
                    stream.outstanding += size
                    stream.names.add(name)
                    behind = any(item.stream is not stream for item in self.waiting)
                    self.waiting.append(Waiting(stream, call, time.monotonic(), behind))
                    self.lock.notify()
                return
        answer = self._answer(call)
        answer.reply.error.code, answer.reply.error.message = error
        answer.reply.shard_epoch = self.epoch
        stream.replies.put((answer, 0, None))

    @staticmethod
    def _answer(call):
        answer = V1["F2aMessage"]()
        reply = answer.reply
        reply.step, reply.layer, reply.micro_batch, reply.attempt = call.step, call.layer, call.micro_batch, call.attempt
        return answer

    def _next_batch(self):
        """The oldest call, and those of its layer that fit beside it."""
        with self.lock:
            self.lock.wait_for(lambda: self.waiting)
            layer, rows, batch, left = self.waiting[0].call.layer, 0, [], collections.deque()
            for item in self.waiting:
                if item.call.layer == layer and rows + item.call.rows <= MAX_ROWS:
                    batch.append(item)
                    rows += item.call.rows
                else:
                    left.append(item)
            self.waiting = left
            return layer, rows, batch

    def _compute(self):
        while True:
            layer, rows, batch = self._next_batch()
            start = time.monotonic()
            data = numpy.frombuffer(b"".join(item.call.data for item in batch), dtype="<f4").reshape(rows, self.model.hidden)
            out = self.model.ffn(layer, data).astype("<f4", copy=False)
            took = time.monotonic() - start
            self.busy += took
            senders = {item.stream for item in batch}
            first = 0
            for item in batch:
                answer = self._answer(item.call)
                reply = answer.reply
                reply.data = out[first:first + item.call.rows].tobytes()
                first += item.call.rows
                reply.queue_seconds, reply.compute_seconds, reply.merged_rows = start - item.arrival, took, rows
                reply.shared = item.behind or len(senders) > 1
                name = (item.call.step, item.call.layer, item.call.micro_batch, item.call.attempt)
                item.stream.replies.put((answer, len(item.call.data), name))

    # ---- The account (section 8).

    def heartbeat(self, beat):
        elapsed = time.monotonic() - self.started
        starved = any(stream.live for stream in self.streams)
        self.idle["starved" if starved else "no_work"] += elapsed - self.busy - sum(self.idle.values())
        beat.ledger.add(stage="ffn", state="busy", seconds=elapsed - sum(self.idle.values()))
        for cause, seconds in self.idle.items():
            beat.ledger.add(stage="ffn", state="idle", cause=cause, seconds=seconds)
        beat.elapsed_seconds = elapsed


def register(server, router, worker_id, address, pool, incarnation, stopping):
    """Keeps this server registered with one router (section 8)."""
    while not stopping.is_set():
        outbox = queue.SimpleQueue()
        hello = V1["WorkerMessage"]()
        reg = hello.registration
        reg.worker_id, reg.incarnation, reg.protocol_version, reg.pool, reg.model = worker_id, incarnation, 1, pool, server.model_name
        reg.stages.append(FFN)
        reg.memory_class, reg.numerics.ffn, reg.address = SRAM, server.model.numerics, address
        reg.capacity.max_handoff_rows, reg.shard_epoch = MAX_ROWS, server.epoch
        for name, number in server.model.dimensions.items():
            setattr(reg.dimensions, name, number)
        reg.weights_bytes, reg.device, reg.pid = server.model.bytes, "numpy", os.getpid()
        outbox.put(hello)
        try:
            with grpc.insecure_channel(router, options=[("grpc.enable_http_proxy", 0)]) as channel:
                call = channel.stream_stream("/tandem.v1.Registry/Register", V1["WorkerMessage"].SerializeToString,
                                             V1["RouterCommand"].FromString)
                commands = call(iter(outbox.get, None))
                _follow(server, commands, outbox, stopping)
                outbox.put(None)
        except grpc.RpcError as error:
            print(f"router {router}: {error.code()}: {error.details()}", flush=True)
        stopping.wait(1)


def _follow(server, commands, outbox, stopping):
    over = threading.Event()

    def beat(interval):
        while not over.wait(interval) and not stopping.is_set():
            message = V1["WorkerMessage"]()
            server.heartbeat(message.heartbeat)
            outbox.put(message)

    try:
        for command in commands:
            if command.WhichOneof("command") == "registered":
                if command.registered.HasField("error"):
                    print(f"refused: {command.registered.error.message}", flush=True)
                    return
                interval = command.registered.heartbeat_interval_seconds or 1
                threading.Thread(target=beat, args=(interval,), daemon=True).start()
                continue
            message = V1["WorkerMessage"]()
            message.result.command_id = command.command_id
            if command.WhichOneof("command") != "drain":
                message.result.error.code, message.result.error.message = UNIMPLEMENTED, "an FFN server knows no such command"
            outbox.put(message)
    finally:
        over.set()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--model-name", help="as the router knows it [the file's name without .gguf]")
    parser.add_argument("--listen", default="127.0.0.1:0")
    parser.add_argument("--router", action="append", default=[], help="HOST:PORT of a router to register with")
    parser.add_argument("--worker-id", default="ffn-numpy")
    parser.add_argument("--pool", default="ffn")
    options = parser.parse_args()
    now = time.time_ns()
    model = Model(options.model)
    server = Server(model, options.model_name or pathlib.Path(options.model).stem, now)
    handler = grpc.stream_stream_rpc_method_handler(server.exchange, V1["A2fMessage"].FromString, V1["F2aMessage"].SerializeToString)
    door = grpc.server(ThreadPoolExecutor(max_workers=256), options=[  # a thread for each stream that is open
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.so_reuseport", 0)])
    door.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("tandem.v1.Handoff", {"Exchange": handler})])
    host = options.listen.rsplit(":", 1)[0]
    address = f"{host}:{door.add_insecure_port(options.listen)}"
    door.start()
    print(f"serving {address} epoch {now}", flush=True)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    for router in options.router:
        threading.Thread(target=register, args=(server, router, options.worker_id, address, options.pool, now, stopping),
                         daemon=True).start()
    stopping.wait()
    door.stop(1).wait()


if __name__ == "__main__":
    main()
