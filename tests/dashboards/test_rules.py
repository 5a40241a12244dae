"""Recording rules, alerts and their runbook: `promtool` says whether they are right, and each alert has all that belongs to it."""
import re
import shutil
import subprocess

import pytest
import yaml

import boards

TESTS = boards.SOURCE / "tests" / "dashboards" / "rules_test.yml"
RUNBOOK = boards.SOURCE / "docs" / "runbook.md"


def alerts():
    return [rule for rule in boards.rules() if "alert" in rule]


def promtool(*arguments):
    assert shutil.which("promtool"), "no promtool: install Debian's package `prometheus` (./dev setup does)"
    result = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_promtool_accepts_the_rules():
    promtool("check", "rules", *sorted(boards.RULES.glob("*.yml")))


def test_promtool_accepts_the_configuration(tmp_path):
    shutil.copytree(boards.RULES.parent, tmp_path / "prometheus")
    (tmp_path / "prometheus" / "targets.json").write_text("[]")
    promtool("check", "config", tmp_path / "prometheus" / "prometheus.yml")


def test_every_alert_fires_and_stays_silent_where_it_should():
    promtool("test", "rules", TESTS)


def test_every_alert_has_an_expectation_of_each_kind():
    expected = {}
    for case in yaml.safe_load(TESTS.read_text())["tests"]:
        for check in case.get("alert_rule_test", ()):
            expected.setdefault(check["alertname"], set()).add(bool(check["exp_alerts"]))
    assert expected == {alert["alert"]: {True, False} for alert in alerts()}


def paragraphs():
    """Heading to text of the runbook."""
    parts = re.split(r"^### (\S+)$", RUNBOOK.read_text(), flags=re.M)[1:]
    return dict(zip(parts[::2], parts[1::2]))


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_every_alert_has_its_severity_summary_and_runbook(alert):
    assert alert["labels"]["severity"] in ("page", "ticket", "info")
    assert alert["annotations"]["summary"]
    assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{alert['alert'].lower()}"
    assert len(paragraphs().get(alert["alert"], "").split()) >= 25, f"docs/runbook.md says too little about {alert['alert']}"


def test_the_runbook_has_no_paragraph_of_an_alert_that_is_gone():
    assert set(paragraphs()) == {alert["alert"] for alert in alerts()}
