"""Loading roots, comparing them after an outage, and clearing them away: all in slices of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from zkside import log
from zkside.core.history import contradiction
from zkside.errors import NoAuth, Quota, ZksideError
from zkside.hub.asking import is_unreadable
from zkside.hub.reader import Announced, Reader
from zkside.hub.roots import Root, Roots
from zkside.hub.settings import HubSettings
from zkside.hub.table import NodeTable
from zkside.hub.walk import Walk
from zkside.model import record as records
from zkside.model.operation import ReadResult
from zkside.model.record import UNREADABLE, Record
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
        self.unlisted: dict[str, ZksideError] = {}
        """Known nodes whose lists of children the last comparison could not read: what lies below them is stale."""

    async def load(self, root: Root) -> int:
        """Read a root whose watch is set; returns the zxid that has been reached.

        What is read goes into the table at once (no answer comes from it before the root is live). A path that
        an event announces meanwhile is the reader's: what the walk has read of it may be older.

        Raises: NoAuth (the root's own node may not be read), Quota, what a lost connection raises, and whatever else
        the root's own node or a list of children cannot be read for. A node below it that cannot be read makes the
        root stale, not impossible.
        """
        if self._is_kept_by_others(root):
            return self._session.last_zxid
        refusal: list[ZksideError] = []
        # What a former root of these paths has left, of nodes that may have gone since.
        left: set[str] = set()
        for path, _ in self._table.walk(root.path, root.scope.value):
            left.add(path)
            if len(left) % PURGE_SLICE == 0:
                await asyncio.sleep(0)

        def visit(path: str, result: ReadResult) -> None:
            if left:
                left.discard(path)
            if path in root.announced:
                return
            if self._roots.live_at(path) is not None and not self._table.is_hidden(path):
                return
            found = _state(result)
            if found is not None and not (path == root.path and found == UNREADABLE):
                self._table.put(path, found)
                if not root.is_vital:
                    self._check_room(root)
            elif path == root.path:
                self._table.put(path, None)
                if isinstance(result, NoAuth) or is_unreadable(result):
                    refusal.append(result)
            elif is_unreadable(result):
                self._reader.fail(path, Announced(since, since), result)

        def unlisted(path: str, error: ZksideError) -> None:
            refusal.append(error)

        since = self._session.last_zxid + 1
        walk = Walk(self._session, known=_nothing, visit=visit, unlisted=unlisted)
        await walk.run([(root.path, root.scope.value)])
        if refusal:
            raise refusal[0]
        for path in left:
            if path not in root.announced and self._roots.live_at(path) is None:
                self._table.forget(path)  # nobody would read it again
        return walk.zxid

    def _check_room(self, root: Root) -> None:
        """Refuse a root that does not fit. Raises: Quota, if the caches have more than they may have."""
        most = self.settings.max_cached_nodes
        if len(self._table.records) > most:
            raise Quota(
                f"the caches hold at most {most} nodes (hub.max_cached_nodes); {root.path} does not fit",
                limit="max_cached_nodes",
            )
        most = self.settings.max_cached_bytes
        if self._table.bytes > most:
            raise Quota(
                f"the caches hold at most {most} bytes (hub.max_cached_size); {root.path} does not fit",
                limit="max_cached_size",
            )

    async def compare(self, since: int, *, is_same_history: bool = True) -> None:
        """Read all live roots again, and hand what differs to the reader, as changed since that zxid.

        Compares czxid, mzxid and pzxid, so a node that was deleted and created again is seen as such
        (GUARANTEES W7). A node that is older than it was ends the session, with its history (V2).
        Raises: what a lost connection raises.
        """
        records_by_path = self._table.records
        compared = self._reader.compared
        self.unlisted.clear()

        def visit(path: str, result: ReadResult) -> None:
            if is_unreadable(result):
                self._reader.fail(path, Announced(since, since), result)
                return
            self._reader.read_elsewhere(path)
            new = _state(result)
            old = records_by_path.get(path)
            if not old or not new:
                if old != new:
                    compared(path, new, since)
            elif not is_same_history:
                compared(path, new, since)  # also if they are equal: their children may be others
            elif old != new and not records.are_same(old, new):
                compared(path, new, since)
                if is_same_history and (reason := contradiction(path, old, new)):
                    self._session.doubt_history(reason)

        # In another history the same pzxid says nothing about a list of children.
        known = self._readable if is_same_history else _nothing

        def unlisted(path: str, error: ZksideError) -> None:
            self.unlisted[path] = error
            log.cache_read_failed(path=path, reason=str(error))

        walk = Walk(self._session, known=known, visit=visit, unlisted=unlisted)
        await walk.run(self.known())

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

    def known(self) -> Iterator[tuple[str, int]]:
        """Every known path of the live roots, and how many levels below it are kept; some more than once."""
        out_of_sight = [root for root in self._roots if root.live and self._table.is_out_of_sight(root.path)]
        for root in (*self._roots.maximal(), *out_of_sight):
            levels = root.scope.value
            yield root.path, levels
            for path, _ in self._table.walk(root.path, levels):
                if path != root.path:
                    yield path, levels - 1 if root.scope is Scope.SUBTREE else 0

    def _readable(self, path: str) -> Record | None:
        """What is known of a path by its record, if its children are known too."""
        return None if path in self._table.unlisted else self._table.records.get(path) or None

    def _is_kept_by_others(self, root: Root) -> bool:
        if self._table.is_hidden(root.path):
            return False
        for other in self._roots.covering(root.path):
            if other is not root and other.live and (other.scope is Scope.SUBTREE or root.scope is Scope.NODE):
                return True
        return False


def _nothing(path: str) -> Record | None:
    """What is known of a path where nothing is to be relied on."""
    return None


def _state(result: ReadResult) -> Record | None:
    """What the table keeps of what was read."""
    if isinstance(result, NoAuth):
        return UNREADABLE
    return result if isinstance(result, bytes) else None
