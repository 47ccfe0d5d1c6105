"""Reads: from the cache, from the server, or through the leader, each as current as was asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Generic, NamedTuple, TypeVar

from zkside.errors import HistoryChanged, NoAuth, NoNode, TooStale, ZksideError
from zkside.hub.keeper import Keeper
from zkside.hub.reader import Reader
from zkside.hub.roots import Root, Roots
from zkside.hub.table import NodeTable
from zkside.model import record as records
from zkside.model.operation import Exists, GetChildren, GetData, Operation, ReadMany, Reply, Sync
from zkside.model.record import UNREADABLE, Record
from zkside.model.stat import STAT_SIZE_BYTES, Stat
from zkside.model.watch import Scope
from zkside.zk.session import Session

T = TypeVar("T")

# A server that is behind min_zxid although it has answered a sync is asked again after this long.
BEHIND_RETRY_S = 0.05
KEPT_AT_ONCE = 250


class Consistency(Enum):
    """See node.proto, which documents what each promises and costs."""

    CACHED = "cached"
    SERVER = "server"
    LINEARIZABLE = "linearizable"


@dataclass(frozen=True, slots=True)
class Freshness:
    """How current a read has to be."""

    consistency: Consistency = Consistency.SERVER
    min_zxid: int = 0
    max_stale_s: float | None = None


class Answer(NamedTuple, Generic[T]):
    """What was read, and how current it is: all up to `zxid` that touches it is in it."""

    value: T
    zxid: int
    stale: bool
    age_s: float
    root: Root | None = None
    """What keeps it cached; None if it was not read from the cache."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The children of a node; `names` is sorted."""

    stat: Stat
    names: list[str]


ReadState = Record | None | ZksideError
"""Of GetMany: the node, None if it is absent, NoAuth if it may not be read."""
MAY_NOT_BE_READ = "its access control list does not allow it"


class Reads:
    """Every method raises TooStale, SessionSuspended, SessionLost, NoAuth as fits, beside what it names."""

    def __init__(
        self, session: Session, table: NodeTable, roots: Roots, reader: Reader, keeper: Keeper, max_roots: int
    ) -> None:
        self._session = session
        self._table = table
        self._roots = roots
        self._reader = reader
        self._keeper = keeper
        self.max_roots = max_roots
        self.cached = 0
        self.server = 0

    def get_nowait(self, path: str, freshness: Freshness) -> Answer[Record] | None:
        """As `get`, if that needs no wait: None if it does."""
        if freshness.consistency is not Consistency.CACHED:
            return None
        answer = self._cached_node(path, freshness)
        return None if answer is None else _existing(path, answer)

    async def get(self, path: str, freshness: Freshness) -> Answer[Record]:
        """Raises NoNode."""
        if freshness.consistency is Consistency.CACHED:
            answer = self._cached_node(path, freshness) or await self._cache_node(path, freshness)
            if answer is not None:
                return _existing(path, answer)
        try:
            got = await self._from_server(GetData(path), freshness)
        except (NoAuth, NoNode) as error:
            self._learn(path, _refused(error))
            raise
        self._learn(path, got.value)
        return got

    async def exists(self, path: str, freshness: Freshness) -> Answer[Stat | None]:
        """An absent node is an answer."""
        if freshness.consistency is Consistency.CACHED:
            answer = self._cached_node(path, freshness) or await self._cache_node(path, freshness)
            if answer is not None:
                stat = None if answer.value is None else records.stat(answer.value)
                return Answer(stat, answer.zxid, answer.stale, answer.age_s)
        try:
            found = await self._from_server(Exists(path), freshness)
        except NoAuth as error:
            self._learn(path, _refused(error))
            raise
        self._learn_stat(path, found.value)
        return found

    async def get_many(self, wanted: Sequence[str], freshness: Freshness) -> Answer[list[ReadState]]:
        """One consistent cut (GUARANTEES R6)."""
        if freshness.consistency is Consistency.CACHED:
            cached = self._cached_nodes(wanted, freshness)
            if cached is None:
                await self._keep_all(wanted)
                cached = self._cached_nodes(wanted, freshness)
            if cached is not None:
                return cached
        answer = await self._from_server(ReadMany(tuple(map(GetData, wanted))), freshness)
        states: list[ReadState] = []
        for path, result in zip(wanted, answer.value, strict=True):
            if isinstance(result, bytes):
                self._learn(path, result)
            elif isinstance(result, NoAuth | NoNode):
                self._learn(path, _refused(result))
            if isinstance(result, NoNode):
                states.append(None)
            elif isinstance(result, bytes | NoAuth):
                states.append(result)
            elif isinstance(result, ZksideError):
                raise result
        return Answer(states, answer.zxid, answer.stale, answer.age_s)

    async def children(self, path: str, freshness: Freshness) -> Answer[Listing]:
        """Raises NoNode."""
        if freshness.consistency is Consistency.CACHED:
            cached = self._cached_children(path, freshness)
            if cached is None and await self._keep(path, Scope.CHILDREN):
                cached = self._cached_children(path, freshness)
            if cached is not None:
                return cached
        try:
            answer = await self._from_server(GetChildren(path), freshness)
        except (NoAuth, NoNode) as error:
            self._learn(path, _refused(error))
            raise
        names, stat = answer.value
        self._learn_stat(path, stat)
        return Answer(Listing(stat, sorted(names)), answer.zxid, answer.stale, answer.age_s)

    # From the cache

    def _cached_node(self, path: str, freshness: Freshness) -> Answer[Record | None] | None:
        """None if the cache cannot answer: not kept, announced but not read yet, or behind min_zxid.

        Nor does it tell of a node that may not be read while the server can be asked: nothing tells the cache when
        that ends.
        """
        root = self._live_at(path)
        if root is None or path in self._reader.unsettled:
            return None
        record = self._table.records.get(path)
        found = self._judge(root, record, freshness)
        if record == UNREADABLE and found is not None:
            if not found.stale:
                return None
            raise NoAuth(f"{path}: {MAY_NOT_BE_READ}", path=path)
        if found is not None:
            self.cached += 1
        return found

    def _cached_nodes(self, wanted: Sequence[str], freshness: Freshness) -> Answer[list[ReadState]] | None:
        """The table is one cut, and none of these paths has been announced since: so are these."""
        stalest: Root | None = None
        for path in wanted:
            root = self._live_at(path)
            if root is None or path in self._reader.unsettled:
                return None
            if stalest is None or (root.stale_since is not None and stalest.stale_since is None):
                stalest = root
        if stalest is None:
            return None
        states: list[ReadState] = [self._table.records.get(path) for path in wanted]
        self.cached += 1
        answer = self._judge(stalest, states, freshness)
        if answer is not None and UNREADABLE in states:
            for number, path in enumerate(wanted):
                if states[number] == UNREADABLE:
                    states[number] = NoAuth(f"{path}: {MAY_NOT_BE_READ}", path=path)
                    if not answer.stale:
                        self.doubt(path)  # so that who asks again hears of it when it may be read
        return answer

    def _cached_children(self, path: str, freshness: Freshness) -> Answer[Listing] | None:
        root = self._roots.live_below(path)
        if root is None or path in self._reader.unsettled or self._table.is_hidden(path):
            return None  # a child that came or went has announced its parent too
        record = self._table.records.get(path)
        if record is None:
            if self._judge(root, None, freshness) is None:
                return None
            raise NoNode(f"{path} does not exist")
        if record == UNREADABLE:
            answer = self._judge(root, None, freshness)
            if answer is None or not answer.stale:
                return None
            raise NoAuth(f"{path}: {MAY_NOT_BE_READ}", path=path)
        self.cached += 1
        return self._judge(root, Listing(records.stat(record), self._table.children(path).copy()), freshness)

    def _judge(self, root: Root, value: T, freshness: Freshness) -> Answer[T] | None:
        """An answer of a root, if it is current enough; None if the server may do better."""
        root.last_used = now = time.monotonic()
        if root.stale_since is None:
            zxid = self._session.last_zxid  # no event up to there has touched what is asked
            return Answer(value, zxid, False, 0.0, root) if zxid >= freshness.min_zxid else None
        age_s = now - root.stale_since
        if self._session.status.state.is_connected:
            return None
        if freshness.max_stale_s is not None and age_s > freshness.max_stale_s:
            raise TooStale(f"the cache is {age_s:.1f} s old, and there is no connection to ZooKeeper")
        zxid = self._reader.settled_zxid
        if zxid < freshness.min_zxid:
            raise TooStale(f"the cache has seen {zxid:#x}, and there is no connection to ZooKeeper")
        return Answer(value, zxid, True, age_s, root)

    async def _cache_node(self, path: str, freshness: Freshness) -> Answer[Record | None] | None:
        kept = await self._keep(path, Scope.NODE)
        return self._cached_node(path, freshness) if kept else None

    async def _keep(self, path: str, scope: Scope) -> bool:
        """Have a path cached from now on, until it is idle; False if it cannot be."""
        kept = self._live_at(path) if scope is Scope.NODE else self._roots.live_below(path)
        if kept is not None or (self._roots.get(path, scope) is None and len(self._roots) >= self.max_roots):
            return kept is not None
        root = self._keeper.acquire(path, scope)
        try:
            await self._keeper.ready(root)
        finally:
            self._keeper.release(root)
        return True

    def _live_at(self, path: str) -> Root | None:
        """The nearest live root that knows a path: one that covers it from above does not, below a node whose
        children may not be listed."""
        root = self._roots.live_at(path)
        if root is not None and root.path != path and self._table.is_hidden(path):
            return None
        return root

    # What an answer tells the cache

    def doubt(self, path: str) -> None:
        """Something that no event tells may have happened to a path, such as a new ACL: what is cached of it is
        read again before it is served."""
        if self._roots.live_at(path) is not None:
            self._reader.doubt(path)

    def _learn(self, path: str, found: Record | None) -> None:
        """The server's answer shows what no event tells: another ACL, and what was changed under it.

        An answer older than the table's state differs too; then the node is read once more than it had to be.
        """
        known = self._table.records.get(path)
        if (known and known[-STAT_SIZE_BYTES:]) != (found and found[-STAT_SIZE_BYTES:]):
            self.doubt(path)

    def _learn_stat(self, path: str, found: Stat | None) -> None:
        known = self._table.records.get(path)
        if known != UNREADABLE and (records.stat(known) if known else None) != found:
            self.doubt(path)

    async def _keep_all(self, wanted: Sequence[str]) -> None:
        """Have paths cached from now on, as far as they can be."""
        for start in range(0, len(wanted), KEPT_AT_ONCE):
            some = (self._keep(path, Scope.NODE) for path in wanted[start : start + KEPT_AT_ONCE])
            for result in await asyncio.gather(*some, return_exceptions=True):
                # One that may not be read is the answer's own affair.
                if isinstance(result, BaseException) and not isinstance(result, NoAuth):
                    raise result

    # From the server

    async def _from_server(self, operation: Operation[T], freshness: Freshness) -> Answer[T]:
        session = self._session
        self.server += 1
        if freshness.consistency is Consistency.LINEARIZABLE:
            synced = session.call(Sync())  # pipelined: the server answers in order
            reply = await self._after(synced, session.call(operation))
        else:
            reply = await session.call(operation)
        while reply.zxid < freshness.min_zxid:
            synced = session.call(Sync())
            reply = await self._after(synced, session.call(operation))
            if reply.zxid < freshness.min_zxid <= session.history.former_zxid:
                raise HistoryChanged(
                    f"min_zxid {freshness.min_zxid:#x} is of a history of ZooKeeper that is over: its leader is at "
                    f"{reply.zxid:#x}. Forget the zxids of before, and read without min_zxid",
                    min_zxid=f"{freshness.min_zxid:#x}",
                    zxid=f"{reply.zxid:#x}",
                )
            if reply.zxid < freshness.min_zxid:
                await asyncio.sleep(BEHIND_RETRY_S)  # the transaction is not committed yet: nothing tells when
        return Answer(reply.value, reply.zxid, False, 0.0)

    @staticmethod
    async def _after(synced: asyncio.Future[Reply[None]], reading: asyncio.Future[Reply[T]]) -> Reply[T]:
        try:
            await synced
        except BaseException:
            reading.cancel()
            raise
        return await reading


def _existing(path: str, answer: Answer[Record | None]) -> Answer[Record]:
    if answer.value is None:
        raise NoNode(f"{path} does not exist")
    return answer  # type: ignore[return-value]


def _refused(error: NoAuth | NoNode) -> Record | None:
    """The state that a refusal to read a node shows."""
    return UNREADABLE if isinstance(error, NoAuth) else None
