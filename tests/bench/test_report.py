"""What a run writes: figures, the JSON file, the page and the plot."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from bench import report
from bench.crew import shares
from bench.figures import Curve, Findings, Goal, Row, at_least, at_most, percentile
from bench.mixed import lag_percentile_s
from bench.plot import svg

FINDINGS = Findings(
    rows=(
        Row("zkside", "to the last", "ms", (30.0, 28.0, 35.0), (at_most("≤ 1/15", 0.05, 1 / 15),)),
        Row("kazoo", "to the last", "ms", (600.0,)),
        Row("reads", "rate", "/s", (4000.0,), (at_least("≥ 85 %", 0.8, 0.85), at_least("≥ 1", 2.0, 1.0))),
    ),
    setting="On a bench.",
    curves=(Curve("zkside", ((1, 1.5), (1000, 30.0))), Curve("kazoo", ((1, 2.0), (1000, 600.0)))),
    curve_axes=("subscribers", "ms"),
)
ENTRY = report.entry("fanout", "One change.", FINDINGS, took_s=1.23, quick=False)


def test_the_percentile_is_the_nearest_rank() -> None:
    assert percentile([3, 1, 2], 50) == 2
    assert percentile(range(1, 101), 99) == 99
    assert percentile([7], 99) == 7


@pytest.mark.parametrize(
    ("goal", "is_met", "share"),
    [
        (at_most("", 1.0, 2.0), True, 0.5),
        (at_most("", 3.0, 2.0), False, 1.5),
        (at_least("", 100.0, 50.0), True, 0.5),
        (at_least("", 25.0, 50.0), False, 2.0),
    ],
)
def test_a_goal_is_met_when_at_most_its_whole_allowance_is_used(goal: Goal, is_met: bool, share: float) -> None:
    assert goal.is_met is is_met
    assert goal.share == pytest.approx(share)


def test_a_row_shows_the_median_and_the_spread() -> None:
    assert report.measured(FINDINGS.rows[0]) == "30 ms (28-35)"
    assert report.measured(FINDINGS.rows[1]) == "600 ms"


def test_the_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "out" / report.JSON
    report.save(path, {"fanout": ENTRY})
    assert report.load(path) == {"fanout": ENTRY}
    assert report.load(tmp_path / "none.json") == {}


def test_the_page_has_every_row_and_says_what_fell_short() -> None:
    page = report.markdown({"fanout": ENTRY})
    assert "| zkside | to the last | 30 ms (28-35) | ≤ 1/15 | 0.05 | pass |" in page
    assert "**fell short**" in page
    assert page.count("≥ 1 |") == 2  # among the goals, and in its own table


def test_the_plot_is_a_well_formed_picture_of_curves_and_goals() -> None:
    picture = ElementTree.fromstring(svg({"fanout": ENTRY}))
    space = "{http://www.w3.org/2000/svg}"
    assert len(picture.findall(f"{space}polyline")) == 2
    assert len(picture.findall(f"{space}rect")) == 1 + 3


def test_subscribers_are_spread_evenly_over_processes() -> None:
    assert shares(1000, 8) == [125] * 8
    assert shares(10, 8) == [2, 2, 1, 1, 1, 1, 1, 1]
    assert shares(1, 8) == [1]


def test_the_lag_percentile_is_read_from_the_buckets_between_two_scrapes() -> None:
    def scrape(*counts: int) -> dict[str, float]:
        bounds = ("0.001", "0.05", "+Inf")
        name = 'zkside_event_loop_lag_seconds_bucket{{le="{}"}}'
        return {name.format(bound): count for bound, count in zip(bounds, counts, strict=True)}

    assert lag_percentile_s(scrape(50, 50, 50), scrape(149, 150, 150), 99) == 0.001
    assert lag_percentile_s(scrape(50, 50, 50), scrape(140, 150, 150), 99) == 0.05
