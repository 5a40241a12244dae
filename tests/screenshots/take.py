#!/usr/bin/env python3
"""Makes the pictures of docs/images/: take.py [top|explain ...]. See README.md."""
import html
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))

import cluster as clusters  # noqa: E402
from api import Stream  # noqa: E402
from terminal import Terminal  # noqa: E402

IMAGES = HERE.parents[1] / "docs" / "images"
MAX_BYTES = 200_000
CTL = str(clusters.BINARY / "bin" / "tandemctl")
# pyte's names of colours, for a dark terminal.
COLOURS = {"default": "#d5d9e0", "green": "#5fd38a", "brown": "#e6c34a", "yellow": "#e6c34a", "blue": "#6aa5ff", "red": "#ff7a70"}


def chromium(page, picture, width, height):
    """Takes the page at `width` x `height`."""
    binary = shutil.which("chromium")
    assert binary, "no chromium: apt-get install chromium"
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run([binary, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}",
                        f"--window-size={width},{height}", f"--screenshot={picture}", page.as_uri()],
                       check=True, capture_output=True, timeout=300)
    size = picture.stat().st_size
    assert size < MAX_BYTES, f"{picture}: {size} bytes, at most {MAX_BYTES}"
    print(f"{picture}: {size} bytes")


def cell(character):
    style = [f"color:{COLOURS.get(character.fg, COLOURS['default'])}"]
    if character.bold:
        style.append("font-weight:bold")
    if character.reverse:
        style = ["color:#161a21", "background:#d5d9e0", "font-weight:bold"]
    return f'<span style="{";".join(style)}">{html.escape(character.data)}</span>'


def screen_page(terminal):
    """A terminal's screen as a page."""
    lines = []
    for row in range(terminal.screen.lines):
        cells = terminal.screen.buffer[row]
        lines.append("".join(cell(cells[column]) for column in range(terminal.screen.columns)))
    return ("<!DOCTYPE html><meta charset=utf-8><style>body{margin:0;background:#161a21}"
            "pre{margin:14px;font:15px/1.25 'DejaVu Sans Mono',monospace}</style><pre>" + "\n".join(lines) + "</pre>")


def take_top(folder):
    columns, lines = 100, 22
    prices = HERE.parents[1] / "deploy" / "prices" / "example.yaml"
    cluster = clusters.Cluster("afd", model_name="emulated-model", extra=["--time-scale", "16"], config=f"""
topology: afd
emulated: {{model_shape: llama-3-70b, devices: rubin-lpx}}
router: {{flags: {{prices: {prices}}}}}
workers:
  - {{pool: attention, count: 2}}
  - {{pool: ffn}}
""")
    with clusters.started(cluster):
        streams = [Stream(cluster, f"Stream {number}", max_tokens=900, ignore_eos=True) for number in range(12)]
        for stream in streams:
            assert stream.first.wait(clusters.LONG), stream.error
        terminal = Terminal([CTL, "top", "--state-dir", str(cluster.state_dir)], columns, lines)
        try:
            for number in range(4):
                Stream(cluster, f"A short one, {number}", max_tokens=6, ignore_eos=True).wait_end()
            terminal.wait("a window of ten seconds under load", lambda text: re.search(r"tok/s out [1-9]", text) and "TTFT mean" in text
                          and "in the last 10 s" in text)
            page = folder / "top.html"
            page.write_text(screen_page(terminal))
            print(terminal.text())
            terminal.press(b"q")
            assert terminal.wait_exit() == 0
        finally:
            terminal.close()
        chromium(page, IMAGES / "top.png", 960, 470)


def take_explain(folder):
    with clusters.running("afd") as cluster:
        page = folder / "explain.html"
        cluster.ctl("explain", "--state-dir", str(cluster.state_dir), "--prompt", "The capital of France is", "--tokens", "5", "--html", str(page))
    chromium(page, IMAGES / "explain.png", 1120, 840)


TAKERS = {"top": take_top, "explain": take_explain}


def main():
    wanted = sys.argv[1:] or sorted(TAKERS)
    unknown = set(wanted) - TAKERS.keys()
    if unknown:
        sys.exit(f"take.py: no picture '{unknown.pop()}': {', '.join(sorted(TAKERS))}")
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name in wanted:
        with tempfile.TemporaryDirectory() as folder:
            TAKERS[name](pathlib.Path(folder))


if __name__ == "__main__":
    main()
