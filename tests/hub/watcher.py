"""A subscriber that believes nothing: it checks the watch guarantees on all that it receives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from zkside.hub.subscription import (
    Bookmark,
    Changes,
    Delivery,
    SessionChanged,
    SnapshotChunk,
    SnapshotReason,
    Subscription,
)
from zkside.model import record as records
from zkside.model.record import UNREADABLE, Record
from zkside.model.session import SessionStatus
from zkside.model.watch import Change, ChangeType


async def eventually(holds: Callable[[], bool], within_s: float = 15.0) -> None:
    """Wait for what nothing announces."""
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


class Watcher:
    """Follows one target of a subscription, and checks W1, W2 and W5 at every step, in each history of ZooKeeper."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.state: dict[str, Record] = {}
        """Without what may not be read."""
        self.unreadable: set[str] = set()
        self.zxid = 0
        self.epoch_id = ""
        self.bookmark = 0
        self.cuts: list[Changes] = []
        self.snapshots: list[SnapshotChunk] = []
        self.statuses: list[SessionStatus] = []
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._loading: dict[str, Record] = {}

    def __enter__(self) -> Watcher:
        self._task = asyncio.create_task(self._follow())
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._task is not None
        if self._task.done():
            self._task.result()
        self._task.cancel()
        self.subscription.close()

    async def until(self, holds: Callable[[], bool], within_s: float = 15.0) -> None:
        """Wait until something holds; fails with what was seen instead."""
        async with asyncio.timeout(within_s):
            while not holds():
                assert self._task is not None
                if self._task.done():
                    self._task.result()
                self._changed.clear()
                await self._changed.wait()

    def data(self) -> dict[str, bytes]:
        """path → data."""
        return {path: records.data(record) for path, record in self.state.items()}

    async def _follow(self) -> None:
        try:
            while True:
                self._take(await self.subscription.next())
                self._changed.set()
        finally:
            self._changed.set()

    def _take(self, delivery: Delivery) -> None:
        if isinstance(delivery, SnapshotChunk) and delivery.epoch_id != self.epoch_id:
            assert not self.epoch_id or delivery.reason is SnapshotReason.HISTORY_CHANGED
            self.epoch_id, self.zxid, self.bookmark = delivery.epoch_id, 0, 0
        assert delivery.epoch_id == (self.epoch_id or delivery.epoch_id), "another history, without a snapshot"
        assert delivery.zxid >= self.zxid, "the zxid of the stream went back"
        if isinstance(delivery, SessionChanged):
            self.statuses.append(delivery.status)
            return
        self.zxid = delivery.zxid
        if isinstance(delivery, Bookmark):
            self.bookmark = delivery.zxid
        elif isinstance(delivery, SnapshotChunk):
            self._loading.update(delivery.image.chunks[delivery.index])
            if not delivery.more:
                loaded, self._loading = self._loading, {}
                self.state = {path: record for path, record in loaded.items() if record != UNREADABLE}
                self.unreadable = loaded.keys() - self.state.keys()
                self.snapshots.append(delivery)
        else:
            self._take_cut(delivery)

    def _was_hidden(self, change: Change) -> bool:
        if change.record == UNREADABLE or change.path in self.unreadable:
            return True
        return change.record is not None and records.zxids(change.record)[1] < change.zxid

    def _take_cut(self, cut: Changes) -> None:
        [(_, changes)] = cut.cuts
        zxids = [change.zxid for change in changes.changes]
        assert zxids == sorted(zxids), "changes out of order"
        assert zxids[-1] <= cut.zxid
        # What an ACL hid comes as of the cut at which it was seen, which may be the last one that was told.
        told = [change.zxid for change in changes.changes if not self._was_hidden(change)]
        assert all(zxid > self.bookmark for zxid in told), "a change came that a bookmark had declared delivered"
        for change in changes.changes:
            before = self.state.get(change.path)
            was_unreadable = change.path in self.unreadable
            self.unreadable.discard(change.path)
            if change.record is None:
                assert change.type is ChangeType.DELETED
                assert before is not None or was_unreadable, f"{change.path} was deleted but never seen"
                self.state.pop(change.path, None)
                continue
            if change.record == UNREADABLE:
                assert change.type is ChangeType.UNREADABLE
                self.unreadable.add(change.path)
                self.state.pop(change.path, None)
                continue
            if was_unreadable:
                assert change.type is ChangeType.CHANGED
            elif before is None:
                assert change.type is ChangeType.CREATED
            else:
                assert change.zxid > records.zxids(before)[1], f"{change.path} came twice"
                recreated = records.zxids(before)[0] != records.zxids(change.record)[0]
                assert change.type is (ChangeType.RECREATED if recreated else ChangeType.CHANGED)
            self.state[change.path] = change.record
        self.cuts.append(cut)
