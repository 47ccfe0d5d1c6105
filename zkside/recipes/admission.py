"""Lets holds begin a few at a time, and those who ask for them take turns.

gRPC takes one new call in about two turns of the event loop. What thousands of holds have to do at the same time makes
the turns long, and then nobody's call is even looked at for seconds, whatever it asks for.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Final

MOST: Final = 16
"""So many begin at the same time: enough to fill the way to ZooKeeper and back, and some milliseconds of work."""


CALLER: ContextVar[str] = ContextVar("caller", default="")
"""For whom the present task, and every task that it begins, asks for holds."""


class Admission:
    """In the order in which a caller asked; callers take turns, however much each asks for."""

    def __init__(self) -> None:
        self._places: dict[object, None] = {}
        """Those that begin just now."""
        self._queues: OrderedDict[str, OrderedDict[asyncio.Future[object], None]] = OrderedDict()
        """Those that wait, by caller, in the order of the callers' turns."""

    @property
    def beginning(self) -> int:
        return len(self._places)

    @property
    def waiting(self) -> int:
        """Looks at every caller that waits."""
        return sum(map(len, self._queues.values()))

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Run the block in one of the places. Cancellation: leaves the queue, or the place."""
        place = self._take() if not self._queues else None
        if place is None:
            place = await self._wait(CALLER.get())
        try:
            yield
        finally:
            if place in self._places:
                del self._places[place]
                self._admit()

    def vacate(self) -> None:
        """Free all places: what has begun waits for a connection, and whoever comes now has to hear that."""
        self._places.clear()
        self._admit()

    def _take(self) -> object | None:
        if len(self._places) >= MOST:
            return None
        place = object()
        self._places[place] = None
        return place

    async def _wait(self, caller: str) -> object:
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(caller, OrderedDict())[future] = None
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self._places.pop(future.result(), None)
                self._admit()
            else:
                self._leave(caller, future)
            raise

    def _leave(self, caller: str, future: asyncio.Future[object]) -> None:
        queue = self._queues[caller]
        del queue[future]
        if not queue:
            del self._queues[caller]

    def _admit(self) -> None:
        while self._queues and (place := self._take()) is not None:
            caller, queue = next(iter(self._queues.items()))
            future = next(iter(queue))
            self._leave(caller, future)
            if queue:
                self._queues.move_to_end(caller)
            future.set_result(place)
