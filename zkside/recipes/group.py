"""Groups: to be a member for as long as a stream lives, and to follow who else is one."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from zkside.core.shrink import Differences, Membership, Named, ShrinkGuard, ShrinkTerms
from zkside.hub.subscription import Changes, Delivery, SnapshotChunk, SnapshotReason, Subscription
from zkside.model import path as paths
from zkside.model.hold import HoldUpdate, OnExists, Terms
from zkside.model.member import is_member, is_same_member
from zkside.model.operation import Create, CreateMode
from zkside.model.record import Record
from zkside.recipes.ephemeral import hold_ephemeral
from zkside.recipes.holds import Holds
from zkside.recipes.node import Writes

RECIPE = "group"

STALE_CHECK_S = 0.25
"""How often a watch that is cut off looks whether it still is."""


def join(
    holds: Holds,
    writes: Writes,
    operation: Create,
    terms: Terms,
    *,
    on_exists: OnExists,
    wait_timeout_s: float,
    resume_token: str,
    deadline_s: float | None,
) -> AsyncGenerator[HoldUpdate, None]:
    """The updates of one membership's stream, beginning with HELD; after SESSION_LOST it joins again.

    The node has its data from the first moment on: to Curator's service discovery one empty child is an error of
    the whole service. Missing parents are containers, as Curator makes them. Raises, and cancellation: as
    hold_ephemeral.
    """
    return hold_ephemeral(
        holds,
        writes,
        operation,
        terms,
        make_parents=True,
        parents=CreateMode.CONTAINER,
        recreate=True,
        on_exists=on_exists,
        wait_timeout_s=wait_timeout_s,
        is_same=is_same_member,
        resume_token=resume_token,
        deadline_s=deadline_s,
    )


@dataclass(frozen=True, slots=True)
class Listed:
    """All members, sorted by name."""

    members: list[Named]
    reason: SnapshotReason


@dataclass(frozen=True, slots=True)
class Withheld:
    """The shrink guard does not believe in a loss: what was published stays."""

    published: int
    present: int


GroupNews = Listed | Differences | Withheld


class GroupWatch:
    """What one stream hears of a group: all members, then who joined, left or changed."""

    def __init__(self, path: str, subscription: Subscription, shrink: ShrinkTerms | None) -> None:
        """`subscription` is of the one target (path, CHILDREN, with data), and stays its owner's to close."""
        self.watch_id = secrets.token_hex(8)
        self.zxid = 0
        """Up to here the group is known, as of the news that came last."""
        self._path = path
        self._subscription = subscription
        self._shrink = shrink
        self._guard: ShrinkGuard | None = None
        self._membership = Membership()
        self._snapshot: dict[str, Record] = {}
        self._list_all: SnapshotReason | None = SnapshotReason.INITIAL
        self._stale = False
        """Whether the news that came last was."""
        self._told: int | None = None
        """How many were present in the Withheld that is in force; None if none is."""
        self._confirmed = False
        self._waiting: asyncio.Timeout | None = None

    async def news(self) -> AsyncGenerator[GroupNews, None]:
        """Listed first, and again whenever what changed cannot be told one by one.

        Differences may be empty: then it is another news that ends, such as a withheld loss that was undone or
        the time in which the group was known to be stale. Ordering: zxids never go back. Cancellation: loses
        nothing.
        """
        while True:
            if self._apply(await self._next()) and (news := self._judged()) is not None:
                yield news

    def confirm(self) -> bool:
        """Publish what is withheld; False if nothing is."""
        if self._guard is None or not self._guard.confirm():
            return False
        self._confirmed = True
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(asyncio.get_running_loop().time())
        return True

    async def _next(self) -> Delivery | None:
        """The next delivery; None when it is time to judge again without one."""
        if self._confirmed:
            return None
        try:
            async with asyncio.timeout_at(self._due_s()) as self._waiting:
                return await self._subscription.next()
        except TimeoutError:
            return None
        finally:
            self._waiting = None

    def _due_s(self) -> float | None:
        due_s = self._guard.due_s if self._guard is not None else None
        if self._stale:
            # That the cache has been compared with ZooKeeper is no delivery.
            due_s = min(math.inf if due_s is None else due_s, asyncio.get_running_loop().time() + STALE_CHECK_S)
        return due_s

    def _apply(self, delivered: Delivery | None) -> bool:
        """False while only a part of the members is known."""
        if isinstance(delivered, SnapshotChunk):
            self.zxid = delivered.zxid
            for path, record in delivered.image.chunks[delivered.index]:
                if path != self._path and is_member(record):
                    self._snapshot[paths.name(path)] = record
            if delivered.more:
                return False
            self._membership.replace(self._snapshot)
            self._snapshot = {}
            self._list_all = delivered.reason
        elif isinstance(delivered, Changes):
            self.zxid = delivered.zxid
            for _, cut in delivered.cuts:
                for change in cut.changes:
                    if change.path != self._path:
                        joins = change.record is not None and is_member(change.record)
                        self._membership.put(paths.name(change.path), change.record if joins else None)
        return True

    def _judged(self) -> GroupNews | None:
        """What is to be said of the members as they are now."""
        now_s, present = asyncio.get_running_loop().time(), len(self._membership)
        was_stale, self._stale = self._stale, self._subscription.is_stale()
        self._confirmed = False
        if self._guard is not None:
            if self._stale:
                self._guard.doubt(now_s)
            if not self._guard.judge(present, now_s):
                if self._told == present and was_stale == self._stale:
                    return None
                self._told = present
                return Withheld(self._membership.published, present)
        elif self._shrink is not None:
            self._guard = ShrinkGuard(self._shrink, present, now_s)
        differences = self._membership.publish()
        was_withheld, self._told = self._told is not None, None
        if self._list_all is not None:
            reason, self._list_all = self._list_all, None
            return Listed(self._membership.members(), reason)
        if was_withheld or was_stale != self._stale or any(differences):
            return differences
        return None
