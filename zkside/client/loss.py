"""The end of a hold that was not asked for, and what it does to the work that relied on it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator


class Loss:
    """The end of a hold: `await` it for the reason."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.reason = ""

    def is_set(self) -> bool:
        return self._event.is_set()

    def set(self, reason: str) -> None:
        if not self._event.is_set():
            self.reason = reason
            self._event.set()

    async def wait(self, timeout_s: float | None = None) -> str:
        """The reason, once there is one; "" if there is none in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        return self.reason

    def __await__(self) -> Generator[object, None, str]:
        return self.wait().__await__()


class Revocation:
    """Somebody asks for the hold. Letting go is up to its holder."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def is_set(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        self._event.set()

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Whether somebody asked, in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        return self.is_set()


class Body:
    """The task inside an `async with` block, which ends with the hold.

    Cancellation: from outside goes through as CancelledError, also when the hold was lost at the same time.
    A block that is entered by one task and left by another is not cancelled, and raises all the same.
    """

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._cancelled = False

    @property
    def is_cancelled(self) -> bool:
        """Whether the hold was lost while the body ran."""
        return self._cancelled

    def cancel(self) -> None:
        """The hold is lost."""
        if not self._cancelled:
            self._cancelled = True
            self._task.cancel()

    async def leave(self, error: BaseException | None) -> BaseException | None:
        """Take our cancellation back; the error that the body ended with.

        Raises: CancelledError if there was another cancellation than ours."""
        if asyncio.current_task() is not self._task:
            return error
        if not isinstance(error, asyncio.CancelledError):
            # Ours has not been delivered, and would strike whatever is awaited after the block.
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError as undelivered:
                error = error or undelivered
        if self._task.uncancel() > self._cancelling:
            raise asyncio.CancelledError
        return error
