"""`tandemctl explain` on live clusters: the tokens are the API's, the operations the cost model's, the times lie within the step."""
import html.parser
import json
import re
import socket
import subprocess
import threading

import pytest

import cluster as clusters
from api import complete

PROMPT = "The capital of France is"
# Three ways to get out of where a prompt is shown: of a script, of a terminal, of the reading direction.
HOSTILE = "</script><script>alert(1)</script> \x1b[31m\u202e & done"
KINDS = {"remote": ["attention", "a2f", "queue", "ffn", "f2a"], "local": ["attention", "ffn"]}
# SmolLM2-135M: parameters of one layer's attention and FFN; bits as loaded, Q4_1 with the layer's F32 norms, Q8_0.
LAYERS, HIDDEN, VOCABULARY, KV_WIDTH, FFN = 30, 576, 49152, 192, 1536
ATTENTION_BYTES = (2 * HIDDEN * HIDDEN + 2 * HIDDEN * KV_WIDTH) * 5 / 8
FFN_BYTES = 3 * HIDDEN * FFN * 5 / 8


def explain(cluster, *flags, prompt=PROMPT, check=True):
    return cluster.ctl("explain", "--state-dir", str(cluster.state_dir), "--prompt", prompt, *flags, check=check)


def report_of(cluster, *flags, prompt=PROMPT):
    return json.loads(explain(cluster, "--json", *flags, prompt=prompt).stdout)


def parts_of(report, kind):
    return [part for part in report["parts"] if part["kind"] == kind]


def check_times(report):
    """Every layer was measured, and what one micro-batch does one after the other fits into its step."""
    step = report["step"]
    remote = any(part["kind"] == "a2f" for part in report["parts"])
    kinds = ["embed"] + KINDS["remote" if remote else "local"] * report["layers"] + ["head"]
    assert [part["kind"] for part in report["parts"]] == kinds
    assert [part["layer"] for part in parts_of(report, "attention")] == list(range(report["layers"]))
    assert sum(batch["rows"] for batch in step["micro_batches"]) == step["rows"] == 1
    assert len(step["micro_batches"]) == 1
    measured = 0
    for part in report["parts"]:
        assert part["measured_seconds"] >= 0, part
        measured += part["measured_seconds"]
        assert part["ops"][-1]["total"]["measured_seconds"] == pytest.approx(measured, rel=1e-9)
        # The clocks of two workers are known to clock_error_seconds.
        assert -step["clock_error_seconds"] <= part["begin_seconds"] <= step["seconds"] + step["clock_error_seconds"], part
    assert 0.3 * step["seconds"] < measured <= step["seconds"] * (1 + 1e-6), (measured, step)
    assert step["attention_busy_seconds"] + step["ffn_busy_seconds"] <= step["seconds"] * (1 + 1e-6)
    for part in parts_of(report, "attention") + parts_of(report, "ffn"):
        assert part["measured_seconds"] > 0, part


def check_totals(report):
    bytes_, flops = 0, 0
    for part in report["parts"]:
        for op in part["ops"]:
            bytes_ += op["weight_bytes"] + op["kv_bytes"] + op["read_bytes"] + op["write_bytes"]
            flops += op["flops"]
            assert op["total"]["memory_bytes"] == pytest.approx(bytes_) and op["total"]["flops"] == pytest.approx(flops)
    return bytes_, flops


@pytest.fixture(scope="module")
def real():
    with clusters.running("afd") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def emulated():
    cluster = clusters.Cluster("pd-afd", model_name="emulated-model",
                               extra=["--backend", "emulated", "--model-shape", "mixtral-8x7b", "--devices", "rubin-lpx",
                                      "--time-scale", "16"])
    with clusters.started(cluster):
        yield cluster


def test_a_real_request_split_between_two_workers(real):
    report = report_of(real, "--tokens", "5")
    answer = complete(real, PROMPT, 5, temperature=0, return_token_ids=True, logprobs=5)
    choice = answer["choices"][0]
    assert [token["id"] for token in report["tokens"]] == choice["token_ids"]
    assert "".join(token["text"] for token in report["tokens"]) == choice["text"]
    # The last token's candidates are those that the API gives.
    tops = choice["logprobs"]["top_logprobs"][-1]
    assert {candidate["text"]: pytest.approx(candidate["logprob"], abs=1e-4) for candidate in report["candidates"]} == tops
    assert [candidate["text"] for candidate in report["candidates"] if candidate["chosen"]] == [report["tokens"][-1]["text"]]
    assert report["candidates"][0]["chosen"], "greedy"
    assert 0 < report["candidates"][0]["probability"] <= 1
    assert report["prompt_tokens"] == answer["usage"]["prompt_tokens"]
    # The row of the step is the fourth token, at its place behind the prompt.
    assert report["step"]["position"] == report["prompt_tokens"] + 3
    assert report["step"]["micro_batches"][0]["context_tokens"] == report["prompt_tokens"] + 4
    assert report["topology"] == "afd" and report["step"]["worker"] == "attention-0"
    check_times(report)


def test_a_real_workers_bytes_and_flops(real):
    report = report_of(real)
    check_totals(report)
    context = report["step"]["micro_batches"][0]["context_tokens"]
    for part in parts_of(report, "attention"):
        ops = {op["name"]: op for op in part["ops"]}
        # Within a hundredth: the norms are loaded with them.
        assert sum(op["weight_bytes"] for op in part["ops"]) == pytest.approx(ATTENTION_BYTES, rel=0.01)
        assert ops["q_proj"]["shape"] == f"[1, {HIDDEN}] x [{HIDDEN}, {HIDDEN}]"
        assert ops["q_proj"]["flops"] == 2 * HIDDEN * HIDDEN
        assert ops["attention"]["kv_bytes"] == context * 2 * KV_WIDTH * 2
        assert ops["attention"]["flops"] == 4 * HIDDEN * context
        assert ops["kv_write"]["write_bytes"] == 2 * KV_WIDTH * 2
        assert part["workers"] == ["attention-0"]
    for part in parts_of(report, "ffn"):
        # The norm before the FFN is the FFN worker's.
        norm, ffn = part["ops"]
        assert (norm["name"], ffn["name"]) == ("ffn_norm", "ffn")
        assert ffn["weight_bytes"] == pytest.approx(FFN_BYTES, rel=0.01)
        assert ffn["flops"] == 2 * 3 * HIDDEN * FFN
        assert part["workers"] == ["ffn-0"]
    for kind, ends in (("a2f", ["attention-0", "ffn-0"]), ("f2a", ["ffn-0", "attention-0"])):
        assert all(part["workers"] == ends and part["ops"][0]["link_bytes"] == HIDDEN * 4 for part in parts_of(report, kind))
    head = {op["name"]: op for op in parts_of(report, "head")[0]["ops"]}
    assert head["head"]["weight_bytes"] == pytest.approx(VOCABULARY * HIDDEN * 8.5 / 8, rel=1e-3)
    # Nobody knows this machine's chip: said, and nothing is made up.
    assert all(worker["device"] == "ggml-cpu" and worker["chip"] == "" and "--chip" in worker["no_model"] for worker in report["workers"])
    assert all(op["model_seconds"] is None for part in report["parts"] for op in part["ops"])
    # All layers alike: once, with the spread of what was measured.
    assert [group["layers"] for group in report["groups"]] == [list(range(LAYERS))]
    spread = report["groups"][0]["measured"]["attention"]
    seconds = sorted(part["measured_seconds"] for part in parts_of(report, "attention"))
    assert (spread["min_seconds"], spread["max_seconds"]) == (seconds[0], seconds[-1])
    assert spread["sum_seconds"] == pytest.approx(sum(seconds))


def test_a_chip_may_be_named_for_a_real_worker(real):
    report = report_of(real, "--chip", "h100")
    assert all((worker["chip"], worker["forecast"]) == ("", "h100-sxm") for worker in report["workers"])
    assert all(op["model_seconds"] is not None for part in report["parts"] for op in part["ops"])
    assert report["parts"][-1]["ops"][-1]["total"]["model_seconds"] > 0


def test_emulated_experts_cost_what_the_cost_model_says(emulated):
    report = report_of(emulated, "--tokens", "3")
    check_times(report)
    check_totals(report)
    assert report["layers"] == 32 and report["step"]["time_scale"] == 16
    assert report["topology"] == "pd-afd"
    ids = complete(emulated, PROMPT, 3, temperature=0, return_token_ids=True)["choices"][0]["token_ids"]
    assert [token["id"] for token in report["tokens"]] == ids
    # The emulated device takes what the cost model says of it: here it is measured.
    for kind in ("attention", "ffn"):
        for part in parts_of(report, kind):
            assert part["measured_seconds"] == pytest.approx(part["model_seconds"], rel=2e-3), part
            assert sum(op["model_seconds"] for op in part["ops"]) == pytest.approx(part["model_seconds"])
    # And the operations are those that `fit` lists of the same model and batch, call by call.
    context = report["step"]["micro_batches"][0]["context_tokens"]
    out = emulated.ctl("fit", "mixtral-8x7b", "--chip", "h200-x8", "--weights", "fp8", "--batch", "1", "--context",
                       str(context), "--json").stdout
    listed = {op["name"]: op for op in json.loads(out)["ops"]["fp8"]["step"]}
    shown = {op["name"]: op for part in report["parts"] for op in part["ops"]}
    for name, op in listed.items():
        assert {key: shown[name][key] for key in ("shape", "weight_bytes", "kv_bytes", "read_bytes", "write_bytes", "flops")} == \
               {key: pytest.approx(op[key]) if key != "shape" else op[key]
                for key in ("shape", "weight_bytes", "kv_bytes", "read_bytes", "write_bytes", "flops")}, name
    assert "experts" in shown and "router" in shown
    assert set(shown) - set(listed) == {"a2f", "queue", "f2a", "fixed"} | ({"all_reduce"} & set(shown))


def test_text_shows_layers_once_and_any_layer_on_request(real):
    text = explain(real).stdout
    assert "layers 0-29: 30 alike" in text and "layer 17, opened" not in text
    assert all(len(line) <= 100 for line in text.splitlines())
    opened = explain(real, "--layer", "17").stdout
    assert "layer 17, opened" in opened


class Page(html.parser.HTMLParser):
    """Every element with its attributes, and the text of each script."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.scripts, self.inside = [], [], None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts[-1] += data


def test_a_page_holds_the_report_and_nothing_of_the_prompt_is_markup(real, tmp_path):
    file = tmp_path / "step.html"
    out = explain(real, "--html", str(file), prompt=HOSTILE)
    assert str(file) in out.stdout
    page = Page(file.read_text())
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 2 and tags[0] == "html" and "img" not in tags
    for tag, attributes in page.elements:
        assert not {"src", "href"} & attributes.keys(), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
    report = json.loads(page.scripts[0])
    assert report["prompt"] == HOSTILE and len(parts_of(report, "ffn")) == LAYERS
    assert "alert(1)" not in page.scripts[1]


def test_it_waits_for_a_gateway_that_does_not_listen_yet(real):
    def pass_on(source, target):
        while part := source.recv(65536):
            target.sendall(part)
        target.shutdown(socket.SHUT_WR)

    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))  # and refuses, until it listens
        address = f"127.0.0.1:{door.getsockname()[1]}"
        waiting = subprocess.Popen([clusters.BINARY / "bin/tandemctl", "explain", "--state-dir", real.state_dir, "--prompt", PROMPT, "--gateway", address,
                                    "--wait", str(clusters.LONG)], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            assert waiting.stderr.readline() == f"waiting: {address}: connect: Connection refused\n"
            door.listen()
            client, _ = door.accept()
            with client, socket.create_connection(("127.0.0.1", real.port)) as gateway:
                asked = threading.Thread(target=pass_on, args=(client, gateway), daemon=True)
                asked.start()
                pass_on(gateway, client)
            said, complaint = waiting.communicate(timeout=clusters.LONG)
        finally:
            waiting.kill()
    assert waiting.returncode == 0 and '" Paris' in said, complaint


def test_nothing_of_the_prompt_controls_the_terminal(real):
    text = explain(real, prompt=HOSTILE).stdout
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    assert "\\x1b[31m" in text and "\\u{202e}" in text


@pytest.mark.parametrize("flags, prompt, words", [
    ([], "", ["prompt is empty"]),
    (["--router", "127.0.0.1:1"], PROMPT, ["127.0.0.1:1"]),
    (["--gateway", "127.0.0.1:1"], PROMPT, ["127.0.0.1:1"]),
    ([], "word " * 9000, ["400", "context"]),
    (["--chip", "abacus"], PROMPT, ["abacus"]),
    (["--catalog", "/nowhere"], PROMPT, ["/nowhere"]),
    (["--html", "/nowhere/step.html"], PROMPT, ["/nowhere/step.html", "No such file"]),
    (["--layer", "30"], PROMPT, ["--layer 30", "0 to 29"]),
])
def test_bad_input_gets_one_clear_line(real, flags, prompt, words):
    result = explain(real, *flags, prompt=prompt, check=False)
    assert result.returncode == 1 and result.stdout == ""
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("tandemctl: "), result.stderr
    for word in words:
        assert word in result.stderr, result.stderr
    real.wait_idle()
