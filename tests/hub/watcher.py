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
from zkside.model.record import Record
from zkside.model.session import SessionStatus
from zkside.model.watch import ChangeType


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
                self.state, self._loading = self._loading, {}
                self.snapshots.append(delivery)
        else:
            self._take_cut(delivery)

    def _take_cut(self, cut: Changes) -> None:
        [(_, changes)] = cut.cuts
        zxids = [change.zxid for change in changes.changes]
        assert zxids == sorted(zxids), "changes out of order"
        assert zxids[-1] <= cut.zxid
        assert zxids[0] > self.bookmark, "a change came that a bookmark had declared delivered"
        for change in changes.changes:
            before = self.state.get(change.path)
            if change.record is None:
                assert change.type is ChangeType.DELETED
                assert before is not None, f"{change.path} was deleted but never seen"
                del self.state[change.path]
                continue
            if before is None:
                assert change.type is ChangeType.CREATED
            else:
                assert change.zxid > records.zxids(before)[1], f"{change.path} came twice"
                recreated = records.zxids(before)[0] != records.zxids(change.record)[0]
                assert change.type is (ChangeType.RECREATED if recreated else ChangeType.CHANGED)
            self.state[change.path] = change.record
        self.cuts.append(cut)
