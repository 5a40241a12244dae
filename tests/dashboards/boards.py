"""The dashboards and rules as data: their queries, and the metrics in a query."""
import json
import pathlib
import re

import yaml

SOURCE = pathlib.Path(__file__).resolve().parents[2]
FOLDER = SOURCE / "deploy" / "dashboards"
RULES = SOURCE / "deploy" / "prometheus" / "rules"
NAMES = ["overview", "stages", "tco", "gateway"]

NO_METRIC = {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "bool", "offset", "inf", "nan",
             "sum", "avg", "min", "max", "count", "group", "topk", "bottomk", "quantile", "stddev"}


def load(name):
    return json.loads((FOLDER / f"{name}.json").read_text())


def panels(board):
    """Those with queries."""
    return [panel for panel in board["panels"] if panel.get("targets")]


def variables(board):
    """Name to what a query has in its place when nobody chose."""
    values = {}
    for variable in board["templating"]["list"]:
        values[variable["name"]] = variable.get("allValue") or variable.get("query") or ""
    return values


def fill(expr, board, rate_interval="15s", span="60s"):
    """The query as Grafana would send it."""
    expr = expr.replace("$__rate_interval", rate_interval).replace("$__range", span)
    for name, value in variables(board).items():
        expr = re.sub(rf"\$\{{?{name}\b\}}?", str(value), expr)
    assert "$" not in expr, f"an unknown variable: {expr}"
    return expr


def queries():
    """(dashboard, panel title, legend, query) of every target."""
    for name in NAMES:
        board = load(name)
        for panel in panels(board):
            for target in panel["targets"]:
                yield name, panel["title"], target["legendFormat"], fill(target["expr"], board)


def rules():
    """Every recording and alerting rule."""
    for file in sorted(RULES.glob("*.yml")):
        for group in yaml.safe_load(file.read_text())["groups"]:
            yield from group["rules"]


def metrics_of(expr):
    """The names of the metrics that a query asks for. What it cannot place it calls a metric: better one too many."""
    expr = re.sub(r'"(?:[^"\\]|\\.)*"' + r"|'(?:[^'\\]|\\.)*'", '""', expr)
    expr = re.sub(r"\{[^}]*\}", "", expr)
    expr = re.sub(r"\[[^\]]*\]", "", expr)
    expr = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", expr)
    found = re.findall(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?!\s*\()(?![\w:])", expr)
    return {name for name in found if name.lower() not in NO_METRIC}
