"""Looking again at all that is cached, slowly and for ever: what no event tells.

A change of an ACL gives no event, and newer servers (3.8.4, 3.9.2) tell a session nothing of a node that it may not
read. So a right that was taken away, one that was given back, and what was changed in between are seen by looking
only (GUARANTEES V3). One round goes through the whole cache in `interval_s`, or at NODES_PER_S if that takes longer;
what differs is the reader's to read again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import islice

from zkside import log
from zkside.errors import NoAuth, NoNode, ZksideError
from zkside.hub.asking import PASSING
from zkside.hub.loader import Loader
from zkside.hub.reader import Reader
from zkside.hub.roots import Roots
from zkside.hub.table import NodeTable
from zkside.hub.walk import Walk
from zkside.model import record as records
from zkside.model.operation import Exists, ReadResult
from zkside.model.record import UNREADABLE, Record
from zkside.model.stat import STAT_SIZE_BYTES, Stat
from zkside.zk.session import Session

NODES_PER_S = 2000
SLICE = 128
"""Nodes looked at in one go: four small batches of multiRead."""
LARGE_BYTES = 4096
"""A node with more data is asked for its Stat alone, which costs a request of its own and no data."""
RETRY_S = 1.0
MOST_ATTEMPTS = 3


class Revalidation:
    """The task of the hub that looks again."""

    def __init__(
        self,
        session: Session,
        table: NodeTable,
        roots: Roots,
        reader: Reader,
        loader: Loader,
        interval_s: float,
        on_listed: Callable[[], None],
    ) -> None:
        """`on_listed` is called when the children of nodes that may be read again are known."""
        self._session = session
        self._table = table
        self._roots = roots
        self._reader = reader
        self._loader = loader
        self._on_listed = on_listed
        self._failed: set[str] = set()
        """Nodes whose children could not be listed in the present look."""
        self._interval_s = interval_s
        self._configured = asyncio.Event()
        self._whole_since = time.monotonic()
        self.rounds = 0
        """Whole looks at all there was, counted."""
        self.found = 0
        """Nodes that differed from what was cached, counted."""
        self.errors = 0
        """Parts that could not be read, counted."""

    @property
    def age_s(self) -> float:
        """How long ago the last whole round began: nothing that is older has been overlooked. 0 without a cache."""
        return time.monotonic() - self._whole_since if self._table.records else 0.0

    def configure(self, interval_s: float) -> None:
        """Apply this interval from now on."""
        self._interval_s = interval_s
        self._configured.set()

    def list_soon(self) -> None:
        """Have the children of nodes that may be read again listed now, and not in the next round."""
        self._configured.set()

    async def run(self) -> None:
        """Look for ever."""
        while True:
            began, is_whole, is_empty = time.monotonic(), True, True
            nodes = self._loader.known()
            while some := list(islice(nodes, SLICE)):
                is_empty = False
                # First the pause: what has just been loaded need not be looked at yet.
                await self._pause(len(some))
                is_whole &= await self._look(some)
            if is_empty:  # nothing is cached, or all that is there is being loaded
                await self._pause(0)
            if is_whole:
                self._whole_since = began
                self.rounds += 1

    async def _pause(self, nodes: int) -> None:
        """Wait for the part of the interval that these nodes are of all."""
        started = time.monotonic()
        share = min(nodes / max(len(self._table.records), 1), 1.0) if nodes else 1.0
        while True:
            self._configured.clear()
            await self._list_again()
            left_s = started + max(self._interval_s * share, nodes / NODES_PER_S) - time.monotonic()
            if left_s <= 0:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._configured.wait()

    async def _list_again(self) -> None:
        """List the children of nodes that may be read again, so that those which came meanwhile are read."""
        unlisted = self._table.unlisted
        while wanted := list(islice(unlisted, SLICE)):
            if not await self._look([(path, self._levels(path)) for path in wanted]):
                return
            unlisted.difference_update(set(wanted) - self._failed)
            self._on_listed()
            if self._failed:
                return

    def _levels(self, path: str) -> int:
        """How many levels below a path are kept."""
        return max((root.scope.value for root in self._roots.covering_children(path)), default=0)

    async def _look(self, some: list[tuple[str, int]]) -> bool:
        """Compare some nodes with the server; False if that failed and is left to the next round."""
        for attempt in range(MOST_ATTEMPTS):
            try:
                await self._session.wait_connected(read_only=True)
                await self._compare(some)
                return True
            except ZksideError as error:
                # If the connection was lost all is compared anyway, when there is one again.
                self.errors += 1
                if not isinstance(error, PASSING):
                    log.cache_revalidation_failed(error=error)
                await asyncio.sleep(RETRY_S * (attempt + 1))
        return False

    async def _compare(self, some: list[tuple[str, int]]) -> None:
        self._failed.clear()
        large = [(path, levels) for path, levels in some if len(self._known(path) or b"") > _LARGEST_RECORD]
        differing = await self._differing(large)
        small = [(path, levels) for path, levels in some if len(self._known(path) or b"") <= _LARGEST_RECORD]
        walk = Walk(self._session, known=self._known, visit=self._visit, unlisted=self._unlisted)
        await walk.run((*small, *differing))

    def _known(self, path: str) -> Record | None:
        """What is known of a path by its record, if its children are known too."""
        return None if path in self._table.unlisted else self._table.records.get(path) or None

    async def _differing(self, large: list[tuple[str, int]]) -> list[tuple[str, int]]:
        """Returns the nodes whose Stats on the server are other than the cached ones."""
        known = self._table.records
        calls = [self._session.call(Exists(path)) for path, _ in large]
        differing = []
        for (path, levels), reply in zip(large, await asyncio.gather(*calls, return_exceptions=True), strict=True):
            if isinstance(reply, BaseException) and not isinstance(reply, NoAuth):
                raise reply
            found: Stat | None = None if isinstance(reply, BaseException) else reply.value
            record = known.get(path)
            if not record or records.stat(record) != found:
                differing.append((path, levels))
        return differing

    def _unlisted(self, path: str, error: ZksideError) -> None:
        self.errors += 1
        self._failed.add(path)
        log.cache_revalidation_failed(error=error)

    def _visit(self, path: str, result: ReadResult) -> None:
        if isinstance(result, bytes):
            new: Record | None = result
        elif isinstance(result, NoAuth | NoNode):
            new = UNREADABLE if isinstance(result, NoAuth) else None
        else:
            return  # says nothing of the node
        old = self._table.records.get(path)
        if (old and old[-STAT_SIZE_BYTES:]) == (new and new[-STAT_SIZE_BYTES:]) or path in self._reader.unsettled:
            return
        if self._roots.live_at(path) is not None:
            self.found += 1
            self._reader.doubt(path)


_LARGEST_RECORD = LARGE_BYTES + STAT_SIZE_BYTES
