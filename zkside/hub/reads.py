"""Reads: from the cache, from the server, or through the leader, each as current as was asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass
from enum import Enum
from typing import Generic, NamedTuple, TypedDict, TypeVar

from zkside.errors import NoAuth, NoNode, Quota, TooLarge, TooStale, ZksideError
from zkside.hub.keeper import Keeper
from zkside.hub.reader import Reader
from zkside.hub.roots import Root, Roots
from zkside.hub.server_reads import ServerReads
from zkside.hub.settings import HubSettings
from zkside.hub.table import NodeTable
from zkside.model import record as records
from zkside.model.operation import Exists, GetData, ReadResult, Reply
from zkside.model.record import UNREADABLE, Record
from zkside.model.stat import STAT_SIZE_BYTES, Stat
from zkside.model.watch import Scope
from zkside.zk.session import Session

T = TypeVar("T")

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


class Reads:
    """Every method raises TooStale, SessionSuspended, SessionLost, NoAuth as fits, beside what it names; and
    Busy, when too many reads wait.

    `owner` has to share its room for answers of ZooKeeper with itself (hub/server_reads.py); `held` is closed by the
    caller once it no longer has the answer's value, and where none is given the value is taken to be short-lived.
    """

    def __init__(
        self,
        session: Session,
        table: NodeTable,
        roots: Roots,
        reader: Reader,
        keeper: Keeper,
        settings: HubSettings,
    ) -> None:
        self._session = session
        self._table = table
        self._roots = roots
        self._reader = reader
        self._keeper = keeper
        self.from_server = ServerReads(session, settings.max_reads_bytes, settings.max_answer_bytes)
        self._settings = settings
        self.cached = 0
        self.server = 0

    def configure(self, settings: HubSettings) -> None:
        """Apply these settings from now on."""
        self._settings = settings
        self.from_server.configure(settings.max_reads_bytes, settings.max_answer_bytes)

    def get_nowait(self, path: str, freshness: Freshness) -> Answer[Record] | None:
        """As `get`, if that needs no wait: None if it does."""
        if freshness.consistency is not Consistency.CACHED:
            return None
        answer = self._cached_node(path, freshness)
        return None if answer is None else _existing(path, answer)

    async def get(self, path: str, freshness: Freshness, owner: str = "") -> Answer[Record]:
        """Raises NoNode."""
        if freshness.consistency is Consistency.CACHED:
            answer = self._cached_node(path, freshness) or await self._cache_node(path, freshness, owner)
            if answer is not None:
                return _existing(path, answer)
        self.server += 1
        try:
            got = _current(await self.from_server.read(GetData(path), owner, **_currency(freshness)))
        except (NoAuth, NoNode) as error:
            self._learn(path, _refused(error))
            raise
        self._learn(path, got.value)
        return got

    async def exists(self, path: str, freshness: Freshness, owner: str = "") -> Answer[Stat | None]:
        """An absent node is an answer."""
        if freshness.consistency is Consistency.CACHED:
            answer = self._cached_node(path, freshness) or await self._cache_node(path, freshness, owner)
            if answer is not None:
                stat = None if answer.value is None else records.stat(answer.value)
                return Answer(stat, answer.zxid, answer.stale, answer.age_s)
        self.server += 1
        try:
            found = _current(await self.from_server.read(Exists(path), owner, **_currency(freshness)))
        except NoAuth as error:
            self._learn(path, _refused(error))
            raise
        self._learn_stat(path, found.value)
        return found

    async def get_many(
        self, wanted: Sequence[str], freshness: Freshness, owner: str = "", held: ExitStack | None = None
    ) -> Answer[list[ReadState]]:
        """One consistent cut (GUARANTEES R6). A path that is named again is not read again.

        Raises: TooLarge, if the nodes take more than one answer may have.
        """
        paths = wanted if len(set(wanted)) == len(wanted) else list(dict.fromkeys(wanted))
        if freshness.consistency is Consistency.CACHED:
            cached = self._cached_nodes(paths, freshness)
            if cached is None:
                await self._keep_all(paths, owner)
                cached = self._cached_nodes(paths, freshness)
            if cached is not None:
                self._check(cached.value)
                return cached if paths is wanted else cached._replace(value=_again(wanted, paths, cached))
        self.server += 1
        with _shares(held) as shares:
            answer = self._states(paths, await self.from_server.many(paths, owner, shares, **_currency(freshness)))
        return answer if paths is wanted else answer._replace(value=_again(wanted, paths, answer))

    async def get_some(
        self, paths: Sequence[str], freshness: Freshness, most_bytes: int, owner: str, held: ExitStack
    ) -> Answer[list[ReadState]]:
        """Read the first of many nodes, as many as take about `most_bytes`; one at least."""
        if freshness.consistency is Consistency.CACHED:
            cached = self._cached_nodes(paths, freshness)
            if cached is None:
                with suppress(TooLarge):
                    await self._keep_all(paths, owner)
                cached = self._cached_nodes(paths, freshness)
            if cached is not None:
                return cached
        self.server += 1
        if freshness.consistency is Consistency.LINEARIZABLE or freshness.min_zxid:
            await self.exists(paths[0], freshness, owner)  # what the same server is asked next is as current
        return self._states(paths, await self.from_server.some(paths, owner, held, most_bytes))

    async def children(
        self, path: str, freshness: Freshness, owner: str = "", held: ExitStack | None = None
    ) -> Answer[Listing]:
        """Raises NoNode."""
        if freshness.consistency is Consistency.CACHED:
            cached = self._cached_children(path, freshness)
            if cached is None and await self._keep(path, Scope.CHILDREN):
                cached = self._cached_children(path, freshness)
            if cached is not None:
                return cached
        self.server += 1
        with _shares(held) as shares:
            try:
                reply = await self.from_server.children(path, owner, shares, **_currency(freshness))
            except (NoAuth, NoNode) as error:
                self._learn(path, _refused(error))
                raise
            names, stat = reply.value
            self._learn_stat(path, stat)
            return Answer(Listing(stat, sorted(names)), reply.zxid, False, 0.0)

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
            raise NoAuth.at(path)
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
                    states[number] = NoAuth.at(path)
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
            raise NoNode.at(path)
        if record == UNREADABLE:
            answer = self._judge(root, None, freshness)
            if answer is None or not answer.stale:
                return None
            raise NoAuth.at(path)
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

    async def _cache_node(self, path: str, freshness: Freshness, owner: str) -> Answer[Record | None] | None:
        kept = await self._keep_one(path, owner)
        return self._cached_node(path, freshness) if kept else None

    async def _keep(self, path: str, scope: Scope) -> bool:
        """Have a path cached from now on, until it is idle; False if it cannot be."""
        kept = self._live_at(path) if scope is Scope.NODE else self._roots.live_below(path)
        if kept is not None or (self._roots.get(path, scope) is None and self._is_full()):
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

    def _is_full(self) -> bool:
        """Whether nothing more is to be cached for reads; ZooKeeper answers them instead."""
        settings = self._settings
        return len(self._roots) >= settings.max_roots or self._table.bytes >= settings.max_cached_bytes

    async def _keep_one(self, path: str, owner: str) -> bool:
        """Do as `_keep` does, for a node whose size is not known."""
        if self._live_at(path) is not None:
            return True
        with await self.from_server.room(owner):
            try:
                return await self._keep(path, Scope.NODE)
            except Quota:
                return False  # there is no room in the caches: ZooKeeper answers

    async def _keep_all(self, wanted: Sequence[str], owner: str) -> None:
        """Have paths cached from now on, as far as they can be. Raises: TooLarge, as soon as it is known."""
        for start in range(0, len(wanted), KEPT_AT_ONCE):
            self._check([self._table.records.get(path) for path in wanted[:start]])
            some = (self._keep_one(path, owner) for path in wanted[start : start + KEPT_AT_ONCE])
            for result in await asyncio.gather(*some, return_exceptions=True):
                # One that may not be read is the answer's own affair.
                if isinstance(result, BaseException) and not isinstance(result, NoAuth):
                    raise result

    # What an answer tells the cache

    def doubt(self, path: str) -> None:
        """Have what is cached of a path read again before it is served: something that no event tells, such as a new
        ACL, may have happened to it."""
        if self._roots.live_at(path) is not None:
            self._reader.doubt(path)

    def _learn(self, path: str, found: Record | None) -> None:
        """Doubt what is cached if the server's answer differs, as after a change of an ACL, which no event tells.

        An answer older than the table's state differs too; then the node is read once more than it had to be.
        """
        known = self._table.records.get(path)
        if (known and known[-STAT_SIZE_BYTES:]) != (found and found[-STAT_SIZE_BYTES:]):
            self.doubt(path)

    def _learn_stat(self, path: str, found: Stat | None) -> None:
        known = self._table.records.get(path)
        if known != UNREADABLE and (records.stat(known) if known else None) != found:
            self.doubt(path)

    def _states(self, paths: Sequence[str], reply: Reply[list[ReadResult]]) -> Answer[list[ReadState]]:
        """What was read of the paths, or of as many of them, from the first one on."""
        states: list[ReadState] = []
        for path, result in zip(paths, reply.value, strict=False):
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
        return Answer(states, reply.zxid, False, 0.0)

    def _check(self, states: Sequence[ReadState]) -> None:
        self.from_server.check(sum([len(each) for each in states if type(each) is bytes]))


def _shares(held: ExitStack | None) -> AbstractContextManager[ExitStack]:
    return ExitStack() if held is None else nullcontext(held)


class _Currency(TypedDict):
    is_led: bool
    zxid: int


def _currency(freshness: Freshness) -> _Currency:
    return {"is_led": freshness.consistency is Consistency.LINEARIZABLE, "zxid": freshness.min_zxid}


def _current(reply: Reply[T]) -> Answer[T]:
    return Answer(reply.value, reply.zxid, False, 0.0)


def _again(wanted: Sequence[str], paths: Sequence[str], answer: Answer[list[ReadState]]) -> list[ReadState]:
    """The states in the order in which they were asked for, however often each was."""
    by_path = dict(zip(paths, answer.value, strict=True))
    return [by_path[path] for path in wanted]


def _existing(path: str, answer: Answer[Record | None]) -> Answer[Record]:
    if answer.value is None:
        raise NoNode.at(path)
    return answer  # type: ignore[return-value]


def _refused(error: NoAuth | NoNode) -> Record | None:
    """The state that a refusal to read a node shows."""
    return UNREADABLE if isinstance(error, NoAuth) else None
