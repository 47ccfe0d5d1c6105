"""How late the event loop is: a timer that looks at how late it was called."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from dataclasses import dataclass

from zkside.supervisor import Permanent, Supervisor, nothing

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
INTERVAL_S = 0.1


@dataclass(frozen=True, slots=True)
class LagStatistics:
    """Counted since the start. `counts[i]` measurements were at most `BUCKETS_S[i]` and more than the bound
    before; the last count has those beyond all bounds."""

    counts: tuple[int, ...]
    sum_s: float
    max_s: float


class LagProbe:
    """Measures the running loop, ten times a second, from `start` to `stop`."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS_S) + 1)
        self._sum_s = 0.0
        self._max_s = 0.0
        self._task: Permanent | None = None

    def start(self, supervisor: Supervisor) -> None:
        self._task = supervisor.start("lag", self._run, nothing)

    def stop(self) -> None:
        if self._task is not None:
            self._task.stop()
            self._task = None

    def statistics(self) -> LagStatistics:
        return LagStatistics(tuple(self._counts), self._sum_s, self._max_s)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + INTERVAL_S
            await asyncio.sleep(INTERVAL_S)
            lag_s = max(0.0, loop.time() - due_s)
            self._counts[bisect_left(BUCKETS_S, lag_s)] += 1
            self._sum_s += lag_s
            self._max_s = max(self._max_s, lag_s)
