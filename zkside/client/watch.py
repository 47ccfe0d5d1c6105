"""Watches in STATE mode, as their users hold them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType

from zkside.client.event import Target, WatchEvent
from zkside.client.stream import SharedStream
from zkside.client.subscriber import Subscriber


class Watch:
    """A subscription: iterate over it, or give `on_change` when you make it.

        async with client.watch("/config") as watch:
            async for event in watch:
                match event:
                    case Snapshot(nodes=nodes): ...
                    case Changes(changes=changes): ...

    Begins with one Snapshot for each target. Goes on over restarts of the daemon by itself, with exactly the
    first change that was missed (W4), or with a Snapshot that says why. A subscriber that is slow sees the
    newest state of each path, not each step (W8).

    Raises (from the iteration): InvalidPath, NoAuth, PolicyDenied, Quota, and Unavailable if there is no
    daemon at the start, unless it was made with `wait_for_ready`.
    """

    def __init__(self, stream: SharedStream, subscriber: Subscriber) -> None:
        self._stream = stream
        self._subscriber = subscriber

    @property
    def targets(self) -> tuple[Target, ...]:
        return self._stream.targets

    @property
    def zxid(self) -> int:
        """Of the newest message of the stream."""
        return self._stream.assembly.header.zxid

    @property
    def stale(self) -> bool:
        """Whether the daemon, or its session, cannot be reached now: what was seen may be out of date."""
        return self._subscriber.ended or self._stream.stale

    @property
    def age_s(self) -> float:
        """How long ago what was seen was last known to be current; 0 when it is not stale."""
        return self._stream.age_s

    def __aiter__(self) -> AsyncIterator[WatchEvent]:
        return self

    async def __anext__(self) -> WatchEvent:
        return await self._subscriber.next()

    async def wait_ended(self) -> None:
        """For watches with a callback: until the subscription is over. Raises the error that ended it."""
        await self._subscriber.wait_ended()

    def close(self) -> None:
        """End the subscription; the stream ends with its last one. Idempotent."""
        self._subscriber.close()

    async def __aenter__(self) -> Watch:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # A loop that was left by `break` without `async with` must not keep a stream open. A callback's
        # subscription lives on without its handle, until `close` or the client's end.
        if not self._subscriber.has_callback:
            self._subscriber.close()
