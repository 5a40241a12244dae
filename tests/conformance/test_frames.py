"""Goal: whoever speaks a version of the hand-off goes on understanding it: no released frame changes, no released field goes.

Method: the golden frames are made again and compared; readers of earlier protos read today's frames; buf refuses a proto that breaks a
released one, tried with one proto for each way to break it.
"""
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "golden"))
import make_golden  # noqa: E402

PROTO = HERE.parents[1] / "proto"
READERS = sorted((HERE / "golden" / "readers").glob("*.binpb"))


def test_every_golden_frame_is_made_again_byte_by_byte():
    assert not [path for path, _ in make_golden.differing()]
    on_disk = {path.stem for path in (HERE / "golden" / "v1").glob("*.binpb")}
    assert on_disk == set(make_golden.V1)


def messages_of(descriptors):
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes()).file:
        pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName("tandem.v1." + name))
            for name in ("A2fMessage", "F2aMessage")}


@pytest.mark.parametrize("reader", READERS + [PROTO / "released.binpb"], ids=lambda path: path.stem)
def test_an_earlier_reader_understands_todays_frames(reader):
    v1 = messages_of(reader)

    def read(name):
        message = v1["F2aMessage" if "f2a" in name else "A2fMessage"]()
        message.ParseFromString((HERE / "golden" / "v1" / (name + ".binpb")).read_bytes())
        return message

    for name in make_golden.V1:
        assert read(name).WhichOneof("message"), name
    for name in ("a2f_call", "a2f_call_rows_last", "a2f_call_segments", "newer_a2f_call"):
        call = read(name).call
        assert (call.step, call.layer, call.micro_batch, call.attempt, call.rows, call.dtype, call.shard_epoch) == (300, 1, 1, 0, 2, 1, 7)
        assert call.data == make_golden.ROWS
    assert read("newer_a2f_call_data_type").call.dtype == 77, "an unknown value is seen as one, not taken for another"
    for name in ("f2a_grant", "newer_f2a_grant"):
        grant = read(name).grant
        assert (grant.credit_bytes, grant.max_rows, grant.shard_epoch, grant.HasField("error")) == (2048, 64, 7, False)
    refusal = read("f2a_refusal").grant
    assert (refusal.error.code, refusal.shard_epoch) == (9, 8) and refusal.error.message.startswith("STALE_SHARD")
    for name in ("f2a_reply", "f2a_reply_rows_last", "newer_f2a_reply"):
        reply = read(name).reply
        assert (reply.step, reply.layer, reply.micro_batch, reply.queue_seconds, reply.compute_seconds, reply.merged_rows) == (
            300, 1, 1, 0.25, 0.5, 6)
        assert reply.data == make_golden.ROWS


def breaking(folder):
    return subprocess.run([HERE / "protos.sh", folder], capture_output=True, text=True)


def test_todays_protos_break_nothing_that_was_released():
    result = breaking(PROTO)
    assert result.returncode == 0, result.stdout + result.stderr


BREAKS = {
    "a field removed": (r"  uint32 attempt = 4;      // rises[^\n]*\n", "", "attempt"),
    "a field removed, its number reserved": (r"  uint32 merged_rows = 8;[^\n]*", "  reserved 8;", "merged_rows"),
    "a number used again": (r"  uint32 merged_rows = 8;", "  uint32 waiting_rows = 8;", "waiting_rows"),
    "another number": (r"uint64 shard_epoch = 8;  // a mismatch", "uint64 shard_epoch = 48;  // a mismatch", "shard_epoch"),
    "another type": (r"  uint64 step = 1;         //", "  int64 step = 1;         //", "step"),
    "one made many": (r"  uint32 micro_batch = 3;\n  uint32 attempt = 4;      //", "  repeated uint32 micro_batch = 3;\n  uint32 attempt = 4;      //",
                      "micro_batch"),
    "an enum's value removed": (r"  DATA_TYPE_F32 = 1;\n", "", "DATA_TYPE_F32|\"1\""),
    "an enum's value moved": (r"  DATA_TYPE_F32 = 1;", "  DATA_TYPE_F32 = 2;", "DATA_TYPE_F32|\"1\""),
    "an alternative taken out": (r"    HandoffLive live = 3;\n  }", "  }\n  HandoffLive live = 3;", "live"),
    "a message removed": (r"message Routing \{.*?\n\}\n", "", "Routing"),
    "the call renamed": (r"rpc Exchange", "rpc Swap", "Exchange"),
    "the stream made one message": (r"returns \(stream F2aMessage\)", "returns (F2aMessage)", "Exchange"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_proto_that_breaks_a_released_one_is_refused(name, tmp_path):
    pattern, replacement, named = BREAKS[name]
    shutil.copytree(PROTO, tmp_path / "proto")
    file = tmp_path / "proto" / "tandem" / "v1" / "handoff.proto"
    text, count = re.subn(pattern, replacement, file.read_text(), flags=re.S)
    assert count == 1
    if name == "a message removed":
        text = re.sub(r"  Routing routing = 12;[^\n]*\n", "", text)
    file.write_text(text)
    result = breaking(tmp_path / "proto")
    assert result.returncode == 100 and re.search(named, result.stdout), f"{result.returncode}: {result.stdout}{result.stderr}"


def test_a_new_field_breaks_nothing(tmp_path):
    shutil.copytree(PROTO, tmp_path / "proto")
    file = tmp_path / "proto" / "tandem" / "v1" / "handoff.proto"
    file.write_text(file.read_text().replace("message HandoffLive {", "message HandoffLive {\n  uint32 sequences = 3;"))
    result = breaking(tmp_path / "proto")
    assert result.returncode == 0, result.stdout + result.stderr
