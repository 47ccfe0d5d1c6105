"""Lets those who wait go on a few at a time, so that thousands who wait for the same do not keep all others waiting.

gRPC takes one new call in about two turns of the event loop, so whatever makes the turns long keeps every caller
waiting, those too who ask for something else. Hence a pause after a long turn, while many are to go on and calls come
in.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

AT_ONCE: Final = 3
"""So many of a crowd go on in one turn of the event loop: a millisecond of work."""
LONG_S: Final = 0.001
"""What keeps others waiting."""
PAUSE: Final = 16
"""So many times as long is the pause after it: a seventeenth of the time is theirs who go through here."""
RECENT_S: Final = 0.1
"""For so long after a call others are taken to call."""
FEW: Final = 100
"""So many are no crowd: their work is soon done, and costs least together."""


class Turnstile:
    """Those that were let through together keep their order, and take turns with all others: nobody waits behind
    thousands. Who is let through when nobody was in this turn goes on at once."""

    def __init__(self) -> None:
        self._waiting: deque[deque[asyncio.Future[None]]] = deque()
        self.crowd = 0
        """So many are to go on, here and in the lines of those who use it; each keeps its own part up to date."""
        self._gone = 0
        """So many have gone on in this turn."""
        self._is_turning = False
        self._since_s = 0.0
        self._called_s = -RECENT_S

    @property
    def is_crowded(self) -> bool:
        return self.crowd > FEW

    def called(self) -> None:
        """Take note that gRPC has handed over a call."""
        self._called_s = time.monotonic()

    @contextmanager
    def crowded(self, count: int) -> Iterator[None]:
        """Run the block while so many more are to go on."""
        self.crowd += count
        try:
            yield
        finally:
            self.crowd -= count

    def let_through(self, waiting: Iterable[asyncio.Future[None]]) -> None:
        """Set their results, now or in one of the next turns of the loop. Those that are done already do not count."""
        together = deque(waiting)
        self.crowd += len(together)
        self._waiting.append(together)
        self._go()

    async def through(self) -> None:
        """Go through when it is this one's turn. Cancellation: leaves nothing."""
        if not self._waiting and not self.is_crowded and self._gone < FEW:
            self._take_turn()
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.let_through((future,))
        await future

    async def rest(self, worked_s: float) -> None:
        """Let others go on, after work that took so long in one piece."""
        await asyncio.sleep(PAUSE * worked_s if worked_s > LONG_S and self._is_called() else 0)

    def _is_called(self) -> bool:
        return time.monotonic() - self._called_s < RECENT_S

    def _go(self) -> None:
        while self._waiting and self._gone < (AT_ONCE if self.is_crowded else FEW):
            together = self._waiting.popleft()
            while together:
                future = together.popleft()
                self.crowd -= 1
                if not future.done():
                    future.set_result(None)
                    self._take_turn()
                    break
            if together:
                self._waiting.append(together)

    def _take_turn(self) -> None:
        self._gone += 1
        if not self._is_turning:
            loop = asyncio.get_running_loop()
            self._is_turning, self._since_s = True, time.monotonic()  # the loop's own clock stands still in a turn
            # What was let through runs in the next turn, and what that begins in the one after it.
            loop.call_soon(lambda: loop.call_soon(self._turn))

    def _turn(self) -> None:
        took_s = time.monotonic() - self._since_s
        if took_s > LONG_S and self.is_crowded and self._is_called():
            asyncio.get_running_loop().call_later(PAUSE * took_s, self._open)
        else:
            self._open()

    def _open(self) -> None:
        self._is_turning = False
        self._gone = 0
        self._go()
