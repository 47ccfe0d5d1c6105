"""Reads of clients that ZooKeeper answers: only so many bytes of answers are expected at a time.

Answers come one behind the other on the one connection, and a server makes each as a whole: what clients have asked for
is ahead of every proof that this session lives. So a read takes room first (zk/in_flight.py), before its size is known:
one node counts as NODE_BYTES, a list as all that one owner may have until it was read once, and of many nodes the first
few are read to learn how large they are. What has come keeps its room until it has become an answer.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

from zkside.errors import TooLarge
from zkside.model.operation import Exists, GetAcl, GetChildren, GetData, Operation, ReadMany, ReadResult, Reply, Sync
from zkside.zk.in_flight import InFlight, Share
from zkside.zk.session import Session

T = TypeVar("T")

# A server that is behind min_zxid although it has answered a sync is asked again after this long.
BEHIND_RETRY_S = 0.05
NODE_BYTES = 256 * 1024
"""Room for a node of unknown size, which may have a megabyte. Few have: less would expect too much, more too little."""
FIRST_BATCH = 16
LARGEST_BATCH = 64
"""Nodes of unknown size in one read."""
NAME_BYTES = 100
"""What a child's name takes in memory, beside its characters."""
LISTS_KNOWN = 1000


class ServerReads:
    """By owner, see core/budget.py. `held` is closed by the caller when it no longer has the answer's parts."""

    def __init__(self, session: Session, max_reads_bytes: int, max_answer_bytes: int) -> None:
        self._session = session
        self.in_flight = InFlight("max_reads_size", max_reads_bytes)
        self.max_answer_bytes = max_answer_bytes
        self._listings: OrderedDict[str, int] = OrderedDict()
        """What the children of a path took when they were read last."""

    def check(self, size_bytes: int) -> None:
        """Raises: TooLarge, for an answer that no client gets."""
        if size_bytes > self.max_answer_bytes:
            raise TooLarge(
                f"the answer has {size_bytes} bytes or more, the limit is {self.max_answer_bytes} "
                "(quotas.max_answer_size): ask for fewer nodes at a time",
                limit=str(self.max_answer_bytes),
            )

    async def room(self, owner: str, size_bytes: int = NODE_BYTES) -> Share:
        """As InFlight.room."""
        return await self.in_flight.room(owner, size_bytes)

    async def read(
        self, operation: GetData | Exists | GetAcl, owner: str, held: ExitStack, *, is_led: bool = False, zxid: int = 0
    ) -> Reply[Any]:
        """One node's, at `zxid` or later. `is_led`: as current as its leader is."""
        if isinstance(operation, Exists):
            return await self._ask(operation, is_led, zxid)
        share = held.enter_context(await self.room(owner))
        reply: Reply[Any] = await self._ask(operation, is_led, zxid)
        if isinstance(reply.value, bytes):
            share.resize(len(reply.value))
        return reply

    async def children(
        self, path: str, owner: str, held: ExitStack, *, is_led: bool = False, zxid: int = 0
    ) -> Reply[Any]:
        known, listings = self._listings, self.in_flight
        share = held.enter_context(await self.room(owner, known.get(path, listings.limit_bytes // 2)))
        reply = await self._ask(GetChildren(path), is_led, zxid)
        size_bytes = sum(map(len, reply.value[0])) + NAME_BYTES * (len(reply.value[0]) + 1)
        share.resize(size_bytes)
        known[path] = size_bytes
        known.move_to_end(path)
        if len(known) > LISTS_KNOWN:
            known.popitem(last=False)
        return reply

    async def many(
        self, paths: Sequence[str], owner: str, held: ExitStack, *, is_led: bool = False, zxid: int = 0
    ) -> Reply[list[ReadResult]]:
        """Many different nodes, as one consistent cut. Raises: TooLarge, for more than one answer may have.

        Those beyond the first few are read in batches. Their answers are one cut if no transaction came between,
        which their zxid tells; else all are read once more, in one batch, now that it is known how large they are.
        """
        if len(paths) <= FIRST_BATCH:
            share = held.enter_context(await self.room(owner, len(paths) * NODE_BYTES))
            reply = await self._ask(_of(paths), is_led, zxid)
            share.resize(self._size(reply.value))
            return reply
        share = held.enter_context(await self.room(owner, self.in_flight.limit_bytes // 2))
        results: list[ReadResult] = []
        zxids: set[int] = set()
        batch = FIRST_BATCH
        while len(results) < len(paths):
            reply = await self._ask(_of(paths[len(results) : len(results) + batch]), is_led and not zxids, zxid)
            results += reply.value
            zxids.add(reply.zxid)
            size_bytes = self._size(results)
            batch = _next_batch(size_bytes, len(results), self.max_answer_bytes)
        if len(zxids) > 1:
            results.clear()
            reply = await self._ask(_of(paths), False, max(zxids))
            results, size_bytes = reply.value, self._size(reply.value)
        share.resize(size_bytes)
        return Reply(reply.zxid, results)

    async def some(self, paths: Sequence[str], owner: str, held: ExitStack, size_bytes: int) -> Reply[list[ReadResult]]:
        """As many of the nodes, from the first one on, as take about so many bytes; one at least. No cut."""
        share = held.enter_context(await self.room(owner, min(len(paths), FIRST_BATCH) * NODE_BYTES))
        results: list[ReadResult] = []
        zxids: set[int] = set()
        batch = FIRST_BATCH
        while len(results) < len(paths):
            reply = await self._ask(_of(paths[len(results) : len(results) + batch]), False, 0)
            results += reply.value
            zxids.add(reply.zxid)
            read_bytes = sum(len(each) for each in results if isinstance(each, bytes))
            if read_bytes >= size_bytes:
                break
            batch = _next_batch(read_bytes, len(results), size_bytes)
        share.resize(read_bytes)
        return Reply(min(zxids), results)

    def _size(self, results: Sequence[ReadResult]) -> int:
        size_bytes = sum(len(each) for each in results if isinstance(each, bytes))
        self.check(size_bytes)
        return size_bytes

    async def _ask(self, operation: Operation[T], is_led: bool, zxid: int) -> Reply[T]:
        call = self._session.call
        if is_led:
            synced = call(Sync(), yields=True)  # pipelined: the server answers in order
            reply = await self._after(synced, call(operation, yields=True))
        else:
            reply = await call(operation, yields=True)
        while reply.zxid < zxid:
            synced = call(Sync(), yields=True)
            reply = await self._after(synced, call(operation, yields=True))
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


def _next_batch(read_bytes: int, count: int, most_bytes: int) -> int:
    """As many as fill the rest if they are like those before, and one more."""
    return min(LARGEST_BATCH, (most_bytes - read_bytes) * count // max(read_bytes, 1) + 1)


def _of(paths: Sequence[str]) -> ReadMany:
    return ReadMany(tuple(map(GetData, paths)))
