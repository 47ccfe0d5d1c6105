"""The stream that hears a hold's updates, and the bound on what it may leave unread."""

from __future__ import annotations

import asyncio
from collections import deque

from zkside.errors import Quota, ZksideError
from zkside.model.hold import HoldUpdate

MAX_UNREAD = 1024
"""Updates that a stream may leave unread; they are not merged, so that none is missed."""


class Audience:
    """Every update in order, but for a refresh of the lease, which takes the place of an unread one."""

    def __init__(self) -> None:
        self._unread: deque[HoldUpdate] = deque()
        self._ends_in_refresh = False
        self.is_overrun = False
        """Too much was left unread: the stream is ended from here."""
        self._failure: ZksideError | None = None
        self._woken = asyncio.Event()

    def __len__(self) -> int:
        """How many wait for the stream."""
        return len(self._unread)

    def tell(self, update: HoldUpdate, *, refresh: bool = False) -> None:
        """`refresh`: it says nothing new but the lease."""
        if refresh and self._ends_in_refresh and self._unread:
            self._unread.pop()
        if len(self._unread) >= MAX_UNREAD:
            self.is_overrun = True
            self.fail(Quota(f"more than {MAX_UNREAD} updates of the hold were left unread", limit="max_unread"))
        else:
            self._unread.append(update)
            self._ends_in_refresh = refresh
        self._woken.set()

    def fail(self, failure: ZksideError) -> None:
        """The stream ends with this error, behind what it has not read; nothing that is told later counts."""
        self._failure = self._failure or failure
        self._woken.set()

    async def next(self) -> HoldUpdate:
        """Raises: what `fail` was given."""
        while not self._unread:
            if self._failure is not None:
                raise self._failure
            self._woken.clear()
            await self._woken.wait()
        return self._unread.popleft()
