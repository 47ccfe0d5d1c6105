"""Time that passes only when told to."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable

_START_NS = 1_000_000_000_000


class _Alarm:
    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class VirtualClock:
    """zkside.zk.clock.Clock whose seconds are free of charge: see `advance`."""

    def __init__(self) -> None:
        self._now_ns = _START_NS
        self._alarms: list[tuple[int, int, _Alarm]] = []
        self._numbers = itertools.count()

    def boottime_ns(self) -> int:
        return self._now_ns

    def call_at(self, boottime_ns: int, callback: Callable[[], object]) -> _Alarm:
        """Runs inside `advance` or `settle`, never inside this call."""
        alarm = _Alarm(callback)
        heapq.heappush(self._alarms, (boottime_ns, next(self._numbers), alarm))
        return alarm

    async def advance(self, seconds: float) -> None:
        """Let time pass: every timer runs at its instant, and all that follows from it before the next one."""
        end_ns = self._now_ns + round(seconds * 1e9)
        await self.settle()
        while self._alarms and self._alarms[0][0] <= end_ns:
            self._now_ns = max(self._now_ns, self._alarms[0][0])
            await self.settle()
        self._now_ns = end_ns
        await self.settle()

    async def settle(self) -> None:
        """Return when the event loop has nothing more to do at this instant."""
        loop = asyncio.get_running_loop()
        # asyncio has no public way to ask whether callbacks are ready.
        ready = loop._ready  # type: ignore[attr-defined]
        while True:
            while ready:  # noqa: ASYNC110
                await asyncio.sleep(0)
            if not self._ring():
                return

    def jump(self, seconds: float) -> None:
        """As when the machine was suspended: time has passed, and no timer ran yet."""
        self._now_ns += round(seconds * 1e9)

    def _ring(self) -> bool:
        rang = False
        while self._alarms and self._alarms[0][0] <= self._now_ns:
            _, _, alarm = heapq.heappop(self._alarms)
            if alarm.callback is not None:
                alarm.callback()
                rang = True
        return rang
