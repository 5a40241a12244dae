#!/usr/bin/env python3
"""The dashboards as pictures, from the live queries of a Prometheus, in a page of our own and headless Chromium (no Grafana needed).

    tests/dashboards/screenshots.py                        starts an emulated cluster with Prometheus, loads it for some minutes, and
                                                           writes docs/images/dashboard-NAME.png
    tests/dashboards/screenshots.py --prometheus URL --seconds 600 --out DIR     of a Prometheus that runs already

Needs what `./dev setup` installs, a build (TANDEM_BINARY_DIR, default build/dev), and Debian's packages `chromium` and `pngquant`. Run it with the
Python of tests/e2e/setup.sh. Colours and axes are not Grafana's; panels, queries, units, legends and places are those of the JSON files.
"""
import argparse
import html
import math
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e")]

import boards  # noqa: E402
from monitored import Load, Monitored, Prometheus  # noqa: E402

COLUMN, ROW, GAP = 50, 31, 8          # pixels of Grafana's grid
COLOURS = ["#3274d9", "#e0752d", "#56a64b", "#a352cc", "#e02f44", "#0fa3b1", "#c9a227", "#7a5230", "#8ab8ff", "#ffa6b0", "#5c6f7b",
           "#b5d99c"]
STYLE = """body{margin:10px;font:12px/1.35 'DejaVu Sans',sans-serif;background:#f4f5f5;color:#24292e;position:relative}
.panel{position:absolute;background:#fff;border:1px solid #d8dde1;border-radius:3px;padding:6px 8px;box-sizing:border-box;overflow:hidden}
.note{background:none;border:none;font-size:13px}h1{font-size:19px;margin:0}h2{font-size:13px;margin:0}
.what{color:#66707a;font-size:10px;line-height:1.25}table{border-collapse:collapse;font-size:10px}
td{padding:0 14px 0 0;white-space:nowrap}td.n{text-align:right;color:#444}.dot{display:inline-block;width:9px;height:3px;margin-right:5px;
vertical-align:middle}text{font:10px 'DejaVu Sans',sans-serif;fill:#66707a}"""


# ---- Numbers.

def number(value, decimals=None):
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "-"
    if decimals is not None:
        return f"{value:.{decimals}f}"
    return f"{value / 1000:.3g}k" if abs(value) >= 10000 else f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def shown(value, unit, decimals=None):
    """A value in a unit of Grafana's."""
    if not math.isfinite(value):
        return "-"
    if unit == "percentunit":
        return f"{number(100 * value, decimals)} %" if decimals is not None or abs(value) < 0.1 else f"{100 * value:.0f} %"
    if unit == "currencyUSD":
        return f"${number(value, decimals)}"
    if unit == "s":
        for size, name in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
            if abs(value) >= size:
                return f"{number(value / size, decimals)} {name}"
        return "0 s"
    if unit == "reqps":
        return f"{number(value, decimals)} req/s"
    if unit.startswith("suffix:"):
        return f"{number(value, decimals)} {unit[7:].strip()}"
    return number(value, decimals)


def ticks(top):
    """A round step, and the axis' end."""
    if top <= 0:
        return 1.0, 1.0
    step = 10 ** math.floor(math.log10(top / 3))
    step = next(step * factor for factor in (1, 2, 5, 10) if top / (step * factor) <= 5)
    return step, step * math.ceil(top / step - 1e-9)


# ---- Panels.

def legend_of(target, labels):
    text = target["legendFormat"]
    for name in sorted(labels, key=len, reverse=True):
        text = text.replace("{{%s}}" % name, labels[name])
    return " ".join(boards.re.sub(r"\{\{\w+\}\}", "", text).split())


def curves(panel, board, prometheus, start, end):
    """[(legend, [(time, value)])], those that are not zero throughout first."""
    step = max(1, round((end - start) / 240))
    found = []
    for target in panel["targets"]:
        expr = boards.fill(target["expr"], board, rate_interval=f"{max(15, 4 * step)}s", span=f"{round(end - start)}s")
        for labels, points in prometheus.series(expr, start, end, step):
            points = [(at, value) for at, value in points if math.isfinite(value)]
            if points:
                found.append((legend_of(target, labels), points))
    alive = [curve for curve in found if any(value for _, value in curve[1])]
    return alive if panel["fieldConfig"]["defaults"].get("custom", {}).get("stacking", {}).get("mode") == "normal" and alive else found


def path(points, x, y):
    return " ".join(f"{'M' if not number_ else 'L'}{x(at):.1f},{y(value):.1f}" for number_, (at, value) in enumerate(points))


def chart(panel, found, start, end, width, height):
    defaults = panel["fieldConfig"]["defaults"]
    unit, decimals = defaults["unit"], defaults.get("decimals")
    stacked = defaults.get("custom", {}).get("stacking", {}).get("mode") == "normal"
    bases = {}
    layers = []
    for _, points in found:
        below = [(at, bases.get(at, 0.0)) for at, _ in points]
        above = [(at, value + (bases.get(at, 0.0) if stacked else 0)) for at, value in points]
        if stacked:
            bases.update(above)
        layers.append((below, above))
    highest = max((value for _, above in layers for _, value in above), default=0)
    step, top = ticks(min(highest * 1.02, defaults.get("max", math.inf)) if highest else 1)
    left, bottom, right, head = 66, 16, 6, 9
    x = lambda at: left + (at - start) / (end - start) * (width - left - right)
    y = lambda value: head + (1 - min(value, top) / top) * (height - bottom - head)
    out = [f'<svg width="{width}" height="{height}">']
    for line in range(round(top / step) + 1):
        at = y(line * step)
        out.append(f'<line x1="{left}" x2="{width - right}" y1="{at:.1f}" y2="{at:.1f}" stroke="#e5e8ea"/>'
                   f'<text x="{left - 5}" y="{at + 3:.1f}" text-anchor="end">{html.escape(shown(line * step, unit, decimals))}</text>')
    for part in range(6):
        at = start + (end - start) * part / 5
        seconds = round(at - start)
        out.append(f'<text x="{x(at):.0f}" y="{height - 3}" text-anchor="{"end" if part == 5 else "middle"}">'
                   f'{seconds // 60}:{seconds % 60:02d}</text>')
    for colour, (below, above) in reversed(list(zip(COLOURS * 9, layers))):
        if stacked:
            out.append(f'<path d="{path(above, x, y)} L{path(below[::-1], x, y)[1:]} Z" fill="{colour}" fill-opacity="0.65"/>')
        out.append(f'<path d="{path(above, x, y)}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    return "".join(out) + "</svg>"


def legend(panel, found, rows):
    defaults = panel["fieldConfig"]["defaults"]
    unit, decimals = defaults["unit"], defaults.get("decimals")
    cells = []
    for colour, (name, points) in zip(COLOURS * 9, found):
        values = [value for _, value in points]
        cells.append(f'<td><span class="dot" style="background:{colour}"></span>{html.escape(name)}</td>'
                     f'<td class="n">last {html.escape(shown(values[-1], unit, decimals))}</td>'
                     f'<td class="n">max {html.escape(shown(max(values), unit, decimals))}</td>')
    columns = [cells[at:at + rows] for at in range(0, len(cells), rows)]
    return "<table>" + "".join(f"<tr>{''.join(column[row] for column in columns if row < len(column))}</tr>" for row in range(rows)) + "</table>"


def bar_gauge(panel, board, prometheus, start, end):
    unit = panel["fieldConfig"]["defaults"]["unit"]
    target = panel["targets"][0]
    values = sorted(((legend_of(target, labels), value) for labels, value in
                     prometheus.query(boards.fill(target["expr"], board, span=f"{round(end - start)}s")) if value),
                    key=lambda entry: -entry[1])
    most = max((value for _, value in values), default=1)
    return "<table>" + "".join(
        f'<tr><td>{html.escape(name)}</td><td><div style="width:{round(260 * value / most)}px;height:11px;background:{COLOURS[0]}">'
        f'</div></td><td class="n">{html.escape(shown(value, unit))}</td></tr>' for name, value in values) + "</table>"


def panel_html(panel, board, prometheus, start, end):
    at = panel["gridPos"]
    width, height = at["w"] * COLUMN - GAP, at["h"] * ROW - GAP
    place = f'left:{at["x"] * COLUMN}px;top:{at["y"] * ROW + 30}px;width:{width}px;height:{height}px'
    if panel["type"] == "text":
        return f'<div class="panel note" style="{place}">{html.escape(panel["options"]["content"])}</div>'
    head = f'<h2>{html.escape(panel["title"])}</h2><div class="what">{html.escape(panel["description"])}</div>'
    if panel["type"] == "bargauge":
        body = bar_gauge(panel, board, prometheus, start, end)
    else:
        found = curves(panel, board, prometheus, start, end)
        rows = len(found) if len(found) <= 4 else math.ceil(len(found) / 2)
        text = 13 * math.ceil(len(panel["description"]) / 105) + 22
        body = (chart(panel, found, start, end, width - 18, height - text - 15 * rows - 8) + legend(panel, found, rows)
                if found else "<p>no data</p>")
    return f'<div class="panel" style="{place}">{head}{body}</div>'


def board_html(name, prometheus, start, end):
    board = boards.load(name)
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"]) * ROW + 50
    panels = "".join(panel_html(panel, board, prometheus, start, end) for panel in board["panels"])
    return f"<!doctype html><meta charset=utf-8><style>{STYLE}</style><h1>{html.escape(board['title'])}</h1>{panels}", bottom


def shoot(page, height, png):
    with tempfile.TemporaryDirectory(prefix="tandem-shot-") as folder:
        file = pathlib.Path(folder) / "page.html"
        file.write_text(page)
        subprocess.run(["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}/profile",
                        f"--window-size={24 * COLUMN + 20},{height}", f"--screenshot={png}", file.as_uri()],
                       check=True, capture_output=True, timeout=120)
    subprocess.run(["pngquant", "--force", "--output", png, "48", png], check=True)


def shoot_all(prometheus, start, end, out):
    out.mkdir(parents=True, exist_ok=True)
    for name in boards.NAMES:
        page, height = board_html(name, prometheus, start, end)
        png = out / f"dashboard-{name}.png"
        shoot(page, height, png)
        print(f"{png}: {png.stat().st_size // 1000} kB")


def own_cluster(options):
    """A little story: a small load, a larger one, an FFN worker that dies, then an attention worker."""
    import signal
    import cluster as clusters
    cluster = Monitored(time_scale=options.time_scale, slo_ttft_ms=60, slo_tpot_ms=6,
                        prices={"prefill": 40, "attention": 40, "ffn": 90})
    with clusters.started(cluster):
        prometheus = cluster.prometheus
        start = prometheus.now()

        def until(share):
            clusters.wait_for("the next act", lambda: prometheus.now() > start + share * options.seconds, seconds=options.seconds + 60)
        with Load(cluster, clients=6, seed=1):
            until(0.35)
            with Load(cluster, clients=30, seed=2):
                until(0.7)
                cluster.signal("ffn-0", signal.SIGKILL)
                until(0.85)
                cluster.signal("attention-1", signal.SIGKILL)
                until(1)
                shoot_all(prometheus, start, prometheus.now(), options.out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prometheus", help="its address [a cluster of our own]")
    parser.add_argument("--seconds", type=float, default=300, help="how far back, or how long the own cluster runs [300]")
    parser.add_argument("--time-scale", type=float, default=16, help="of the own cluster [16]")
    parser.add_argument("--out", type=pathlib.Path, default=boards.SOURCE / "docs" / "images")
    options = parser.parse_args()
    for program in ("chromium", "pngquant"):
        if not shutil.which(program):
            sys.exit(f"screenshots.py: no program `{program}` in PATH; install Debian's package `{program}`")
    if options.prometheus is None:
        return own_cluster(options)
    prometheus = Prometheus(options.prometheus.rstrip("/"))
    try:
        now = prometheus.now()
    except OSError as error:
        sys.exit(f"screenshots.py: no Prometheus at {options.prometheus}: {error}")
    shoot_all(prometheus, now - options.seconds, now, options.out)


if __name__ == "__main__":
    main()
