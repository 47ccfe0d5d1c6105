"""One SVG for a run: the curves of its benchmarks, and every goal with how much of it is used."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from html import escape

from bench.figures import Curve, Goal
from bench.report import Entry, number

_COLOURS = ("#1b6ca8", "#2a9d5c", "#c0392b", "#7f8c8d", "#8e44ad")
_WIDTH, _PANEL, _BAR, _LABEL = 1040, 420, 22, 15
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 200, 40, 50
_USED_MAX = 4.0


def svg(entries: Mapping[str, Entry]) -> str:
    """A standalone SVG document."""
    parts: list[str] = []
    y = 0
    for one in entries.values():
        if one.findings.curves:
            parts += _panel(one.name, one.findings.curves, one.findings.curve_axes, y)
            y += _PANEL
    goals = [
        (f"{one.name}: {row.subject}: {goal.text}", goal)
        for one in entries.values()
        for row in one.findings.rows
        for goal in row.goals
    ]
    parts += _bars(goals, y)
    height = y + _TOP + _BAR * len(goals) + 20
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'font-family="sans-serif" font-size="12"><rect width="{_WIDTH}" height="{height}" fill="white"/>'
    )
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, extra: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" {extra}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str = "#dddddd") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _decades(values: list[float]) -> range:
    """The powers of ten that enclose the values."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return range(low, max(high, low + 1) + 1)


def _panel(title: str, curves: tuple[Curve, ...], axes: tuple[str, str], top: float) -> Iterator[str]:
    """Curves over two logarithmic axes."""
    xs = _decades([x for curve in curves for x, _ in curve.points])
    ys = _decades([y for curve in curves for _, y in curve.points])
    right, bottom = _WIDTH - _RIGHT, top + _PANEL - _BOTTOM

    def across(x: float) -> float:
        return _LEFT + (math.log10(x) - xs[0]) / (xs[-1] - xs[0]) * (right - _LEFT)

    def up(y: float) -> float:
        return bottom - (math.log10(y) - ys[0]) / (ys[-1] - ys[0]) * (bottom - top - _TOP)

    yield _text(_LEFT, top + 24, f"{title}: {axes[1]}", 'font-size="15"')
    for power in xs:
        yield _line(across(10**power), top + _TOP, across(10**power), bottom)
        yield _text(across(10**power), bottom + 18, number(10.0**power), 'text-anchor="middle"')
    for power in ys:
        yield _line(_LEFT, up(10**power), right, up(10**power))
        yield _text(_LEFT - 8, up(10**power) + 4, number(10.0**power), 'text-anchor="end"')
    yield _text((_LEFT + right) / 2, bottom + 36, axes[0], 'text-anchor="middle"')
    for index, curve in enumerate(curves):
        colour = _COLOURS[index % len(_COLOURS)]
        points = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in curve.points)
        yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
    lowest = top + _PANEL
    for index, curve in sorted(enumerate(curves), key=lambda pair: pair[1].points[-1][1]):
        x, y = curve.points[-1]
        lowest = min(up(y) + 4, lowest - _LABEL)  # labels of curves that end close together stand apart
        colour = _COLOURS[index % len(_COLOURS)]
        yield _text(across(x) + 8, lowest, f"{curve.name}: {number(y)}", f'fill="{colour}"')


def _bars(goals: list[tuple[str, Goal]], top: float) -> Iterator[str]:
    """A bar for each goal: what is used of it, on a scale that is cut off where it says so."""
    if not goals:
        return
    start, unit = 690, 78
    yield _text(_LEFT, top + 24, "goals: share of the allowance that is used, 1 = just met", 'font-size="15"')
    yield _line(start + unit, top + _TOP, start + unit, top + _TOP + _BAR * len(goals), "#333333")
    for index, (text, goal) in enumerate(goals):
        y = top + _TOP + _BAR * index
        length = min(goal.share, _USED_MAX) * unit
        colour = _COLOURS[1] if goal.is_met else _COLOURS[2]
        yield _text(start - 8, y + 14, text, 'text-anchor="end" font-size="11"')
        yield f'<rect x="{start}" y="{y + 3}" width="{length:.1f}" height="{_BAR - 8}" fill="{colour}"/>'
        yield _text(start + length + 6, y + 14, number(goal.share), 'font-size="11"')
