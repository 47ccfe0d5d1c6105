"""The numbers of sequential nodes: none is handed on that ZooKeeper may give a second time."""

from __future__ import annotations

import time
from collections.abc import Callable

from zkside import log
from zkside.errors import SequenceOverflow
from zkside.model import path as paths
from zkside.model.operation import Create, Created
from zkside.model.stat import LAST_NUMBER

WARN_BELOW = 200_000_000
"""So many numbers that are left are worth a line in the log: at a thousand locks a second they last two days."""
FORGOTTEN_AFTER_S = 3600.0
"""What a parent has left is told for so long after the last create below it."""


class Numbers:
    """What sequential creates show of the counters of their parents.

    A counter stands still at LAST_NUMBER, which is then given again and again (and, of creates that follow closely,
    negative ones): order is gone, and with a unique prefix not even the names collide. So the last number is refused.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._parent = ""
        self._left = LAST_NUMBER
        self._seen_s = 0.0
        self._warn_at = WARN_BELOW
        self.refused = 0
        """Counted."""

    @property
    def left(self) -> int:
        """How many numbers are left at the parent that has fewest, of those that were used lately."""
        return self._left if self._clock_s() - self._seen_s < FORGOTTEN_AFTER_S else LAST_NUMBER

    def check(self, operation: Create, made: Created) -> None:
        """Raises: SequenceOverflow for a node that has to go again."""
        if not operation.mode.is_sequential:
            return
        parent, number = paths.parent(operation.path), int(made.path[len(operation.path) :])
        left = LAST_NUMBER - number if number >= 0 else 0
        if parent == self._parent or left < self.left:
            self._note(parent, left)
        if not left:
            self.refused += 1
            raise SequenceOverflow(
                f"the children of {parent} have used up their sequence numbers: ZooKeeper gives no more than "
                f"{LAST_NUMBER}. Delete {parent} once it is empty, so that it is made anew, or use another path",
                path=parent,
                number=str(number),
            )

    def _note(self, parent: str, left: int) -> None:
        if parent != self._parent or left > self._left:
            self._warn_at = WARN_BELOW
        self._parent, self._left, self._seen_s = parent, left, self._clock_s()
        if left <= self._warn_at:
            self._warn_at = left // 2
            log.numbers_run_out(path=parent, left=left)
