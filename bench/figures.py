"""The values of a bench: what was measured, and what it had to show."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that at least `percent` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True)
class Goal:
    """What a row has to show, in the goal's own terms."""

    text: str
    ratio: float
    """As measured: against `bound`."""
    bound: float
    at_most: bool

    @property
    def is_met(self) -> bool:
        return self.ratio <= self.bound if self.at_most else self.ratio >= self.bound

    @property
    def share(self) -> float:
        """How much of the bound is used: up to 1 is met, whichever way the goal points."""
        worse, better = (self.ratio, self.bound) if self.at_most else (self.bound, self.ratio)
        if better == 0:
            return math.inf if worse else 0.0
        return worse / better


def at_most(text: str, ratio: float, bound: float) -> Goal:
    return Goal(text, ratio, bound, True)


def at_least(text: str, ratio: float, bound: float) -> Goal:
    return Goal(text, ratio, bound, False)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    subject: str
    quantity: str
    unit: str
    samples: tuple[float, ...]
    """One for each repetition, or several."""
    goals: tuple[Goal, ...] = ()

    @property
    def value(self) -> float:
        return statistics.median(self.samples)


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a plot, over a number of subscribers or the like."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """What one benchmark brought."""

    rows: tuple[Row, ...]
    setting: str
    """How it was measured, in a sentence or two."""
    curves: tuple[Curve, ...] = ()
    curve_axes: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure."""

    quick: bool = False
    """A smoke run: everything small, the figures mean nothing."""
    thorough: bool = False
    """Repeat also what takes a minute each time."""
    repetitions: int = 3

    def scaled(self, full: int, quick: int) -> int:
        return quick if self.quick else full


@dataclass
class Samples:
    """Collects, over the repetitions, one value a repetition under each key."""

    _values: dict[tuple[object, ...], list[float]] = field(default_factory=dict)

    def add(self, *key: object, value: float) -> None:
        self._values.setdefault(key, []).append(value)

    def of(self, *key: object) -> tuple[float, ...]:
        """Raises KeyError if nothing was measured under the key."""
        return tuple(self._values[key])

    def median(self, *key: object) -> float:
        return statistics.median(self.of(*key))

    def row(self, key: tuple[object, ...], subject: str, quantity: str, unit: str, goals: tuple[Goal, ...] = ()) -> Row:
        return Row(subject, quantity, unit, self.of(*key), goals)


Benchmark = Callable[[Plan], Findings]
