"""Alerts and dashboard speak of what the daemon exports, and of nothing else."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.k8s.promql import Selector, selectors
from tests.k8s.rendered import DAEMONSET, MONITORING, PORTS, SIDECAR, one, rendered, zkside
from tests.ops.process import DaemonProcess
from tests.ops.secured import secured
from tests.ops.test_metrics import tool, use
from zkside.client import Client

pytestmark = pytest.mark.k8s

OF_THE_TARGET = {"job", "instance", "namespace", "pod", "container", "endpoint"}
"""Labels that Prometheus adds to what it scrapes."""
OF_THE_SCRAPE = {"up": set[str]()}
"""What Prometheus itself says of it."""
VARIABLES = {"namespace": ".*", "instance": ".*", "__rate_interval": "1m", "__range": "1h"}
"""As Grafana replaces them."""
NOT_SHOWN = {
    "zkside_config_needs_restart",
    "zkside_config_reloads_total",
    "zkside_files_failures_total",
    "zkside_files_loaded_timestamp_seconds",
    "zkside_files_loads_total",
    "zkside_listener_restores_total",
    "zkside_policy_identities",
    "zkside_zookeeper_connect_failures_total",
}
"""Neither an alert nor a panel needs them; zkside_files_current says what matters of files, zkside_listener_open of
sockets, zkside_session_state of connections."""
RUNBOOK = Path(__file__).resolve().parents[2] / "docs/runbook.md"


def groups() -> dict[str, Any]:
    """The rules as a Prometheus without the operator reads them."""
    spec: dict[str, Any] = one(rendered(MONITORING), "PrometheusRule")["spec"]
    return spec


def alerts() -> dict[str, str]:
    """Expressions by the alert's name."""
    return {rule["alert"]: rule["expr"] for group in groups()["groups"] for rule in group["rules"]}


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(one(rendered(MONITORING), "ConfigMap")["data"]["zkside.json"])
    return found


def shown() -> list[tuple[str, str]]:
    """(panel, expression) of the dashboard, its variables replaced as Grafana does for "All"."""
    return [
        (
            panel["title"],
            re.sub(r"\$(\w+)", lambda variable: VARIABLES[variable[1]], target["expr"]),
        )
        for panel in dashboard()["panels"]
        for target in panel.get("targets", [])
    ]


def promtool(*arguments: str, cwd: Path) -> str:
    done = subprocess.run([tool("promtool"), *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_expressions_are_taken_apart_rightly() -> None:
    expression = 'sum by (le) (rate(a_bucket{x="1",y!~"2|3"}[5m])) unless b_total offset 5m or c > 0 and on (d) e'
    assert selectors(expression) == [
        Selector("a_bucket", (("x", "=", "1"), ("y", "!~", "2|3"))),
        Selector("b_total", ()),
        Selector("c", ()),
        Selector("e", ()),
    ]


async def test_every_metric_and_label_is_one_that_a_daemon_exports(tmp_path: Path, hosts: str) -> None:
    """Against a scrape of a daemon that was used, and has all that there is."""
    with DaemonProcess(tmp_path, **{"ZOOKEEPER_HOSTS": hosts, **secured(tmp_path)}) as daemon:
        async with Client(daemon.address) as client:
            await use(client)
            async with client.campaign("/election"):
                while_leading = daemon.get("/metrics")[1]
        after = daemon.get("/metrics")[1]
    labels: dict[str, set[str]] = dict(OF_THE_SCRAPE)
    states = set()
    for family in (*text_string_to_metric_families(while_leading), *text_string_to_metric_families(after)):
        # A family without a series yet: a counter's sample is called as the family and _total.
        labels.setdefault(family.name + ("_total" if family.type == "counter" else ""), set())
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
            if sample.name == "zkside_session_state":
                states.add(sample.labels["state"])
    for where, expression in [*alerts().items(), *shown()]:
        assert selectors(expression), where
        for selector in selectors(expression):
            assert selector.metric in labels, f"{where}: nothing exports {selector.metric}"
            for label, _, _ in selector.matchers:
                assert label in labels[selector.metric] | OF_THE_TARGET, f"{where}: {selector.metric} has no {label}"
    spoken_of = {each.metric for _, expression in [*alerts().items(), *shown()] for each in selectors(expression)}
    of_histograms = re.compile(r"_(bucket|sum|count|created)$")
    silent = {name for name in labels if name.startswith("zkside_") and not of_histograms.search(name)} - spoken_of
    assert {name for name in silent if f"{name}_bucket" not in spoken_of} - NOT_SHOWN == set()
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            known = OF_THE_TARGET.union(*(labels[each.metric] for each in selectors(target["expr"])))
            spoken = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
            for grouping in re.findall(r"\b(?:by|without) \(([^)]*)\)", target["expr"]):
                spoken += grouping.split(", ")
            assert set(spoken) <= known, panel["title"]
    assert {"connected", "lost"} <= states
    assert 'zkside_holds{kind="election",state="held"} 1.0' in while_leading
    assert 'zkside_holds_ended_total{kind="election",reason="' in after


def test_promtool_accepts_the_rules_and_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(groups()))
    assert f"{len(alerts())} rules found" in promtool("check", "rules", "rules.yaml", cwd=tmp_path)
    recorded = [{"record": f"panel:{number}", "expr": expression} for number, (_, expression) in enumerate(shown())]
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    assert f"{len(recorded)} rules found" in promtool("check", "rules", "panels.yaml", cwd=tmp_path)


def test_each_alert_fires_on_its_series_and_not_on_others(tmp_path: Path) -> None:
    """alerts.yaml has the series, and when which alert has to fire; promtool judges."""
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(groups()))
    cases = Path(__file__).with_name("alerts.yaml").read_text()
    (tmp_path / "alerts.yaml").write_text(cases)
    promtool("test", "rules", "alerts.yaml", cwd=tmp_path)
    tests = [case for group in yaml.safe_load(cases)["tests"] for case in group["alert_rule_test"]]
    fires = {case["alertname"] for case in tests if case.get("exp_alerts")}
    is_silent = {case["alertname"] for case in tests if not case.get("exp_alerts")}
    assert fires == is_silent == alerts().keys()


def test_the_issue_s_conditions_each_have_an_alert() -> None:
    assert {
        "ZksideSessionLost",
        "ZksideLeaseLow",
        "ZksideLeadershipFlapping",
        "ZksideWatchGrowth",
        "ZksideSlowSubscribers",
        "ZksideStaleCaches",
        "ZksideEventLoopLag",
    } <= alerts().keys()


def test_each_alert_says_how_bad_it_is_and_which_section_of_the_runbook_helps() -> None:
    sections = set(re.findall(r"^#+ (Zkside\w+)$", RUNBOOK.read_text(), re.MULTILINE))
    rules = [rule for group in groups()["groups"] for rule in group["rules"]]
    for rule in rules:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
    assert sections == {rule["alert"] for rule in rules}


def test_the_monitor_finds_the_daemons() -> None:
    monitor = one(rendered(MONITORING), "PodMonitor")["spec"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    (wanted,) = monitor["selector"]["matchExpressions"]
    assert endpoint["port"] in PORTS
    for name in (SIDECAR, DAEMONSET):
        workload = next(each for each in rendered(name) if each["kind"] in ("Deployment", "DaemonSet"))
        assert workload["spec"]["template"]["metadata"]["labels"][wanted["key"]] in wanted["values"]
        assert endpoint["port"] in {port["name"] for port in zkside(name)["ports"]}


def test_the_dashboard_can_be_loaded_and_read() -> None:
    config_map = one(rendered(MONITORING), "ConfigMap")
    assert config_map["metadata"]["labels"] == {"grafana_dashboard": "1"}
    found = dashboard()
    assert found["uid"] == "zkside"
    assert [variable["name"] for variable in found["templating"]["list"]] == ["datasource", "namespace", "instance"]
    panels = found["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    graphs = [panel for panel in panels if panel["type"] != "row"]
    assert all(target["legendFormat"] for panel in graphs for target in panel["targets"])
    assert all("$instance" in target["expr"] for panel in graphs for target in panel["targets"])
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells), "panels overlap"
    assert max(x for x, _ in cells) < 24
