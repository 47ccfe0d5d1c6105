"""What the session's tests listen with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from zkside.model.event import WatchedEvent
from zkside.model.session import SessionState, SessionStatus
from zkside.zk.session import Session

WITHIN_S = 30.0
"""Every wait of a test ends in a failure after this time."""


class Heard:
    """All that a listener of a session hears, in order."""

    def __init__(self, session: Session) -> None:
        self.statuses: list[SessionStatus] = []
        self.times_ns: list[int] = []
        """On CLOCK_BOOTTIME, when each status was heard."""
        self.events: list[WatchedEvent] = []
        self._news = asyncio.Event()
        self.stop = session.listen(status=self._hear_status, event=self._hear_event)

    def _hear_status(self, status: SessionStatus) -> None:
        self.statuses.append(status)
        self.times_ns.append(time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        self._news.set()

    def _hear_event(self, event: WatchedEvent) -> None:
        self.events.append(event)
        self._news.set()

    @property
    def states(self) -> list[SessionState]:
        return [status.state for status in self.statuses]

    async def wait_for(self, state: SessionState, *, epoch: int | None = None, after: int = 0) -> SessionStatus:
        """The first status of that state (and epoch) with a sequence beyond `after`."""

        def matches(status: SessionStatus) -> bool:
            return status.state is state and status.sequence > after and epoch in (None, status.epoch)

        await self.wait_until(lambda: any(map(matches, self.statuses)))
        return next(filter(matches, self.statuses))

    def heard_at_ns(self, status: SessionStatus) -> int:
        return self.times_ns[self.statuses.index(status)]

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not condition():
                self._news.clear()
                await self._news.wait()
