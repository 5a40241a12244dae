"""The dashboards as files: what the generator makes, in the form that a stock Grafana imports, with queries that parse."""
import re
import subprocess
import sys

import pytest
import yaml

import boards


def test_the_files_are_what_the_generator_makes():
    result = subprocess.run([sys.executable, str(boards.FOLDER / "generate.py"), "--check"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_each_has_an_address_of_its_own():
    loaded = [boards.load(name) for name in boards.NAMES]
    assert len({board["uid"] for board in loaded}) == len(loaded)
    assert len({board["title"] for board in loaded}) == len(loaded)
    assert {file.stem for file in boards.FOLDER.glob("*.json")} == set(boards.NAMES)


@pytest.mark.parametrize("name", boards.NAMES)
def test_a_stock_grafana_imports_it(name):
    board = boards.load(name)
    assert re.fullmatch(r"tandem-[a-z]+", board["uid"]) and board["title"] and board["description"]
    assert board["schemaVersion"] >= 36
    assert board.get("id") is None and "__inputs" not in board   # nothing of another Grafana in it
    source = board["templating"]["list"][0]
    assert (source["name"], source["type"], source["query"]) == ("datasource", "datasource", "prometheus")
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    taken = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24 and not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells


@pytest.mark.parametrize("name", boards.NAMES)
def test_every_panel_says_what_it_shows_and_in_which_unit(name):
    board = boards.load(name)
    for panel in boards.panels(board):
        title = panel["title"]
        assert title and len(panel["description"].split()) >= 4, title
        assert panel["fieldConfig"]["defaults"].get("unit"), title
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, title
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}" and target["legendFormat"], title
            for span in re.findall(r"\[([^\]]*)\]", target["expr"]):
                assert span in ("$__rate_interval", "$__range"), f"{title}: a window that does not follow the zoom: {span}"


def test_every_query_parses(tmp_path):
    rules = [{"record": f"query:{number}", "expr": expr} for number, (_, _, _, expr) in enumerate(boards.queries())]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    result = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("expr, names", [
    ('sum by (le) (rate(a_bucket{x="b_c"}[5m])) / scalar(avg(rate(d:e[1m])))', {"a_bucket", "d:e"}),
    ('a and on (pool, model_name) b{c="d"} > 0.5 or histogram_quantile(0.5, e)', {"a", "b", "e"}),
    ("3600 * sum(a) / on (x) group_left sum by (x) (b) / 1e6", {"a", "b"}),
])
def test_the_metrics_of_a_query_are_found(expr, names):
    assert boards.metrics_of(expr) == names
