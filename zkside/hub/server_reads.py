"""Reads of clients that ZooKeeper answers: only so many bytes of answers are expected at a time.

Answers come one behind the other on the one connection, and a server makes each as a whole: what clients have asked for
is ahead of every proof that this session lives. So a read takes room first (zk/in_flight.py), before its size is known:
a node counts as the largest of late, a list as all that one owner may have until it was read once, and of many nodes
the first few are read to learn how large they are. Where the way is slow there is less room: as much as comes in time
(core/window.py). What has come has room of its own until it has become an answer: that is memory, and hinders no read.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

from zkside.core.window import SLOW_S, Window
from zkside.errors import HistoryChanged, TooLarge
from zkside.model import record as records
from zkside.model.operation import Exists, GetAcl, GetChildren, GetData, Operation, ReadMany, ReadResult, Reply, Sync
from zkside.zk.in_flight import InFlight, InFlightStatistics, Share
from zkside.zk.session import Session

T = TypeVar("T")

# A server that is behind min_zxid although it has answered a sync is asked again after this long.
BEHIND_RETRY_S = 0.05
NODE_BYTES = 256 * 1024
"""Room for a node of unknown size, at least. It may have four times as much, so that is by how much the room may be
passed in a moment; with room for the largest there would be few small reads at a time."""
LARGEST_NODE_BYTES = 4 * NODE_BYTES
FIRST_BYTES = 16 * NODE_BYTES
LARGEST_BATCH = 64
"""Nodes in one read of which it is not known how large they are."""
BATCH_BYTES = 2 << 20
"""About as much is in one answer of many: who asks next for something small waits for it."""
NAME_BYTES = 100
"""What a child's name takes in memory, beside its characters."""
KNOWN = 1000
"""Lists, and owners."""


class ServerReads:
    """Reads in turn by owner (core/budget.py). The caller closes `held` when it no longer has the answer's parts."""

    def __init__(self, session: Session, max_reads_bytes: int, max_answer_bytes: int) -> None:
        self._session = session
        self.in_flight = InFlight("max_reads_size", max_reads_bytes)
        """Expected from ZooKeeper."""
        self.held = InFlight("max_reads_size", max_reads_bytes)
        """Come, or to come, for answers that are not made yet."""
        self.window = Window(max_reads_bytes)
        self.max_answer_bytes = max_answer_bytes
        self._listings: OrderedDict[str, int] = OrderedDict()
        """What the children of a path took when they were read last."""
        self._largest: OrderedDict[str, int] = OrderedDict()
        """The largest node of late, by owner."""

    def check(self, size_bytes: int) -> None:
        """Refuse an answer that is larger than any client gets. Raises: TooLarge."""
        if size_bytes > self.max_answer_bytes:
            raise TooLarge(
                f"the answer has {size_bytes} bytes or more, the limit is {self.max_answer_bytes} "
                "(quotas.max_answer_size): ask for fewer nodes at a time",
                limit=str(self.max_answer_bytes),
            )

    def configure(self, max_reads_bytes: int, max_answer_bytes: int) -> None:
        """Apply these limits from now on."""
        self.window.configure(max_reads_bytes)
        self.in_flight.configure(self.window.size_bytes)
        self.held.configure(max_reads_bytes)
        self.max_answer_bytes = max_answer_bytes

    async def room(self, owner: str, nodes: int = 1) -> Share:
        """Take room for nodes of unknown size. Raises: as InFlight.room."""
        return await self.in_flight.room(owner, nodes * (NODE_BYTES if nodes == 1 else self._node_bytes(owner)))

    async def read(
        self, operation: GetData | Exists | GetAcl, owner: str, *, is_led: bool = False, zxid: int = 0
    ) -> Reply[Any]:
        """Read one node, at `zxid` or later. `is_led`: as current as its leader is."""
        if isinstance(operation, Exists):
            return await self._ask(operation, is_led, zxid)
        share = self.in_flight.take(owner, NODE_BYTES) or await self.room(owner)
        try:
            began_s = time.monotonic()
            reply: Reply[Any] = await self._asked(operation, is_led, zxid)
            self._came(began_s, reply)
            return reply
        finally:
            share.close()

    async def children(
        self, path: str, owner: str, held: ExitStack, *, is_led: bool = False, zxid: int = 0
    ) -> Reply[Any]:
        known, in_flight = self._listings, self.in_flight
        size_bytes = known.get(path)
        share = held.enter_context(await self.held.room(owner, size_bytes or self.held.limit_bytes // 2))
        size_bytes = size_bytes or in_flight.limit_bytes // 2
        with in_flight.take(owner, size_bytes) or await in_flight.room(owner, size_bytes):
            reply = await self._ask(GetChildren(path), is_led, zxid)
        size_bytes = sum(map(len, reply.value[0])) + NAME_BYTES * (len(reply.value[0]) + 1)
        share.resize(size_bytes)
        _remember(known, path, size_bytes)
        return reply

    async def many(
        self, paths: Sequence[str], owner: str, held: ExitStack, *, is_led: bool = False, zxid: int = 0
    ) -> Reply[list[ReadResult]]:
        """Read many different nodes as one consistent cut. Raises: TooLarge, for more than one answer may have.

        They are read in batches. That is the cut of the first batch if nothing of the later ones has changed since,
        which their Stats tell; else all are read once more, at once, now that it is known how large they are.
        """
        share = held.enter_context(await self._keeping(owner, len(paths), self.held.limit_bytes // 2))
        if len(paths) * self._largest.get(owner, 0) > self.max_answer_bytes:
            await self._weigh(paths)
        batch = FIRST_BYTES // self._node_bytes(owner)
        if len(paths) <= batch:
            with await self.room(owner, len(paths)):
                reply = await self._ask(_of(paths), is_led, zxid)
            share.resize(self._size(reply.value, owner))
            return reply
        results: list[ReadResult] = []
        cut_zxid, is_cut = 0, True
        while len(results) < len(paths):
            some = paths[len(results) : len(results) + batch]
            with await self.room(owner, len(some)):
                reply = await self._ask(_of(some), is_led and not results, zxid)
            results += reply.value
            cut_zxid = cut_zxid or reply.zxid
            is_cut = is_cut and (reply.zxid == cut_zxid or _is_as_of(cut_zxid, reply.value))
            size_bytes = self._size(results, owner)
            batch = self._next_batch(size_bytes, len(results), self.max_answer_bytes)
        if not is_cut:
            results.clear()
            with await self.in_flight.room(owner, size_bytes):
                cut_zxid, results = await self._ask(_of(paths), False, reply.zxid)
            size_bytes = self._size(results, owner)
        share.resize(size_bytes)
        return Reply(cut_zxid, results)

    async def _weigh(self, paths: Sequence[str]) -> None:
        """Ask how large these nodes are, by their Stats: to read what nobody gets would keep others waiting.

        Raises: TooLarge.
        """
        call, size_bytes = self._session.call, 0
        for start in range(0, len(paths), LARGEST_BATCH):
            asked = [call(Exists(path), yields=True) for path in paths[start : start + LARGEST_BATCH]]
            for answer in await asyncio.gather(*asked, return_exceptions=True):
                if isinstance(answer, Reply) and answer.value is not None:
                    size_bytes += answer.value.data_length
            self.check(size_bytes)

    async def some(self, paths: Sequence[str], owner: str, held: ExitStack, size_bytes: int) -> Reply[list[ReadResult]]:
        """Read as many of the nodes, from the first one on, as take about so many bytes; one at least. No cut."""
        share = held.enter_context(await self._keeping(owner, len(paths), size_bytes))
        batch = FIRST_BYTES // self._node_bytes(owner)
        results: list[ReadResult] = []
        zxids: set[int] = set()
        while len(results) < len(paths):
            some = paths[len(results) : len(results) + batch]
            with await self.room(owner, len(some)):
                reply = await self._ask(_of(some), False, 0)
            results += reply.value
            zxids.add(reply.zxid)
            read_bytes = self._size(results, owner)
            if read_bytes >= size_bytes:
                break
            batch = self._next_batch(read_bytes, len(results), size_bytes)
        share.resize(read_bytes)
        return Reply(min(zxids), results)

    async def _keeping(self, owner: str, nodes: int, most_bytes: int) -> Share:
        return await self.held.room(owner, min(nodes * self._node_bytes(owner), most_bytes))

    def statistics(self) -> dict[str, InFlightStatistics]:
        return {"reads": self.in_flight.statistics(), "held": self.held.statistics()}

    def _node_bytes(self, owner: str) -> int:
        """Room for one of many nodes."""
        return self._largest.get(owner, LARGEST_NODE_BYTES)

    def _next_batch(self, read_bytes: int, count: int, most_bytes: int) -> int:
        """As many as fill the rest if they are like those before, and one more; no more than a batch."""
        more_bytes = min(most_bytes - read_bytes, BATCH_BYTES - read_bytes // count)
        return min(LARGEST_BATCH, more_bytes * count // max(read_bytes, 1) + 1)

    def _size(self, results: Sequence[ReadResult], owner: str) -> int:
        sizes_bytes = [len(each) for each in results if type(each) is bytes]
        size_bytes, largest, known = sum(sizes_bytes), max(sizes_bytes, default=0), self._node_bytes(owner)
        if largest > known or known > NODE_BYTES:
            # A large one is forgotten slowly: the next ones may be as large.
            _remember(self._largest, owner, min(max(largest, NODE_BYTES, known * 7 // 8), LARGEST_NODE_BYTES))
        self.check(size_bytes)
        return size_bytes

    async def _ask(self, operation: Operation[T], is_led: bool, zxid: int) -> Reply[T]:
        began_s = time.monotonic()
        reply = await self._asked(operation, is_led, zxid)
        self._came(began_s, reply)
        return reply

    def _asked(self, operation: Operation[T], is_led: bool, zxid: int) -> Awaitable[Reply[T]]:
        if is_led or zxid:
            return self._ask_until(operation, is_led, zxid)
        return self._session.call(operation, yields=True)

    def _came(self, began_s: float, reply: Reply[Any]) -> None:
        """Learn from the time that an answer took how many bytes the way carries."""
        now_s, window = time.monotonic(), self.window
        is_news = now_s - began_s > SLOW_S or window.size_bytes < window.most_bytes
        if is_news and window.took(now_s - began_s, now_s, _size_of(reply.value)):
            self.in_flight.configure(self.window.size_bytes)

    async def _ask_until(self, operation: Operation[T], is_led: bool, zxid: int) -> Reply[T]:
        call = self._session.call
        if is_led:
            synced = call(Sync(), yields=True)  # pipelined: the server answers in order
            reply = await self._after(synced, call(operation, yields=True))
        else:
            reply = await call(operation, yields=True)
        while reply.zxid < zxid:
            synced = call(Sync(), yields=True)
            reply = await self._after(synced, call(operation, yields=True))
            if reply.zxid < zxid <= self._session.history.former_zxid:
                raise HistoryChanged(
                    f"min_zxid {zxid:#x} is of a history of ZooKeeper that is over: its leader is at {reply.zxid:#x}. "
                    "Forget the zxids of before, and read without min_zxid",
                    min_zxid=f"{zxid:#x}",
                    zxid=f"{reply.zxid:#x}",
                )
            if reply.zxid < zxid:
                await asyncio.sleep(BEHIND_RETRY_S)  # the transaction is not committed yet: nothing tells when
        return reply

    @staticmethod
    async def _after(synced: asyncio.Future[Reply[None]], reading: asyncio.Future[Reply[T]]) -> Reply[T]:
        try:
            await synced
        except BaseException:
            reading.cancel()
            raise
        return await reading


def _remember(known: OrderedDict[str, int], key: str, value: int) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > KNOWN:
        known.popitem(last=False)


def _size_of(value: object) -> int:
    """About how many bytes came; of what is small, no matter."""
    if isinstance(value, bytes):
        return len(value)
    return sum(len(each) for each in value if isinstance(each, bytes)) if isinstance(value, list) else 0


def _is_as_of(zxid: int, results: Sequence[ReadResult]) -> bool:
    """Whether what was read later was so at that zxid already. Of what is absent it cannot be told."""
    return all(isinstance(each, bytes) and max(records.zxids(each)) <= zxid for each in results)


def _of(paths: Sequence[str]) -> ReadMany:
    return ReadMany(tuple(map(GetData, paths)))
