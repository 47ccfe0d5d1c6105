"""Reading whole parts of the tree: to load them, and to compare them after an outage.

Works in batches of multiRead, a few of them under way at a time, so that the server reads while the replies
are taken in; between two batches the event loop goes round. What cannot be answered in one reply is asked for in
smaller batches, down to one node (hub/asking.py).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from zkside.errors import TooLarge, ZksideError
from zkside.hub.asking import PASSING, Asking, is_unreadable, limit_of
from zkside.model import record as records
from zkside.model.operation import GetChildren, GetData, ReadMany, ReadResult, Reply
from zkside.model.record import Record
from zkside.zk.session import Session

UNDER_WAY = 4
# Batches double from the first to the largest: nothing tells beforehand how large the nodes below one are.
FIRST_BATCH = 8
LARGEST_BATCH = 250
# A reply of a batch should have about this size; unknown nodes are taken to be as large as those before.
REPLY_BYTES = 512 * 1024
# Below jute.maxbuffer, which also bounds requests.
REQUEST_BYTES = 512 * 1024


class _Found(NamedTuple):
    """Nodes to read: below `prefix`, so many levels of what is found below each. Taken one by one, so that a
    long list costs neither a pause nor an object for each name."""

    prefix: str
    names: Iterator[str]
    levels: int


class Walk:
    """One walk over parts of the tree.

    `visit(path, result)` is called once for each path that is read, with why not if it cannot be: absent, or not
    ours to read, or larger than any reply may be. `unlisted(path, error)` is called for a node whose list of children
    cannot be read. `known(path)` is the record that the caller already has: a known node whose list of children
    did not change (same pzxid) is not asked for its children again.
    """

    def __init__(
        self,
        session: Session,
        *,
        known: Callable[[str], Record | None],
        visit: Callable[[str, ReadResult], None],
        unlisted: Callable[[str, ZksideError], None],
    ) -> None:
        self._session = session
        self._asking = Asking(session)
        self._unlisted = unlisted
        self._known = known
        self._visit = visit
        self._parents: deque[tuple[str, int, int]] = deque()
        """Whose children are to be asked for: path, levels, and how many they are expected to be."""
        self._found: deque[_Found] = deque()
        self._seen: set[str] = set()
        self._node_bytes = 0
        self._most = FIRST_BATCH
        self._reply_bytes = REPLY_BYTES
        self._parts: list[_Batch] = []
        """Of batches that were too large, to be asked for again."""
        self.zxid = 0
        """The newest zxid among the replies: the walk has seen nothing older than its start, and some of it
        as of this."""

    async def run(self, starts: Iterable[tuple[str, int]]) -> None:
        """Read the paths, each with so many levels of what is found below it.

        A path is read once, with the levels of its first mention. Raises: what a lost connection raises.
        """
        source = iter(starts)
        under_way: deque[tuple[_Batch, int, asyncio.Future[Reply[list[ReadResult]]]]] = deque()
        try:
            while True:
                while len(under_way) < UNDER_WAY and (batch := self._next_batch(source)):
                    sequence = self._session.status.sequence
                    under_way.append((batch, sequence, self._session.call(_operation(batch))))
                if not under_way:
                    return
                batch, sequence, call = under_way.popleft()
                try:
                    reply = await self._asking.answer(_operation(batch), call, sequence)
                except PASSING:
                    raise
                except ZksideError as error:
                    self._refused(batch, error)
                else:
                    self.zxid = max(self.zxid, reply.zxid)
                    self._take(batch, reply.value)
        finally:
            for _, _, call in under_way:
                call.cancel()

    def _refused(self, batch: _Batch, error: ZksideError) -> None:
        if isinstance(error, TooLarge) and (limit := limit_of(error)):
            self._reply_bytes = min(REPLY_BYTES, limit)
        if len(batch) > 1:
            half = self._most = len(batch) // 2
            self._parts += [batch[half:], batch[:half]]
            return
        [(read, _)] = batch
        if isinstance(read, GetData):
            self._visit(read.path, error)
        else:
            self._unlisted(read.path, error)

    def _next_batch(self, source: Iterator[tuple[str, int]]) -> _Batch:
        if self._parts:
            return self._parts.pop()
        size = min(max(1, self._reply_bytes // self._node_bytes), self._most) if self._node_bytes else self._most
        batch: _Batch = []
        names = 0
        while self._parents and names < size:
            path, levels, children = self._parents.popleft()
            batch.append((GetChildren(path), levels))
            names += children
        request_bytes = 0
        for path, levels in chain(self._next_found(), source):
            if path not in self._seen:
                self._seen.add(path)
                batch.append((GetData(path), levels))
                request_bytes += 16 + 4 * len(path)
            if len(batch) + names >= size or request_bytes >= REQUEST_BYTES:
                break
        return batch

    def _next_found(self) -> Iterator[tuple[str, int]]:
        while self._found:
            prefix, names, levels = self._found[0]
            for name in names:
                yield prefix + name, levels
            self._found.popleft()

    def _take(self, batch: _Batch, results: list[ReadResult]) -> None:
        visit = self._visit
        largest = size_bytes = 0
        for (read, levels), result in zip(batch, results, strict=True):
            if isinstance(result, bytes):
                size_bytes += len(result)
                if len(result) > largest:
                    largest = len(result)
                if levels > 0 and (children := records.num_children(result)) > 0:
                    known = self._known(read.path)
                    if known is None or not records.are_same(known, result):
                        self._parents.append((read.path, levels, children))
                visit(read.path, result)
            elif isinstance(result, list):
                prefix = "/" if read.path == "/" else read.path + "/"
                self._found.append(_Found(prefix, iter(result), levels - 1))
            elif isinstance(read, GetData):
                visit(read.path, result)
            elif is_unreadable(result):
                self._unlisted(read.path, result)
        # Slowly forgets a large node, so that one of them does not make all later batches small.
        self._node_bytes = max(largest, self._node_bytes * 3 // 4, 100)
        if len(batch) >= self._most and 2 * size_bytes <= self._reply_bytes:
            self._most = min(LARGEST_BATCH, 2 * self._most)


def _operation(batch: _Batch) -> ReadMany:
    return ReadMany(tuple(read for read, _ in batch))


_Batch = list[tuple[GetData | GetChildren, int]]
