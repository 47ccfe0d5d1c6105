"""From findings to a JSON file, and from the JSON file to Markdown and a plot.

The JSON file holds the latest findings of each benchmark, so a run of some of them leaves the others as they
were. Markdown and plot are functions of the file alone.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.figures import Curve, Findings, Goal, Row

JSON, MARKDOWN, PLOT = "benchmarks.json", "benchmarks.md", "benchmarks.svg"


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One benchmark's findings, with when and where they were measured."""

    name: str
    title: str
    when: str
    where: str
    commit: str
    took_s: float
    quick: bool
    findings: Findings


def entry(name: str, title: str, findings: Findings, *, took_s: float, quick: bool) -> Entry:
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Entry(name, title, when, _machine(), _commit(), round(took_s, 1), quick, findings)


def _machine() -> str:
    with open("/proc/cpuinfo") as cpuinfo:
        models = [line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name")]
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = models[0] if models else platform.machine()
    software = f"Linux {platform.release()}, Python {platform.python_version()}"
    return f"{len(models)} processors {model}, {gigabytes:.0f} GiB, {software}"


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def load(path: Path) -> dict[str, Entry]:
    """The entries of a JSON file, by name; none if there is no file."""
    if not path.exists():
        return {}
    return {fields["name"]: _entry_of(fields) for fields in json.loads(path.read_text())}


def save(path: Path, entries: Mapping[str, Entry]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([dataclasses.asdict(entry) for entry in entries.values()], indent=1) + "\n")


def _entry_of(fields: dict[str, Any]) -> Entry:
    findings = fields["findings"]
    rows = tuple(
        Row(**row | {"samples": tuple(row["samples"]), "goals": tuple(Goal(**goal) for goal in row["goals"])})
        for row in findings["rows"]
    )
    curves = tuple(Curve(curve["name"], tuple((x, y) for x, y in curve["points"])) for curve in findings["curves"])
    axes = (findings["curve_axes"][0], findings["curve_axes"][1])
    return Entry(**fields | {"findings": Findings(rows, findings["setting"], curves, axes)})


def number(value: float) -> str:
    """Three significant digits, thousands separated."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def measured(row: Row) -> str:
    unit = f" {row.unit}" if row.unit else ""
    low, high = number(min(row.samples)), number(max(row.samples))
    spread = f" ({low}-{high})" if low != high else ""
    return f"{number(row.value)}{unit}{spread}"


def verdict(goal: Goal) -> str:
    return "pass" if goal.is_met else "**fell short**"


def table(findings: Findings) -> Iterator[str]:
    """The lines of a Markdown table."""
    yield "| what | quantity | measured | goal | in the goal's terms | |"
    yield "|---|---|---|---|---|---|"
    for row in findings.rows:
        goals = row.goals or (None,)
        for index, goal in enumerate(goals):
            left = f"{row.subject} | {row.quantity} | {measured(row)}" if index == 0 else " | | "
            right = f"{goal.text} | {number(goal.ratio)} | {verdict(goal)}" if goal else " | | "
            yield f"| {left} | {right} |"


def markdown(entries: Mapping[str, Entry]) -> str:
    """The page docs/benchmarks.md."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench ARGS='--out docs'` from [benchmarks.json](benchmarks.json): as measured, median of the "
        "repetitions (min-max). Servers, daemon and clients share the machine's processors, so every figure "
        "is that of a crowded host; the comparisons were made side by side in one run.",
        "",
        f"![time to the last subscriber, and all goals]({PLOT})",
        "",
        "## Goals",
        "",
        "| benchmark | what | goal | measured, in the goal's terms | |",
        "|---|---|---|---|---|",
    ]
    for one in entries.values():
        for row in one.findings.rows:
            lines += [
                f"| [{one.name}](#{one.name}) | {row.subject}, {row.quantity} | {goal.text} "
                f"| {number(goal.ratio)} | {verdict(goal)} |"
                for goal in row.goals
            ]
    for one in entries.values():
        smoke = " **A smoke run: the figures mean nothing.**" if one.quick else ""
        lines += ["", f"## {one.name}", "", f"{one.title}{smoke}", "", one.findings.setting, ""]
        lines += table(one.findings)
        lines += ["", f"{one.when}, commit {one.commit}, {one.where}; took {one.took_s:.0f} s."]
    return "\n".join(lines) + "\n"
