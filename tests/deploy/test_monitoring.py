"""Rules, alerts, dashboard and scalers: every name is exported, every query gives data on a real Prometheus."""

import contextlib
import copy
import json
import math
import re
import subprocess
import time

import pytest
import yaml

from rendering import DEPLOY, of_kind, run
from watched import RULES, Clipd, Prometheus, load

MONITORING = DEPLOY / "monitoring"
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RECORDED = {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule}
LOAD_SECONDS = 15


@pytest.fixture(scope="module")
def watched(clipd, tmp_path_factory):
    """A server and its Prometheus, after some load, and the moments of its beginning and end."""
    folder = tmp_path_factory.mktemp("watched")
    with contextlib.ExitStack() as stack:
        server = Clipd(clipd, folder, stack)
        prometheus = Prometheus(folder, server.metrics, stack)
        prometheus.wait_for("count(instance:clip_busy:ratio_rate1m == 0) == 2")
        start = time.time()
        # 504: deadlines that were not predicted to pass.
        assert load(server, LOAD_SECONDS) - {504} == {200, 400, 401, 429}
        yield server, prometheus, start, time.time()


def names(expression):
    """Metrics that an expression names, without what stands in quotes."""
    return set(re.findall(r"[\w:]*\b(?:clip|process)_\w+[\w:]*", re.sub(r'"[^"]*"', "", expression)))


def exported(exposition):
    """Names of series; those of a histogram have suffixes."""
    found = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", exposition, re.MULTILINE):
        found |= {name + end for end in ("_bucket", "_sum", "_count")} if kind == "histogram" else {name}
    return found


def expressions():
    """Every expression that is shipped, by where it stands."""
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for rule in (rule for group in RULES["groups"] for rule in group["rules"]):
        yield rule.get("record") or rule["alert"], rule["expr"]
    for rule in yaml.safe_load((MONITORING / "prometheus-adapter.yaml").read_text())["rules"]["custom"]:
        yield "prometheus-adapter", rule["seriesQuery"]
    scaler = yaml.safe_load((DEPLOY / "kubernetes/components/autoscaling-keda/autoscaler.yaml").read_text())
    for trigger in scaler["spec"]["triggers"]:
        yield "ScaledObject", trigger["metadata"]["query"]
    for variable in DASHBOARD["templating"]["list"][1:]:
        yield variable["name"], variable["definition"]


def test_every_metric_that_is_named_is_exported(watched):
    have = exported(watched[0].exposition()) | RECORDED
    missing = {(where, name) for where, expression in expressions() for name in names(expression) - have}
    assert missing == set()
    assert names('rate(clip_request_total{code="clip_x"}[1m])') - have == {"clip_request_total"}


def test_the_autoscaler_asks_for_what_the_adapter_shows(rendered):
    (scaler,) = of_kind(rendered("hpa"), "HorizontalPodAutoscaler")
    asked = {metric["pods"]["metric"]["name"] for metric in scaler["spec"]["metrics"]}
    adapter = yaml.safe_load((MONITORING / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    assert asked == {rule["name"]["as"] for rule in adapter}


def test_promtool_finds_no_fault_with_the_metrics(watched):
    def check(exposition):
        return subprocess.run(["promtool", "check", "metrics"], input=exposition, text=True, timeout=60).returncode

    assert check(watched[0].exposition()) == 0
    assert check("# TYPE clip_total gauge\nclip_total 1\n") != 0


def promtool(folder, rules):
    """Exit codes of checking and testing rules."""
    (folder / "rules.yml").write_text(yaml.safe_dump(rules))
    (folder / "tests.yml").write_bytes((MONITORING / "rules-test.yaml").read_bytes())
    commands = [["check", "rules", "--lint=all", "--lint-fatal", "rules.yml"], ["test", "rules", "tests.yml"]]
    return [subprocess.run(["promtool", *command], cwd=folder, timeout=60).returncode for command in commands]


def test_rules_are_right_and_fire_when_they_should(tmp_path):
    assert promtool(tmp_path, RULES) == [0, 0]
    broken = copy.deepcopy(RULES)
    broken["groups"][0]["rules"][0]["expr"] = "rate(clip_x[1m]"
    assert promtool(tmp_path, broken)[0] != 0
    never = copy.deepcopy(RULES)
    next(rule for rule in never["groups"][-1]["rules"] if rule["alert"] == "ClipShedding")["expr"] = "vector(0) > 1"
    assert promtool(tmp_path, never) == [0, 1]


def test_every_alert_is_seen_to_fire_and_to_be_silent():
    cases = [
        case
        for test in yaml.safe_load((MONITORING / "rules-test.yaml").read_text())["tests"]
        for case in test["alert_rule_test"]
    ]
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == ALERTS.keys()
    silent = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    assert ALERTS.keys() - silent == {"ClipConnectionsFull"}


def shown(expression):
    """As Grafana asks, with every server chosen."""
    for variable, value in {"$job": ".*", "$instance": ".*", "$__rate_interval": "5s"}.items():
        expression = expression.replace(variable, value)
    return expression


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_every_panel_shows_data(watched, panel):
    _, prometheus, start, end = watched
    for target in panel["targets"]:
        series = prometheus.query(shown(target["expr"]), start=start, end=end, step=1)
        values = [float(value) for one in series for _, value in one["values"]]
        assert any(math.isfinite(value) for value in values), target["expr"]


def test_a_query_without_data_is_noticed(watched):
    _, prometheus, start, end = watched
    misspelt = shown('rate(clip_requests_total{job=~"$job",code="ok"}[5s])')
    assert prometheus.query(misspelt, start=start, end=end, step=1) == []


def test_panels_lie_beside_each_other():
    taken = {}
    for panel in DASHBOARD["panels"]:
        box = panel["gridPos"]
        cells = [(x, y) for x in range(box["x"], box["x"] + box["w"]) for y in range(box["y"], box["y"] + box["h"])]
        assert max(x for x, _ in cells) < 24 and not any(cell in taken for cell in cells), panel["title"]
        taken.update(dict.fromkeys(cells, panel["title"]))
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_what_scaling_goes_by_rises_under_load(watched):
    _, prometheus, start, end = watched
    # How far depends on the machine; what exactly they say of given numbers is in rules-test.yaml.
    for record, least in ("instance:clip_busy:ratio_rate1m", 0.005), ("instance:clip_predicted_wait:seconds", 1e-4):
        for stage in ("engine", "preprocess"):
            (series,) = prometheus.query(f'{record}{{stage="{stage}"}}', start=start, end=end, step=1)
            values = [float(value) for _, value in series["values"]]
            assert values[0] == 0 and max(values) > least, (record, stage, values)
