"""When requests are written: at once, or a moment later together with those that come meanwhile.

**Why wait at all.** Many callers at once rarely ask in the same turn of the event loop: gRPC hands over one call after
the other. So each request had a write of its own: a segment, and a wake-up of each of the server's threads, which the
answer costs once more. With 64 Sets under way on 2 processors beside ZooKeeper that was a quarter of the daemon's
processor time and half of ZooKeeper's; gathering for 3 ms let half as many again through.

**Why not always.** Where processors are idle, waiting makes callers wait and spares nothing that anybody lacks. From
inside the two cannot be told apart. So both ways are tried in turns, in short slices, and the one that lets clearly
more through is kept for the rest of the round. A load that does not depend on how soon it is answered is the same both
ways, and is written at once.
"""

from __future__ import annotations

SLICE_S = 0.05
TRIAL = 4
"""Slices of a round that try: at once, gathering, and both again."""
ROUND = 40
"""Slices in all; the rest goes the better way."""
LEAST_PER_S = 1000.0
"""With fewer requests there is nothing to gather."""
CLEARLY = 1.1
"""How much more has to get through for callers to be made to wait; any less, and they wait no longer."""


class Pacing:
    """Fed with what is written; reads no clock."""

    __slots__ = ("_began_s", "_count", "_is_better", "_slice", "_tried", "gathers")

    def __init__(self) -> None:
        self.gathers = False
        """Whether it is time to wait for more."""
        self._is_better = False
        self._slice = 0
        self._tried = [0.0, 0.0]
        """What the present round's trials got through: at once, and gathering."""
        self._began_s = 0.0
        self._count = 0

    def wrote(self, now_s: float, count: int) -> None:
        """So many requests are written now."""
        self._count += count
        took_s = now_s - self._began_s
        if took_s < SLICE_S:
            return
        per_s = self._count / took_s
        self._began_s, self._count = now_s, 0
        if per_s < LEAST_PER_S:
            self.gathers = False
            return
        # A slice counts if it went as planned; the first one after a lull did not if it was to gather.
        if self.gathers is self._plan():
            self._end_slice(per_s)
        self.gathers = self._plan()

    def _plan(self) -> bool:
        return self._slice % 2 == 1 if self._slice < TRIAL else self._is_better

    def _end_slice(self, per_s: float) -> None:
        if self._slice < TRIAL:
            self._tried[self.gathers] += per_s
        self._slice += 1
        if self._slice == TRIAL:
            at_once, gathering = self._tried
            self._is_better = gathering > at_once * (1.0 if self._is_better else CLEARLY)
        elif self._slice == ROUND:
            self._slice, self._tried = 0, [0.0, 0.0]
