"""Lets those who wait go on a few at a time, so that thousands who wait for the same do not keep all others waiting."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

AT_ONCE = 10
"""So many go on in one turn of the event loop: some milliseconds of work (see admission.py)."""


class Turnstile:
    """In the order in which they were let through. Who is let through when nobody was in this turn goes on at once."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._left = AT_ONCE
        self._is_turning = False

    def let_through(self, waiting: Iterable[asyncio.Future[None]]) -> None:
        """Set their results, now or in one of the next turns of the loop. Those that are done already do not count."""
        self._waiting.extend(waiting)
        self._go()

    def _go(self) -> None:
        while self._waiting and self._left:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                self._left -= 1
        if self._left < AT_ONCE and not self._is_turning:
            self._is_turning = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._is_turning = False
        self._left = AT_ONCE
        self._go()
