"""Loading roots, comparing them after an outage, and clearing them away: all in slices of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from zkside.errors import NoAuth, Quota, ZksideError
from zkside.hub.reader import Reader
from zkside.hub.roots import Root, Roots
from zkside.hub.settings import HubSettings
from zkside.hub.table import NodeTable
from zkside.hub.walk import Walk
from zkside.model import record as records
from zkside.model.operation import ReadResult
from zkside.model.watch import Scope
from zkside.zk.session import Session

PURGE_SLICE = 2000


class Loader:
    """Fills the node table and keeps it true over outages."""

    def __init__(self, session: Session, table: NodeTable, roots: Roots, reader: Reader, settings: HubSettings) -> None:
        self._session = session
        self._table = table
        self._roots = roots
        self._reader = reader
        self.settings = settings

    async def load(self, root: Root) -> int:
        """Read a root whose watch is set; returns the zxid that has been reached.

        What is read goes into the table at once (no answer comes from it before the root is live). A path that
        an event announces meanwhile is the reader's: what the walk has read of it may be older.

        Raises: NoAuth (the root's own node may not be read), Quota, and what a lost connection raises.
        """
        if self._is_kept_by_others(root):
            return self._session.last_zxid
        refusal: list[ZksideError] = []

        def visit(path: str, result: ReadResult) -> None:
            if path in root.announced:
                return
            kept = self._roots.live_at(path)
            if kept is not None:
                return
            if isinstance(result, bytes):
                self._table.put(path, result)
                if len(self._table.records) > self.settings.max_cached_nodes:
                    most = self.settings.max_cached_nodes
                    raise Quota(f"the cache holds at most {most} nodes; {root.path} does not fit")
                if self._table.bytes > self.settings.max_cached_bytes:
                    most = self.settings.max_cached_bytes
                    raise Quota(
                        f"the caches hold at most {most} bytes (hub.max_cached_size); {root.path} does not fit",
                        limit="max_cached_size",
                    )
            elif path == root.path:
                self._table.put(path, None)
                if isinstance(result, NoAuth):
                    refusal.append(result)

        walk = Walk(self._session, known=lambda path: None, visit=visit)
        await walk.run([(root.path, root.scope.value)])
        if refusal:
            raise refusal[0]
        return walk.zxid

    async def compare(self, since: int) -> None:
        """Read all live roots again, and hand what differs to the reader, as changed since that zxid.

        Compares czxid, mzxid and pzxid, so a node that was deleted and created again is seen as such
        (GUARANTEES W7). Raises: what a lost connection raises.
        """
        records_by_path = self._table.records
        compared = self._reader.compared

        def visit(path: str, result: ReadResult) -> None:
            new = result if isinstance(result, bytes) else None
            old = records_by_path.get(path)
            if old is None or new is None:
                if old is not new:
                    compared(path, new, since)
            elif old != new and records.zxids(old) != records.zxids(new):
                compared(path, new, since)

        await Walk(self._session, known=records_by_path.get, visit=visit).run(self._known())

    async def purge(self, path: str, scope: Scope, but: Root | None = None) -> None:
        """Forget what was kept for a root that is gone (or has to load again), unless another root covers it."""
        doomed: list[str] = [path]
        for count, (below, _) in enumerate(self._table.walk(path, scope.value)):
            doomed.append(below)
            if count % PURGE_SLICE == 0:
                await asyncio.sleep(0)
        for count, below in enumerate(doomed):
            if all(root is but for root in self._roots.covering(below)):
                self._table.forget(below)
                self._reader.forget(below)
            if count % PURGE_SLICE == 0:
                await asyncio.sleep(0)

    def _known(self) -> Iterator[tuple[str, int]]:
        """Every known path of the live roots, and how many levels below it are kept."""
        for root in self._roots.maximal():
            levels = root.scope.value
            yield root.path, levels
            for path, _ in self._table.walk(root.path, levels):
                if path != root.path:
                    yield path, levels - 1 if root.scope is Scope.SUBTREE else 0

    def _is_kept_by_others(self, root: Root) -> bool:
        for other in self._roots.covering(root.path):
            if other is not root and other.live and (other.scope is Scope.SUBTREE or root.scope is Scope.NODE):
                return True
        return False
