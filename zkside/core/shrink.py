"""Who is in a group: what changed since it was last published, and whether a loss is believed.

An outage of the members' hosts, or of ZooKeeper for them, looks the same as their departure. Who routes by a group
would rather go on with the members of a moment ago than with none.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from zkside.model import record as records
from zkside.model.record import Record

ROUNDING = 1e-9
"""0.55 of 100 are 55, whatever the binary fraction says."""


class Named(NamedTuple):
    """A member's name and its node."""

    name: str
    record: Record


class Differences(NamedTuple):
    """Between two lists of members, each sorted by name."""

    joined: list[Named]
    left: list[Named]
    """As they were."""
    changed: list[Named]
    """Other data, or another czxid: another membership under the same name."""


class Membership:
    """Who is there, and how that differs from what was last published.

    Units: costs one mapping, and what changed since. The records are the cache's own, shared by all who watch.
    """

    def __init__(self) -> None:
        self.published = 0
        """How many were in the list that was published last."""
        self._present: dict[str, Record] = {}
        self._former: dict[str, Record | None] = {}
        """Of the names touched since: what was published of them."""

    def __len__(self) -> int:
        """How many are there."""
        return len(self._present)

    def put(self, name: str, record: Record | None) -> None:
        """The member as it is now; None: it is none (any more)."""
        self._former.setdefault(name, self._present.get(name))
        if record is None:
            self._present.pop(name, None)
        else:
            self._present[name] = record

    def replace(self, present: Mapping[str, Record]) -> None:
        """All members as they are now."""
        for name in [name for name in self._present if name not in present]:
            self.put(name, None)
        for name, record in present.items():
            self.put(name, record)

    def members(self) -> list[Named]:
        """Who is there, sorted by name."""
        return sorted(Named(name, record) for name, record in self._present.items())

    def publish(self) -> Differences:
        """What is there becomes what is published; returns how that differs from what was."""
        differences = Differences([], [], [])
        for name in sorted(self._former):
            before, after = self._former[name], self._present.get(name)
            if before is None and after is not None:
                differences.joined.append(Named(name, after))
            elif before is not None and after is None:
                differences.left.append(Named(name, before))
            elif before is not None and after is not None and not _same(before, after):
                differences.changed.append(Named(name, after))
        self._former.clear()
        self.published = len(self._present)
        return differences


def _same(before: Record, after: Record) -> bool:
    if before is after:
        return True
    return records.zxids(before)[0] == records.zxids(after)[0] and records.data(before) == records.data(after)


@dataclass(frozen=True, slots=True)
class ShrinkTerms:
    """What a loss is, and how long it is doubted."""

    min_kept: float = 0.5
    window_s: float = 10.0
    confirm_after_s: float | None = None
    """None: until it is confirmed, or undone."""


class ShrinkGuard:
    """Whether a list of so many members may be published, or is a loss too sudden to be believed.

    Invariant: let B be the most members that a list had which was in force at any time in the last `window_s`.
    Then a list with less than `min_kept` of B is published only if the loss was confirmed, by `confirm` or by
    having lasted `confirm_after_s`. While a loss is withheld B does not age, so that waiting alone lets nothing
    through; and a confirmed loss counts no more, so that the next one is measured from what it left.

    Units: instants in seconds of one clock, which never goes back; the guard has none of its own.
    """

    def __init__(self, terms: ShrinkTerms, published: int, now_s: float) -> None:
        self.terms = terms
        self._published = published
        """The size of the list in force."""
        self._former: deque[tuple[float, int]] = deque()
        """(until when it was in force, its size) of lists before: sizes fall, so the first is the largest."""
        self._present = published
        self._since_s: float | None = None
        """Since when a loss is withheld."""
        self._withheld_from = 0
        """The B from which it is withheld."""

    @property
    def withholds(self) -> bool:
        """Whether the list in force is not what is there."""
        return self._since_s is not None

    @property
    def due_s(self) -> float | None:
        """When to judge again though nothing has changed; None: never."""
        if self._since_s is None or self.terms.confirm_after_s is None:
            return None
        return self._since_s + self.terms.confirm_after_s

    def judge(self, present: int, now_s: float) -> bool:
        """Whether a list of so many may be published now; if so it is in force from now on."""
        if self.due_s is not None and now_s >= self.due_s:
            self.confirm()
        self._present = present
        most = self._withheld_from if self.withholds else self._most(now_s)
        if present < math.ceil(self.terms.min_kept * most - ROUNDING):
            if self._since_s is None:
                self._since_s, self._withheld_from = now_s, most
            return False
        if present != self._published:
            self._retire(now_s)
        self._published = present
        self._since_s = None
        return True

    def confirm(self) -> bool:
        """The loss that was judged last is real; judge again to publish it. False if none is withheld."""
        if self._since_s is None:
            return False
        self._former.clear()
        self._published = self._present
        self._since_s = None
        return True

    def doubt(self, now_s: float) -> None:
        """Whether the loss lasts cannot be seen now: it has lasted for no time yet."""
        if self._since_s is not None:
            self._since_s = now_s

    def _most(self, now_s: float) -> int:
        while self._former and self._former[0][0] < now_s - self.terms.window_s:
            self._former.popleft()
        return max(self._published, self._former[0][1]) if self._former else self._published

    def _retire(self, now_s: float) -> None:
        while self._former and self._former[-1][1] <= self._published:
            self._former.pop()
        self._former.append((now_s, self._published))
