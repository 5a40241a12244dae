"""`tandemctl top` in a terminal: it shows a cluster under load, follows its size, survives its router, and leaves the terminal as it was."""
import contextlib
import os
import re
import signal
import termios

import pytest

import cluster as clusters
from api import Stream
from terminal import Terminal

CTL = str(clusters.BINARY / "bin" / "tandemctl")


@pytest.fixture(scope="module")
def emulated():
    """Attention and FFN on devices of the catalog, with a scale of its own, so that finding one sends no requests."""
    cluster = clusters.Cluster("afd", model_name="emulated-model",
                               extra=["--backend", "emulated", "--model-shape", "llama-3-70b", "--devices", "rubin-lpx", "--time-scale", "8"])
    with clusters.started(cluster):
        yield cluster


@contextlib.contextmanager
def top(cluster, *flags, **options):
    terminal = Terminal([CTL, "top", "--state-dir", str(cluster.state_dir), "--interval", "0.2", *flags], **options)
    try:
        yield terminal
    finally:
        terminal.close()


def check_fits(terminal):
    """Every line that the program drew is within the screen: the first column of each is where it put it."""
    assert all(len(line) == terminal.screen.columns for line in terminal.screen.display)
    assert terminal.screen.display[0].startswith("tandem top "), terminal.text()


def shares(text, pool):
    """Busy, stall and idle of a pool, in percent; nothing while it is not shown."""
    line = next((line for line in text.splitlines() if line.startswith(pool + " ")), "")
    return [float(share) for share in re.findall(r"([\d.]+)%", line)[:3]]


def test_it_shows_a_cluster_under_load_and_follows_its_size(emulated):
    streams = [Stream(emulated, f"Stream {number}", max_tokens=600, ignore_eos=True) for number in range(4)]
    for stream in streams:
        assert stream.first.wait(clusters.LONG), stream.error
    Stream(emulated, "A short one", max_tokens=8, ignore_eos=True).wait_end()
    with top(emulated) as terminal:
        # The window reaches back to before the load.
        text = terminal.wait("tokens flow, both pools are busy and a request has finished",
                             lambda text: re.search(r"tok/s out [1-9]", text) and "TTFT mean" in text
                             and all(shares(text, pool) and shares(text, pool)[0] > 1 for pool in ("attention", "ffn")))
        check_fits(terminal)
        for words in ("ready", "sequences", "takes 8 s here", "attention", "ffn", "waits:", "$/Mtok", "TPOT mean", "q quit", "(sram)"):
            assert words in text, text
        for pool in ("attention", "ffn"):
            assert sum(shares(text, pool)) == pytest.approx(100, abs=0.3), text
        # The pools' heading is as wide as the screen, up to bars of 60 columns.
        for columns, lines, heading in ((100, 30, 100), (200, 50, 112), (40, 10, None), (20, 4, None), (80, 24, 80)):
            terminal.resize(columns, lines)
            terminal.wait(f"a frame of {columns} x {lines}", lambda text: text.startswith("tandem top") and (
                heading is None or any(len(line) == heading and line.startswith("POOL") for line in text.splitlines())))
            check_fits(terminal)
        terminal.press(b"q")
        assert terminal.wait_exit() == 0
    for stream in streams:
        stream.join(0)


@pytest.mark.parametrize("keys", [b"q", b"\x03"], ids=["q", "ctrl-c"])
def test_it_leaves_the_terminal_as_it_was(emulated, keys):
    with top(emulated) as terminal:
        terminal.wait("a frame", lambda text: "q quit" in text)
        assert not terminal.modes()[3] & termios.ICANON
        terminal.press(keys)
        assert terminal.wait_exit() == 0
        assert terminal.modes()[3] & termios.ICANON and terminal.modes()[3] & termios.ECHO
        # The alternate screen is left and the cursor is back, in xterm's words.
        assert terminal.raw.rfind(b"\x1b[?1049l") > terminal.raw.rfind(b"\x1b[?1049h")
        assert terminal.raw.rfind(b"\x1b[?25h") > terminal.raw.rfind(b"\x1b[?25l")


def test_a_signal_ends_it_as_cleanly(emulated):
    with top(emulated) as terminal:
        terminal.wait("a frame", lambda text: "q quit" in text)
        os.kill(terminal.pid, signal.SIGTERM)
        assert terminal.wait_exit() == 0
        assert terminal.modes()[3] & termios.ICANON


def test_a_router_that_goes_away_is_said_and_tried_again(emulated):
    with top(emulated) as terminal:
        terminal.wait("a frame", lambda text: "q quit" in text)
        emulated.signal("router", signal.SIGSTOP)
        try:
            text = terminal.wait("the screen says so", lambda text: "NO ANSWER for" in text)
            assert "attention" in text, "its last word stays"
        finally:
            emulated.signal("router", signal.SIGCONT)
        terminal.wait("it is back", lambda text: "NO ANSWER" not in text and "ready" in text)
        terminal.press(b"q")
        assert terminal.wait_exit() == 0
    emulated.wait_ready()


def test_once_prints_a_frame_for_a_pipe(emulated):
    result = emulated.ctl("top", "--once", "--state-dir", str(emulated.state_dir))
    assert "\x1b" not in result.stdout
    assert result.stdout.startswith("tandem top ") and "WORKER" in result.stdout
    assert all(len(line) <= 100 for line in result.stdout.splitlines())


@pytest.mark.parametrize("arguments, words", [
    ([], ["needs a terminal", "--once"]),
    (["--router", "127.0.0.1:1"], ["127.0.0.1:1"]),
    (["--once", "--router", "127.0.0.1:1"], ["127.0.0.1:1"]),
    (["--once", "--window", "soon"], ["soon"]),
])
def test_what_cannot_be_shown_is_said_in_one_line(emulated, arguments, words):
    result = emulated.ctl("top", "--state-dir", str(emulated.state_dir), *arguments, check=False)
    assert result.returncode == 1 and result.stdout == ""
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("tandemctl: ")
    for word in words:
        assert word in result.stderr, result.stderr


def test_an_unknown_terminal_is_said(emulated):
    with top(emulated, env={"TERM": "no-such-terminal"}) as terminal:
        assert terminal.wait_exit() == 1
        assert "no-such-terminal" in terminal.text()
