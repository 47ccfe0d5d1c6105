"""Lets holds begin a few at a time, and those who ask for them take turns: what thousands of them have to do at the
same time makes the turns of the event loop long (turnstile.py)."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextvars import ContextVar
from typing import Final

from zkside.recipes.turnstile import FEW, Turnstile

MOST: Final = 8
"""So many of a crowd begin at the same time: enough to keep the way to ZooKeeper busy."""


CALLER: ContextVar[str] = ContextVar("caller", default="")
"""For whom the present task, and every task that it begins, asks for holds."""


class Place:
    """A block in which a hold begins. (A class: contextlib's generators take three times as long.)"""

    __slots__ = ("_admission", "_caller", "_future")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._caller = CALLER.get()
        self._future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> None:
        await self._admission.enter(self._future, self._caller)

    async def __aexit__(self, *_: object) -> None:
        self._admission.leave(self._future, self._caller)


class Admission:
    """In the order in which a caller asked; callers take turns, however much each asks for."""

    def __init__(self, turnstile: Turnstile) -> None:
        self._turnstile = turnstile
        self._places: dict[asyncio.Future[None], None] = {}
        """Those that begin just now, or go through the turnstile to that."""
        self._queues: OrderedDict[str, OrderedDict[asyncio.Future[None], None]] = OrderedDict()
        """Those that wait, by caller, in the order of the callers' turns."""

    @property
    def beginning(self) -> int:
        return len(self._places)

    @property
    def waiting(self) -> int:
        """Looks at every caller that waits."""
        return sum(map(len, self._queues.values()))

    def place(self) -> Place:
        """One of the places, for the time of an `async with` block. Cancellation: leaves the queue, or the place."""
        return Place(self)

    async def enter(self, place: asyncio.Future[None], caller: str) -> None:
        if not self._queues and not self._turnstile.is_crowded and len(self._places) < FEW:
            self._places[place] = None
            return
        self._queues.setdefault(caller, OrderedDict())[place] = None
        self._turnstile.crowd += 1
        self._admit()
        try:
            await place
        except BaseException:
            self.leave(place, caller)
            raise

    def leave(self, place: asyncio.Future[None], caller: str) -> None:
        if place in self._places:
            del self._places[place]
            self._admit()
        elif place in self._queues.get(caller, ()):
            self._leave(caller, place)

    def vacate(self) -> None:
        """Free all places: what has begun waits for a connection, and whoever comes now has to hear that."""
        self._places.clear()
        self._admit()

    def _admit(self) -> None:
        while self._queues and len(self._places) < (MOST if self._turnstile.is_crowded else FEW):
            caller, queue = next(iter(self._queues.items()))
            place = next(iter(queue))
            self._leave(caller, place)
            if queue:
                self._queues.move_to_end(caller)
            self._places[place] = None
            self._turnstile.let_through((place,))

    def _leave(self, caller: str, place: asyncio.Future[None]) -> None:
        queue = self._queues[caller]
        del queue[place]
        self._turnstile.crowd -= 1
        if not queue:
            del self._queues[caller]
