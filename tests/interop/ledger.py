"""Who is inside at the moment, and everything that was wrong about it: the overlap detector without its wires."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

UNTOLD: Final = -1
"""In place of a sequence number that a library keeps to itself."""


@dataclass(slots=True)
class Ledger:
    """What the referee writes down. Contenders tell it after they were granted and before they let go.

    `overlaps` has a line for each grant that another excluded, `disorders` one for each that overtook an
    earlier contender by ZooKeeper's own numbers. Neither ever shrinks.
    """

    permits: int = 1
    """How many may be inside who exclude each other."""
    inside: dict[str, bool] = field(default_factory=dict)
    """Who, and whether as a reader."""
    grants: Counter[str] = field(default_factory=Counter)
    most_inside: int = 0
    """A contest of readers in which they never share proves nothing about readers."""
    handovers: int = 0
    """Grants that followed somebody else's."""
    foreign_handovers: int = 0
    """Grants that followed one of another library (the name's part before "-")."""
    overlaps: list[str] = field(default_factory=list)
    disorders: list[str] = field(default_factory=list)
    longest_wait: Counter[str] = field(default_factory=Counter)
    """The most grants of others between two of one contender."""
    unnumbered: int = 0
    """Grants whose place in the order is not known."""
    _last: str = ""
    _last_at: dict[str, int] = field(default_factory=dict)
    _newest_exclusive: int = UNTOLD
    _newest: int = UNTOLD

    def enter(self, who: str, *, shared: bool = False, sequence: int = UNTOLD) -> None:
        """`who` was granted; `sequence` is the number that ZooKeeper gave to its node."""
        others = [other for other, reads in self.inside.items() if not (shared and reads)]
        if who in self.inside or len(others) >= self.permits:
            self.overlaps.append(f"grant {self.grants.total()}: {who} while {', '.join(self.inside)}")
        if sequence == UNTOLD:
            self.unnumbered += 1
        else:
            # Only those who exclude each other are told apart by order: readers may report in any.
            newest = self._newest_exclusive if shared else self._newest
            if sequence <= newest:
                self.disorders.append(f"grant {self.grants.total()}: {who} with {sequence} after {newest}")
            self._newest = max(self._newest, sequence)
            if not shared:
                self._newest_exclusive = max(self._newest_exclusive, sequence)
        self._count(who)
        self.inside[who] = shared
        self.most_inside = max(self.most_inside, len(self.inside))

    def _count(self, who: str) -> None:
        at = self.grants.total()
        self.longest_wait[who] = max(self.longest_wait[who], at - self._last_at.get(who, -1) - 1)
        self._last_at[who] = at
        self.grants[who] += 1
        if self._last and self._last != who:
            self.handovers += 1
            self.foreign_handovers += library_of(self._last) != library_of(who)
        self._last = who

    def leave(self, who: str) -> None:
        """`who` lets go from now on, or is dead."""
        self.inside.pop(who, None)

    def smallest_share(self) -> float:
        """Of the contender with the fewest grants, as a part of an equal share."""
        return min(self.grants.values()) * len(self.grants) / self.grants.total() if self.grants else 0.0


def library_of(name: str) -> str:
    """The part of a contender's name that says who programmed it."""
    return name.partition("-")[0]
