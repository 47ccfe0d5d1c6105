"""Taps: whoever waits for the end of one node, and hears of it whatever happens (GUARANTEES V1).

A tap lives on a root of its path's own. Where that cannot be (the node may not be read), it falls back to the list of
its parent's children: asked for whenever the parent's watch reports something, and every POLL_S besides. Where not even
that may be read, `on_failed` says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from zkside import log
from zkside.errors import NoAuth, NoNode, Refused, ZksideError
from zkside.hub.asking import PASSING, Asking, pause
from zkside.hub.keeper import Keeper
from zkside.hub.reader import Reader
from zkside.hub.roots import Root
from zkside.hub.table import NodeTable
from zkside.model import path as paths
from zkside.model import record as records
from zkside.model.operation import Exists, GetChildren
from zkside.model.record import UNREADABLE, Record
from zkside.model.watch import Scope
from zkside.zk.session import Session

POLL_S: Final = 2.0


class Tap:
    """Somebody who waits for the end of one node."""

    def __init__(
        self,
        path: str,
        czxid: int | None,
        gone: Callable[[], None],
        on_data: Callable[[bytes], None] | None,
        on_failed: Callable[[ZksideError], None],
        root: Root,
    ) -> None:
        self.path = path
        self.czxid = czxid
        self.gone = gone
        self.on_data = on_data
        self.on_failed = on_failed
        self.root: Root | None = root
        """None once it fell back to its parent's children, or is over (the root may lead to it: a cycle)."""


class _Siblings:
    """The taps below one parent that fell back to its list of children."""

    def __init__(self) -> None:
        self.taps: dict[Tap, None] = {}
        self.news = asyncio.Event()


class Taps:
    """All taps of a hub."""

    def __init__(self, session: Session, table: NodeTable, reader: Reader, keeper: Keeper) -> None:
        self._session = session
        self._asking = Asking(session)
        self._table = table
        self._reader = reader
        self._keeper = keeper
        self._by_path: dict[str, dict[Tap, None]] = {}
        self._unchecked: dict[Tap, None] = {}
        """Read as absent where the table never had them: no change would tell, so they are looked at once settled."""
        self._siblings: dict[str, _Siblings] = {}

    def add(
        self,
        path: str,
        czxid: int | None,
        gone: Callable[[], None],
        on_data: Callable[[bytes], None] | None,
        on_failed: Callable[[ZksideError], None],
    ) -> Callable[[], None]:
        """See Hub.on_deleted."""
        root = self._keeper.acquire(path, Scope.NODE, is_vital=True)
        tap = Tap(path, czxid, gone, on_data, on_failed, root)
        self._by_path.setdefault(path, {})[tap] = None
        root.ready.add_done_callback(lambda ready: self._settled(tap, ready))

        def stop() -> None:
            self._stop(tap)

        return stop

    def count(self, path: str) -> int:
        """How many wait for this path's end."""
        return len(self._by_path.get(path, ()))

    def deleted(self, path: str) -> None:
        """End the taps without a czxid, as an event says that the node was deleted. The event may be of a node before
        the one of a czxid: these taps wait for the read."""
        for tap in [tap for tap in self._by_path.get(path, ()) if tap.czxid is None]:
            self._take(tap, None)

    def heard(self, path: str) -> None:
        """Have a parent's list of children looked at, since an event of this path came."""
        siblings = self._siblings.get(path)
        if siblings is not None:
            siblings.news.set()

    def published(self, path: str, record: Record | None) -> None:
        for tap in list(self._by_path.get(path, ())):
            self._take(tap, record)

    def settle(self) -> None:
        """Look at those whose path was not settled when its root became ready."""
        for tap in list(self._unchecked):
            if tap.path not in self._reader.unsettled:
                del self._unchecked[tap]
                self._take(tap, self._table.records.get(tap.path))

    def look_again(self) -> None:
        """Go by what the table says now, since a cut may have been published by half."""
        for taps in list(self._by_path.values()):
            for tap in list(taps):
                if tap.root is not None and tap.root.live:
                    self._take(tap, self._table.records.get(tap.path))
        for siblings in self._siblings.values():
            siblings.news.set()

    def _settled(self, tap: Tap, ready: asyncio.Future[None]) -> None:
        if tap not in self._by_path.get(tap.path, ()):
            return
        error = None if ready.cancelled() else ready.exception()
        if error is not None:
            self._fall_back(tap, error)
        elif tap.path in self._reader.unsettled:
            self._unchecked[tap] = None
        elif not ready.cancelled():
            # It may have gone before the watch was set.
            self._take(tap, self._table.records.get(tap.path))

    def _take(self, tap: Tap, record: Record | None) -> None:
        if record == UNREADABLE:  # it is there, and newer servers tell no event of it any more
            self._fall_back(tap, NoAuth(f"{tap.path} may not be read any more"))
        elif record is None or (tap.czxid is not None and records.zxids(record)[0] != tap.czxid):
            self._end(tap)
        elif tap.on_data is not None:
            tap.on_data(records.data(record))

    def _end(self, tap: Tap) -> None:
        if self._stop(tap):
            tap.gone()

    def _stop(self, tap: Tap) -> bool:
        members = self._by_path.get(tap.path)
        if members is None or tap not in members:
            return False
        del members[tap]
        if not members:
            del self._by_path[tap.path]
        self._unchecked.pop(tap, None)
        root, tap.root = tap.root, None
        if root is not None:
            self._keeper.release(root, linger=False)
        elif (siblings := self._siblings.get(paths.parent(tap.path))) is not None:
            siblings.taps.pop(tap, None)
            siblings.news.set()
        return True

    # What may not be read

    def _fall_back(self, tap: Tap, why: BaseException) -> None:
        if tap.root is None:
            return
        log.hold_node_unreadable(path=tap.path, reason=str(why))
        root, tap.root = tap.root, None
        self._unchecked.pop(tap, None)
        self._keeper.release(root, linger=False)
        parent = paths.parent(tap.path)
        siblings = self._siblings.get(parent)
        if siblings is None:
            siblings = self._siblings[parent] = _Siblings()
            followed = siblings
            self._keeper.own(
                lambda: self._follow(parent, followed), "siblings", lambda error: self._failed(parent, followed, error)
            )
        siblings.taps[tap] = None
        siblings.news.set()

    async def _follow(self, parent: str, siblings: _Siblings) -> None:
        """Follow the list of a parent's children until nobody below it waits any more."""
        # For its watch alone: the parent need not be readable as a node for that.
        root = self._keeper.acquire(parent, Scope.NODE, is_vital=True)
        attempt = 0
        try:
            while siblings.taps:
                await self._session.wait_connected(read_only=True)
                siblings.news.clear()
                try:
                    await self._look(parent, siblings)
                except PASSING:
                    await pause(attempt)
                    attempt += 1
                    continue
                attempt = 0
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await siblings.news.wait()
        finally:
            if self._siblings.get(parent) is siblings:
                del self._siblings[parent]
            self._keeper.release(root, linger=False)

    async def _look(self, parent: str, siblings: _Siblings) -> None:
        asked = list(siblings.taps)
        try:
            names = set((await self._asking.ask(GetChildren(parent))).value[0])
        except NoNode:
            names = set()
        except Refused:
            await self._look_one_by_one(asked)
            return
        for tap in asked:
            if paths.name(tap.path) not in names:
                self._end(tap)

    async def _look_one_by_one(self, asked: list[Tap]) -> None:
        """Ask for each node, which servers before 3.8.4 and 3.9.2 answer to anybody."""
        for tap in asked:
            try:
                stat = (await self._asking.ask(Exists(tap.path))).value
            except Refused as error:
                if self._stop(tap):
                    tap.on_failed(error)
                continue
            if stat is None or tap.czxid not in (None, stat.czxid):
                self._end(tap)

    def _failed(self, parent: str, siblings: _Siblings, error: ZksideError) -> None:
        for tap in list(siblings.taps):
            if self._stop(tap):
                tap.on_failed(error)
