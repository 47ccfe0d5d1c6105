"""When requests are written: at once, or a moment later together with those that come meanwhile.

**Why wait at all.** Many callers at once rarely ask in the same turn of the event loop: gRPC hands over one call after
the other. So each request had a write of its own: a segment, and a wake-up of each of the server's threads, which the
answer costs once more. With 64 Sets under way on 2 processors beside ZooKeeper that was a quarter of the daemon's
processor time and half of ZooKeeper's; gathering for 3 ms let half as many again through.

**Why not always.** Where processors are idle, waiting makes callers wait and spares nothing that anybody lacks. From
inside the two cannot be told apart. So both ways are tried in turns, in short slices, and the one that lets clearly
more through is kept for the rest of the round. A load that does not depend on how soon it is answered is the same both
ways, and is written at once.

**How often.** A trial costs those who wait for nothing meanwhile, or who no longer wait. So rounds get longer for as
long as trials end alike and the rate stays what it was. One trial on a busy host is much up to chance: half of what the
earlier ones saw counts too. A great difference outweighs that at once, a small one in a few rounds.
"""

from __future__ import annotations

SLICE_S = 0.05
TRIAL = 4
"""Slices of a round that try: at once, gathering, and both again."""
ROUND = 40
"""Slices in all of a first round; the rest goes the better way."""
LONGEST_ROUND = 160
"""While nothing changes."""
WINDOW = 8
"""So many slices have one rate."""
CHANGED = 1.5
"""A rate so much higher or lower is that of another load."""
LEAST_PER_S = 1000.0
"""With fewer requests there is nothing to gather."""
CLEARLY = 1.1
"""How much more has to get through for callers to be made to wait; any less, and they wait no longer."""


class Pacing:
    """Fed with what is written; reads no clock."""

    __slots__ = ("_began_s", "_count", "_is_better", "_round", "_slice", "_tried", "_usual", "_window", "gathers")

    def __init__(self) -> None:
        self.gathers = False
        """Whether it is time to wait for more."""
        self._is_better = False
        self._round = ROUND
        """Slices of the present round."""
        self._slice = 0
        self._tried = [0.0, 0.0]
        """What trials got through, the latest counting most: at once, and gathering."""
        self._window: list[float] = []
        self._usual = 0.0
        """The rate in the first window since the trial; 0 before its end."""
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
        self._slice += 1
        if self._slice <= TRIAL:
            self._tried[self.gathers] += per_s
            if self._slice == TRIAL:
                self._decide()
            return
        self._window.append(per_s)
        if len(self._window) == WINDOW:
            self._notice_change()
        if self._slice >= self._round:
            self._slice = 0

    def _decide(self) -> None:
        at_once, gathering = self._tried
        was_better, self._is_better = self._is_better, gathering > at_once * (1.0 if self._is_better else CLEARLY)
        self._round = min(2 * self._round, LONGEST_ROUND) if self._is_better is was_better else ROUND
        self._tried = [at_once / 2, gathering / 2]
        self._window, self._usual = [], 0.0

    def _notice_change(self) -> None:
        per_s = sum(self._window) / WINDOW
        self._window = []
        self._usual = self._usual or per_s
        if not self._usual / CHANGED <= per_s <= self._usual * CHANGED:
            self._round = ROUND
            self._tried = [0.0, 0.0]
