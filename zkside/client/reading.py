"""A stream with one consumer: a task reads ahead, a bounded queue holds what was read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")

Put = Callable[[T], Awaitable[None]]
READ_AHEAD = 1_000


class _End:
    def __init__(self, failure: BaseException | None) -> None:
        self.failure = failure


class Reading(Generic[T]):
    """Iterate over it, inside `async with`, or give it a callback.

    The queue is there because a cancelled read of gRPC's would cancel the call: a cancelled `anext` here
    loses nothing. When it is full the stream is left unread, and the daemon's own bound holds.

    Raises (from the iteration, after what was read): what ended the stream.
    """

    def __init__(
        self,
        produce: Callable[[Put[T]], Coroutine[None, None, None]],
        callback: Callable[[T], None] | None,
        on_end: Callable[[Reading[T]], None],
        name: str,
    ) -> None:
        self._produce = produce
        self._callback = callback
        self._queue: asyncio.Queue[T | _End] = asyncio.Queue(READ_AHEAD)
        self._end: _End | None = None
        self._task = asyncio.create_task(self._run(), name=name)
        self._task.add_done_callback(lambda _: on_end(self))

    async def _run(self) -> None:
        failure: BaseException | None = None
        try:
            await self._produce(self._put)
        except Exception as error:
            failure = error
        await self._queue.put(_End(failure))

    async def _put(self, item: T) -> None:
        if self._callback is None:
            await self._queue.put(item)
        else:
            self._callback(item)

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        if self._end is None:
            item = await self._queue.get()
            if not isinstance(item, _End):
                return item
            self._end = item
        if self._end.failure is not None:
            raise self._end.failure
        raise StopAsyncIteration

    async def wait_ended(self) -> None:
        """For readings with a callback: until the stream is over. Raises what ended it."""
        async for _ in self:
            pass

    def close(self) -> None:
        """End the stream; what was not taken yet is dropped. Idempotent."""
        self._task.cancel()
        self._end = self._end or _End(None)

    async def wait_stopped(self) -> None:
        await asyncio.wait([self._task])

    async def __aenter__(self) -> Reading[T]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        await self.wait_stopped()
