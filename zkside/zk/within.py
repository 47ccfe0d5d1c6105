"""Work that ends with its epoch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from zkside.errors import SessionLost


class Within:
    """The guard of `async with session.within(epoch)`: when the epoch ends, so does the body.

    The body is cancelled, and the block raises SessionLost. A body that comes to its end or fails by itself
    after the epoch ended raises SessionLost too, so nobody takes its result for one of a living epoch.

    Cancellation: from outside goes through as CancelledError, also when the epoch ended at the same time.
    Blocks may be nested; each one turns only its own cancellation into SessionLost.
    """

    __slots__ = ("_cancelling", "_enter", "_leave", "_reason", "_task")

    def __init__(self, enter: Callable[[Within], None], leave: Callable[[Within], None]) -> None:
        self._enter = enter
        self._leave = leave
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._reason: str | None = None

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("within() needs a task whose work it can end")
        self._task = task
        self._cancelling = task.cancelling()
        self._enter(self)

    def end(self, reason: str) -> None:
        """The epoch is over."""
        if self._task is not None and self._reason is None:
            self._reason = reason
            self._task.cancel()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave(self)
        task, self._task = self._task, None
        if self._reason is None or task is None:
            return
        if not isinstance(error, asyncio.CancelledError):
            # Our cancellation has not been delivered, and would strike whatever is awaited after the block.
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError as undelivered:
                error = error or undelivered
        if task.uncancel() > self._cancelling:
            raise asyncio.CancelledError
        raise SessionLost(self._reason) from error
