"""A STATE subscriber: cursors into the feeds of its targets."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from zkside.hub.feed import Cut, Feed, Image
from zkside.hub.roots import Root
from zkside.model.session import SessionStatus
from zkside.model.watch import Place

# Changes of the session that a subscriber may leave unread; only the newest are kept.
STATUSES_KEPT = 64


class SnapshotReason(Enum):
    """Why a snapshot is sent."""

    INITIAL = "initial"
    RESUME_TOO_OLD = "resume too old"
    OVERFLOW = "overflow"
    HISTORY_CHANGED = "history changed"
    """ZooKeeper was wiped, or restored from an older snapshot: zxids of before cannot be compared with later ones."""


@dataclass(frozen=True, slots=True)
class SnapshotChunk:
    """One chunk of a target's state; the last has more = False."""

    zxid: int
    target: int
    reason: SnapshotReason
    image: Image
    index: int

    @property
    def epoch_id(self) -> str:
        """The history of its zxids."""
        return self.image.epoch_id

    @property
    def more(self) -> bool:
        return self.index + 1 < len(self.image.chunks)


@dataclass(frozen=True, slots=True)
class Changes:
    """One cut over all targets; `cuts` has those that changed, by index of the target."""

    zxid: int
    cuts: list[tuple[int, Cut]]

    @property
    def epoch_id(self) -> str:
        """The history of its zxids."""
        return self.cuts[0][1].epoch_id


@dataclass(frozen=True, slots=True)
class Bookmark:
    """All up to here has been delivered."""

    zxid: int
    epoch_id: str


@dataclass(frozen=True, slots=True)
class SessionChanged:
    """The session that keeps the targets current has another state, or they have become stale, or current again."""

    zxid: int
    epoch_id: str
    status: SessionStatus


Delivery = SnapshotChunk | Changes | Bookmark | SessionChanged


class Subscription:
    """What one stream receives, one `next` after the other.

    Ordering: a target's zxids never go back and no change comes twice (GUARANTEES W1, W2) within one history of
    ZooKeeper; another one begins with a snapshot that says so (V2). A cut covers all targets, and none is sent while
    a target waits for its snapshot, so the zxid of a Changes or a Bookmark is a point at which the stream can be
    resumed.
    """

    def __init__(
        self,
        feeds: list[Feed],
        roots: list[Root],
        settled: Callable[[], int],
        resume_zxid: int | None,
        bookmark_interval_s: float | None,
        on_close: Callable[[Subscription], None],
        *,
        is_of_history: bool = True,
    ) -> None:
        """With `is_of_history` False the resume point is of a history that is over."""
        self._feeds = feeds
        self._roots = roots
        self._settled = settled
        self._bookmark_interval_s = bookmark_interval_s
        self._on_close = on_close
        self._cursors = [0] * len(feeds)
        self._snapshots: dict[int, SnapshotReason] = {}
        self._statuses: deque[SessionStatus] = deque(maxlen=STATUSES_KEPT)
        self._told_stale = self.is_stale()
        self._outbox: deque[Delivery] = deque()
        self._waiter: asyncio.Future[bool] | None = None
        for index, feed in enumerate(feeds):
            cursor = feed.resume_at(resume_zxid) if resume_zxid is not None else None
            if cursor is None:
                missed = SnapshotReason.RESUME_TOO_OLD if is_of_history else SnapshotReason.HISTORY_CHANGED
                self._snapshots[index] = SnapshotReason.INITIAL if resume_zxid is None else missed
            else:
                self._cursors[index] = cursor
            feed.wakes[self.wake] = None

    def wake(self) -> None:
        """Something is there to be delivered."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)

    def session_changed(self, status: SessionStatus) -> None:
        """Deliver a change of the session."""
        self._told_stale = self.is_stale()
        self._statuses.append(status)
        self.wake()

    def staleness_changed(self, status: SessionStatus) -> None:
        """The targets may be stale although the session has not changed, or current again: if so, deliver that."""
        if self.is_stale() != self._told_stale:
            self.session_changed(status)

    def is_stale(self) -> bool:
        """Whether a target is cut off from ZooKeeper, or not yet compared with it again."""
        return any(root.stale_since is not None for root in self._roots)

    def age_s(self) -> float:
        """How long ago the stalest target was known to be current; 0 if all are."""
        since = [root.stale_since for root in self._roots if root.stale_since is not None]
        return time.monotonic() - min(since) if since else 0.0

    def places(self) -> list[Place]:
        """What is watched, for people."""
        return [Place(root.path, root.scope) for root in self._roots]

    def pending(self) -> int:
        """How many paths wait to be read by the subscriber."""
        return sum(feed.pending(cursor) for feed, cursor in zip(self._feeds, self._cursors, strict=True))

    async def next(self) -> Delivery:
        """The next thing to deliver; waits for it. One caller at a time. Cancellation loses nothing."""
        while True:
            if self._outbox:
                return self._outbox.popleft()
            ended_at = self._feeds[0].ended_at
            self._note_history()
            if self._snapshots and ended_at is None:
                await self._take_snapshots()
            elif self._statuses:
                zxid = self._settled() if ended_at is None else ended_at
                return SessionChanged(zxid, self._feeds[0].epoch_id, self._statuses.popleft())
            elif ended_at is not None:
                await self._woken()
            elif (changes := self._take_changes()) is not None:
                return changes
            elif not self._snapshots and not await self._woken() and self._is_up_to_date():
                return self._bookmark()

    def close(self) -> None:
        """Nothing is wanted any more."""
        for feed in self._feeds:
            feed.wakes.pop(self.wake, None)
        self._on_close(self)

    def _note_history(self) -> None:
        """Have the Snapshot of a new history delivered before anything else of it (GUARANTEES V2)."""
        for index, feed in enumerate(self._feeds):
            if self._cursors[index] < feed.history_floor and index not in self._snapshots:
                self._snapshots[index] = SnapshotReason.HISTORY_CHANGED

    async def _take_snapshots(self) -> None:
        index, reason = next(iter(self._snapshots.items()))
        image = await self._feeds[index].image()
        del self._snapshots[index]
        self._cursors[index] = image.sequence
        for chunk in range(len(image.chunks)):
            self._outbox.append(SnapshotChunk(image.zxid, index, reason, image, chunk))
        if not self._snapshots and self._is_up_to_date():
            self._outbox.append(self._bookmark())

    def _take_changes(self) -> Changes | None:
        behind = [i for i, feed in enumerate(self._feeds) if self._cursors[i] < feed.sequence]
        for index in behind:
            if self._cursors[index] < self._feeds[index].floor:
                self._snapshots[index] = SnapshotReason.OVERFLOW
        if self._snapshots:
            return None
        cuts = []
        for index in behind:
            cut = self._feeds[index].since(self._cursors[index])
            self._cursors[index] = self._feeds[index].sequence
            if cut.changes:
                cuts.append((index, cut))
        return Changes(max(cut.zxid for _, cut in cuts), cuts) if cuts else None

    def _is_up_to_date(self) -> bool:
        return all(feed.sequence == cursor for feed, cursor in zip(self._feeds, self._cursors, strict=True))

    def _bookmark(self) -> Bookmark:
        return Bookmark(self._settled(), self._feeds[0].epoch_id)

    async def _woken(self) -> bool:
        """Wait for something to deliver; False when a bookmark is due first."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiter = waiter
        timer = None
        if self._bookmark_interval_s is not None:
            timer = loop.call_later(self._bookmark_interval_s, _expire, waiter)
        try:
            return await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()


def _expire(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)
