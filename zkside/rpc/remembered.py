"""Answers to cached Gets, kept encoded for as long as they are true.

A process that polls asks the same bytes again and again, and as long as no event has touched the node the
answer is the same bytes too. Finding them costs a few look-ups; making them, ten times that.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from zkside.hub.hub import Hub
from zkside.hub.roots import Root
from zkside.model.record import Record

MOST_BYTES = 16 * 1024 * 1024
"""Of all answers and what is kept with them."""
LARGEST_ANSWER_BYTES = 64 * 1024
ENTRY_BYTES = 400
"""What is kept with an answer: the request, the entry, its place."""


class _Remembered(NamedTuple):
    path: str
    record: Record
    root: Root
    epoch: int
    answer: bytes


class RememberedGets:
    """By the bytes of the request. Invariant: `recall` answers just what the cache would answer now.

    But for the header's zxid, which is that of the first answer: all up to there is still reflected.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._answers: dict[bytes, _Remembered] = {}
        self._bytes = 0

    def recall(self, request: bytes) -> bytes | None:
        """The answer to a request, if it is remembered and still true."""
        known = self._answers.get(request)
        if known is None:
            return None
        path, record, root, epoch, answer = known
        hub = self._hub
        if (
            hub.session.epoch != epoch  # looks at the lease first, so a daemon that was stopped notices here
            or not root.live
            or root.stale_since is not None
            or hub.table.records.get(path) is not record
            or path in hub.reader.unsettled
        ):
            self._forget(request)
            return None
        root.last_used = time.monotonic()
        hub.reads.cached += 1
        return answer

    def remember(self, request: bytes, path: str, record: Record, root: Root, answer: bytes) -> None:
        """Keep an answer that was made of this record of the node table, and of what this root keeps current."""
        if len(answer) > LARGEST_ANSWER_BYTES:
            return
        if request in self._answers:
            self._forget(request)
        self._answers[request] = _Remembered(path, record, root, self._hub.session.epoch, answer)
        self._bytes += len(answer) + ENTRY_BYTES
        while self._bytes > MOST_BYTES:
            self._forget(next(iter(self._answers)))

    def _forget(self, request: bytes) -> None:
        self._bytes -= len(self._answers.pop(request).answer) + ENTRY_BYTES
