"""Every expression of the dashboard, asked of the Prometheus that scrapes a daemon at work."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import pytest

from tests.ops.test_metrics import ROOT
from tests.prometheus.conftest import WELL
from tests.prometheus.monitor import SCRAPE_S
from tests.prometheus.stand import Place, Stand

pytestmark = [pytest.mark.prometheus, pytest.mark.asyncio(loop_scope="session")]

DASHBOARD = json.loads((ROOT / "deploy/k8s/monitoring/dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
BUILT_IN = {"__rate_interval": f"{4 * SCRAPE_S}s", "__range": "10m"}
"""As Grafana has them: the first is at least four scrapes."""


def resolved(text: str, chosen: dict[str, str]) -> str:
    """With the variables replaced, as Grafana does."""
    return re.sub(r"\$\{?(\w+)\}?", lambda variable: (chosen | BUILT_IN)[variable[1]], text)


async def values_of(stand: Stand, variable: str, chosen: dict[str, str]) -> list[str]:
    query = resolved(VARIABLES[variable]["query"]["query"], chosen)
    asked = re.fullmatch(r"label_values\((.+), (\w+)\)", query)
    assert asked, query
    return await stand.prometheus.values_of(asked[2], asked[1])


async def test_the_variables_offer_what_there_is(well: Place, stand: Stand) -> None:
    assert await values_of(stand, "namespace", {}) == ["tests"]
    assert WELL in await values_of(stand, "instance", {"namespace": "tests"})
    assert await values_of(stand, "instance", {"namespace": "elsewhere"}) == []


@pytest.mark.parametrize("panel", PANELS, ids=[f"{panel['id']}-{panel['title']}" for panel in PANELS])
async def test_the_panel_has_data_and_a_legend(panel: dict[str, object], well: Place, stand: Stand) -> None:
    """For one daemon and for all; nothing is left of the legend's placeholders."""
    targets = panel["targets"]
    assert isinstance(targets, list)
    for target in targets:
        for instance in (WELL, VARIABLES["instance"]["allValue"]):
            expression = resolved(target["expr"], {"namespace": "tests", "instance": instance})
            # What is not a number is no data: nobody called in so many seconds.
            found = await stand.prometheus.wait_for(f"({expression}) > -Inf", within_s=30)
            for series in found:
                assert all(label in series["metric"] for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        one_place = resolved(target["expr"], {"namespace": "elsewhere", "instance": ".*"})
        assert not [each for each in await stand.prometheus.query(one_place) if each["metric"].get("instance")]


async def test_the_rows_are_in_the_order_in_which_one_looks() -> None:
    rows = [panel for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert [row["title"] for row in rows] == [
        "At a glance",
        "Session and lease",
        "Holds",
        "Watches and caches",
        "gRPC",
        "Process",
        "Identities and files",
    ]
    heights = [row["gridPos"]["y"] for row in rows]
    assert all(upper < lower for upper, lower in pairwise(heights))


UNITS = {"short", "s", "ops", "Bps", "bytes", "percentunit"}


@pytest.mark.parametrize("panel", PANELS, ids=[f"{panel['id']}-{panel['title']}" for panel in PANELS])
async def test_the_unit_fits_the_expression(panel: dict[str, object]) -> None:
    fields = panel["fieldConfig"]
    targets = panel["targets"]
    assert isinstance(fields, dict)
    assert isinstance(targets, list)
    unit = fields["defaults"]["unit"]
    assert unit in UNITS
    for target in targets:
        expression = target["expr"]
        ratio = " / " in expression or "cpu_seconds" in expression or "lag_seconds_sum" in expression
        is_rate = "rate(" in expression and "histogram_quantile" not in expression and not ratio
        wanted = (
            "percentunit"
            if ratio
            else ("Bps" if "bytes_total" in expression else "ops")
            if is_rate
            else "bytes"
            if re.search(r"_bytes(_in_flight\w*)?\b", expression)
            else "s"
            if "_seconds" in expression
            else "short"
        )
        assert unit == wanted, expression
