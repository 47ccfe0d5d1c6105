"""Fan-out inside the process: one event to many subscribers, none of which can hold up another.

A subscriber costs no task: an iterating one is a future that its own task waits for, a callback is called in
place. An event is one object that all of them share. What an iterating subscriber has not taken yet is kept
as it came if it is one event, and merged from the second on (conflate.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from zkside.client.conflate import Backlog
from zkside.client.event import Bookmark, Snapshot, SnapshotReason, Target, WatchEvent

Callback = Callable[[WatchEvent], None]


class Fan:
    """The subscribers of one source of events."""

    def __init__(self, snapshot: Callable[[Target, SnapshotReason], Snapshot], on_empty: Callable[[], None]) -> None:
        self._snapshot = snapshot
        self._on_empty = on_empty
        self._subscribers: dict[Subscriber, None] = {}

    def __len__(self) -> int:
        return len(self._subscribers)

    def add(self, subscriber: Subscriber) -> None:
        self._subscribers[subscriber] = None

    def discard(self, subscriber: Subscriber) -> None:
        """The last one to leave tells `on_empty`."""
        if subscriber in self._subscribers:
            del self._subscribers[subscriber]
            if not self._subscribers:
                self._on_empty()

    def subscribers(self) -> list[Subscriber]:
        return list(self._subscribers)

    def publish(self, event: WatchEvent) -> None:
        """Give the event to everybody; never blocks, never raises."""
        if type(event) is Bookmark:
            for subscriber in self.subscribers():
                if subscriber.wants_bookmarks:
                    subscriber.offer(event)
            return
        for subscriber in self.subscribers():
            subscriber.offer(event)

    def snapshot(self, target: Target, reason: SnapshotReason) -> Snapshot:
        return self._snapshot(target, reason)


class Subscriber:
    """One subscriber: what waits for it, and who waits."""

    __slots__ = (
        "__weakref__",
        "_backlog",
        "_callback",
        "_ended",
        "_failure",
        "_fan",
        "_loop",
        "_pending",
        "_waiter",
        "on_end",
        "wants_bookmarks",
    )

    def __init__(self, fan: Fan, callback: Callback | None, *, wants_bookmarks: bool) -> None:
        self._fan = fan
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._pending: WatchEvent | None = None
        self._backlog: Backlog | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._failure: BaseException | None = None
        self._ended = False
        self.wants_bookmarks = wants_bookmarks
        self.on_end: Callable[[], None] | None = None
        """Called once, when the subscription is over."""

    @property
    def ended(self) -> bool:
        return self._ended

    @property
    def has_callback(self) -> bool:
        return self._callback is not None

    @property
    def failure(self) -> BaseException | None:
        """Why it ended, if not by `close`."""
        return self._failure

    def start_with_snapshots(self, targets: list[Target]) -> None:
        """Begin with the state that is there already."""
        if not targets:
            return
        self._backlog = Backlog()
        for target in targets:
            self._backlog.want_snapshot(target, SnapshotReason.INITIAL)
        if self._callback is None:
            self._wake()
        else:
            # Not in place: nobody expects to be called before `watch` has returned.
            self._loop.call_soon(self._drain)

    def offer(self, event: WatchEvent) -> None:
        """Take an event in; never blocks."""
        if self._ended:
            return
        if self._callback is not None and self._backlog is None:
            self._call(self._callback, event)
        elif self._backlog is not None:
            self._backlog.add(event)
        elif self._pending is None:
            self._pending = event
            self._wake()
        else:
            self._backlog = Backlog()
            self._backlog.add(self._pending)
            self._backlog.add(event)
            self._pending = None

    async def next(self) -> WatchEvent:
        """The next event. Raises StopAsyncIteration after `close`, the failure after `fail`.

        Cancellation: nothing is lost."""
        while True:
            event = self._take()
            if event is not None:
                return event
            if self._failure is not None:
                raise self._failure
            if self._ended:
                raise StopAsyncIteration
            if self._callback is not None:
                raise RuntimeError("a watch with a callback cannot be iterated as well")
            if self._waiter is not None:
                raise RuntimeError("two tasks iterate over one watch; give each its own, they share the stream")
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    async def wait_ended(self) -> None:
        """Until this subscription is over; for callbacks. Raises the failure."""
        while not self._ended:
            if self._waiter is not None:
                raise RuntimeError("two tasks wait for the end of one watch")
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Leave; what was not taken yet is dropped. Idempotent."""
        self._pending = self._backlog = None
        self._end()

    def fail(self, failure: BaseException) -> None:
        """End with an error, which comes after what was not taken yet."""
        if not self._ended:
            self._failure = failure
            self._end()

    def _end(self) -> None:
        ended, self._ended = self._ended, True
        self._fan.discard(self)
        if not ended and self.on_end is not None:
            self.on_end()
        self._wake()

    def _take(self) -> WatchEvent | None:
        event = self._pending
        if event is not None:
            self._pending = None
            return event
        backlog = self._backlog
        if backlog is not None:
            event = backlog.take(self._fan.snapshot)
            if not backlog:
                self._backlog = None
        return event

    def _drain(self) -> None:
        while not self._ended and self._callback is not None:
            event = self._take()
            if event is None:
                return
            self._call(self._callback, event)

    def _call(self, callback: Callback, event: WatchEvent) -> None:
        try:
            callback(event)
        except Exception as error:
            # The caller's bug must not reach the other subscribers: it ends this subscription, and is told
            # to whoever waits for its end and to the loop.
            self.fail(error)
            self._loop.call_exception_handler(
                {"message": "a watch's callback raised; this subscription is over", "exception": error}
            )

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
