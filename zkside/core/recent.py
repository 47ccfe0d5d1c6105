"""What happened lately, for people: a bounded memory in which a flood of one kind pushes out no other.

A kind is a name with a reason ("hold.ended", "SESSION_LOST"). Of each kind the last few are kept, so that the
loss of a session yesterday is still there after a million locks. What repeats itself within a second is one
entry that counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

KEPT = 12
"""Of each kind."""
MERGED_WITHIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened, or one that happened several times within a second."""

    at_s: float
    """The first time, in seconds since 1970."""
    name: str
    """As the log calls it: "session.lost"."""
    reason: str
    subject: str
    """What it happened to, most often a path; of several the last."""
    count: int = 1


class Recent:
    """Takes a clock: seconds since 1970. Noting costs about half a microsecond."""

    __slots__ = ("_clock", "_kinds")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kinds: dict[tuple[str, str], deque[_Row]] = {}

    def note(self, name: str, reason: str = "", subject: str = "") -> None:
        """Names and reasons are of the program's own making, and few: nothing that a caller chose."""
        now_s = self._clock()
        rows = self._kinds.get((name, reason))
        if rows is None:
            rows = self._kinds[name, reason] = deque(maxlen=KEPT)
        if rows:
            last = rows[-1]
            if abs(now_s - last.at_s) < MERGED_WITHIN_S:
                last.count += 1
                last.subject = subject
                return
        rows.append(_Row(now_s, subject))

    def list(self) -> list[Happening]:
        """All that is kept, oldest first."""
        found = [
            Happening(row.at_s, name, reason, row.subject, row.count)
            for (name, reason), rows in self._kinds.items()
            for row in rows
        ]
        found.sort(key=lambda happening: happening.at_s)
        return found


class _Row:
    __slots__ = ("at_s", "count", "subject")

    def __init__(self, at_s: float, subject: str) -> None:
        self.at_s = at_s
        self.subject = subject
        self.count = 1
