"""How long ZooKeeper takes to answer, by operation, counted in fixed buckets."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BUCKETS_NS = tuple(round(bound_s * 1e9) for bound_s in BUCKETS_S)


@dataclass(frozen=True, slots=True)
class Latency:
    """One operation's answers since the start."""

    counts: tuple[int, ...]
    """Answers in each bucket of BUCKETS_S (not cumulative), and one more entry for all that took longer."""
    sum_s: float

    @property
    def count(self) -> int:
        return sum(self.counts)


class Latencies:
    """Counts; about 0.3 µs an answer."""

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        # A row for each kind of operation: the buckets' counts, and at the end the sum in nanoseconds.
        self._rows: dict[type, list[int]] = {}

    def observe(self, kind: type, took_ns: int) -> None:
        row = self._rows.get(kind)
        if row is None:
            row = self._rows[kind] = [0] * (len(BUCKETS_S) + 2)
        row[bisect_left(_BUCKETS_NS, took_ns)] += 1
        row[-1] += took_ns

    def read(self) -> dict[str, Latency]:
        """By the operation's name, such as 'GetData'; pings are 'Ping'."""
        return {
            "Ping" if kind is type(None) else kind.__name__: Latency(tuple(row[:-1]), row[-1] / 1e9)
            for kind, row in self._rows.items()
        }
