"""What is asked on one connection: what waits to be sent, and what waits for its answer.

Ordering: requests are sent in the order of `call`, `ask` and `tell`, and answered in it; but what clients ask for
(`yields`) lets the requests of the session itself go first: proofs of its lease, holds, watches and caches. In order it
stays among itself. Everything asked for in one turn of the event loop leaves in one write; while others are under way
it may wait for more, for GATHER_S at most, if that has been seen to let more through (core/pacing.py).
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, TypeVar

from zkside import errors
from zkside.core.pacing import Pacing
from zkside.errors import ZksideError
from zkside.model.operation import (
    Create,
    Delete,
    Exists,
    GetChildren,
    GetData,
    Operation,
    ReadMany,
    Reply,
    SetAcl,
    SetData,
    Transaction,
)
from zkside.zk.refusals import refusal
from zkside.zk.wire import CODECS, NO_ERRORS, Codec

T = TypeVar("T")

_FRAME_HEADER = struct.Struct("!ii")  # length, xid
_MAX_XID = 2**31 - 1
_PURGE_INTERVAL_S = 0.1
_READS = frozenset({Exists, GetChildren, GetData, ReadMany})
_WRITES = Create | SetData | Delete | Transaction | SetAcl
WRITE_BYTES: Final = 1 << 20
"""About as much goes out in one write."""
GATHER_S: Final = 0.004
"""How long a request may wait for others; an idle event loop rounds it up to the next millisecond."""
ENOUGH: Final = 16
"""Requests that need not wait for more: the share of one write in the cost of each is small."""

SPARED: Final = 10
"""One in so many of the requests in flight is none of a client's: the session's own find a place at once."""

Then = Callable[[int, Any, ZksideError | None], None]
"""Called in the order of the wire with the reply's zxid, and its value or what went wrong."""


def boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a connection's memory."""

    max_in_flight: int = 1000
    max_queued: int = 10_000
    max_queued_bytes: int = 64 << 20
    jute_maxbuffer_bytes: int = (1 << 20) - 1
    max_reply_bytes: int = 64 << 20


@dataclass(slots=True)
class Traffic:
    """Counts that outlive a socket."""

    sent: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    events: int = 0
    refused: int = 0
    """Because too many waited."""
    errors: int = 0
    """Bytes that made no sense, and errors of our own while they were dealt with: the connection is made anew."""


def complete(future: asyncio.Future[Any], zxid: int, value: Any, error: ZksideError | None) -> None:
    """Give a request's future its outcome, unless its caller has gone."""
    if future.done():
        return
    if error is None:
        future.set_result(Reply(zxid, value))
    else:
        future.set_exception(error)


class Request:
    """An operation on its way. It has a future, or a `then`, or both: then the latter completes the former."""

    __slots__ = ("body", "codec", "future", "operation", "sent_ns", "then", "xid")

    def __init__(
        self,
        operation: Operation[Any],
        codec: Codec,
        body: bytes,
        future: asyncio.Future[Any] | None,
        then: Then | None,
    ) -> None:
        self.operation = operation
        self.codec = codec
        self.body = body
        self.future = future
        self.then = then
        self.sent_ns = 0
        self.xid = 0

    def fail(self, error: ZksideError) -> None:
        if self.then is not None:
            self.then(0, None, error)
        elif self.future is not None:
            complete(self.future, 0, None, error)


class _Waiting:
    """Requests of one kind that wait to be sent."""

    __slots__ = ("purge_at_s", "queue", "size_bytes")

    def __init__(self) -> None:
        self.queue: deque[Request] = deque()
        self.size_bytes = 0
        self.purge_at_s = 0.0

    def purge(self, now_s: float) -> bool:
        """Forget the cancelled; whether that made room. Seldom, since it looks at all."""
        if now_s < self.purge_at_s:
            return False
        self.purge_at_s = now_s + _PURGE_INTERVAL_S
        before = len(self.queue)
        self.queue = deque(request for request in self.queue if request.future is None or not request.future.done())
        self.size_bytes = sum(len(request.body) for request in self.queue)
        return len(self.queue) < before


class Requests:
    """The requests of one connection."""

    def __init__(self, root: str, limits: Limits, traffic: Traffic) -> None:
        self.write: Callable[[bytes], None] | None = None
        """Where to; None while there is no connection."""
        self.paused = False
        """The transport has enough for now."""
        self.sent_ns = boottime_ns()
        """When something was sent last."""
        self.pacing = Pacing()
        """Whether requests wait for others."""
        self._loop = asyncio.get_running_loop()
        self._root = root
        self._limits = limits
        self._traffic = traffic
        self._xid = 0
        self._own, self._yielding = _Waiting(), _Waiting()
        self._pending: deque[Request] = deque()
        self._flush_due = False
        self._gathering: asyncio.TimerHandle | None = None
        """Set while what is queued waits for more."""

    @property
    def in_flight(self) -> int:
        return len(self._pending)

    @property
    def queued(self) -> int:
        return len(self._own.queue) + len(self._yielding.queue)

    @property
    def oldest_ns(self) -> int:
        """When the oldest request without an answer was sent; 0 if there is none."""
        return self._pending[0].sent_ns if self._pending else 0

    def has_reads_under_way(self) -> bool:
        """Whether anything is asked of the state of nodes; looks at every request."""
        return any(
            type(request.operation) in _READS for request in chain(self._pending, self._own.queue, self._yielding.queue)
        )

    # --- asking

    def call(self, operation: Operation[Any], then: Then | None = None, *, yields: bool = False) -> asyncio.Future[Any]:
        """Ask on behalf of a user: within the limits, cancellable until it is sent. As port.Connection.call.

        With `then` it is called in the order of the wire and has to complete the future.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        limits, waiting = self._limits, self._yielding if yields else self._own
        limit = ""
        if len(waiting.queue) + len(self._pending) >= limits.max_in_flight + limits.max_queued:
            limit = "max_queued"
        elif waiting.size_bytes >= limits.max_queued_bytes:
            limit = "max_queued_size"
        if limit and not waiting.purge(self._loop.time()):
            text = f"{len(waiting.queue)} requests of {waiting.size_bytes} bytes wait to be sent to ZooKeeper already"
            self._traffic.refused += 1
            future.set_exception(errors.Quota(f"{text} (zookeeper.{limit})", limit=limit))
            return future
        try:
            self._add(operation, future, then, waiting)
        except ZksideError as error:
            future.set_exception(error)
        return future

    async def ask(self, operation: Operation[T]) -> T:
        """Ask on behalf of the connection itself: not counted among those that wait.

        Raises: as port.Connection.call, at once or later.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        self._add(operation, future, None, self._own)
        reply: Reply[T] = await future
        return reply.value

    def tell(self, operation: Operation[Any], then: Then) -> None:
        """As `ask`; `then` is called in the order of the wire (or at once if it cannot be sent)."""
        try:
            self._add(operation, None, then, self._own)
        except ZksideError as error:
            then(0, None, error)

    def _add(
        self, operation: Operation[Any], future: asyncio.Future[Any] | None, then: Then | None, waiting: _Waiting
    ) -> None:
        if self.write is None:
            raise errors.SessionSuspended
        codec = CODECS[type(operation)]
        try:
            body = codec.encode(operation, self._root)
        except (struct.error, UnicodeEncodeError) as error:
            raise errors.InvalidArgument(f"not to be put on the wire: {error}") from error
        limit = self._limits.jute_maxbuffer_bytes
        if len(body) + 4 > limit:
            text = f"a request of {len(body) + 4} bytes; ZooKeeper takes {limit} (jute.maxbuffer)"
            raise errors.TooLarge(text, limit=str(limit))
        waiting.queue.append(Request(operation, codec, body, future, then))
        waiting.size_bytes += len(body)
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._end_turn)
        elif self._gathering is not None and self.queued >= ENOUGH:
            self._end_gathering()
            self._flush_due = True
            self._loop.call_soon(self.flush)

    def _end_turn(self) -> None:
        """All that was asked for in one turn is here: send it, or gather more."""
        if self.pacing.gathers and self._pending and 0 < self.queued < ENOUGH:
            self._gathering = self._loop.call_later(GATHER_S, self._end_gathering_and_flush)
        else:
            self.flush()

    def _end_gathering(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None

    def _end_gathering_and_flush(self) -> None:
        self._gathering = None
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the limit in flight and the transport's buffer allow, in one write.

        While more is being gathered this does nothing: the end of that sends.
        """
        if self._gathering is not None:
            return
        self._flush_due = False
        write, pending = self.write, self._pending
        if write is None or self.paused:
            return
        now_ns = boottime_ns()
        most = self._limits.max_in_flight
        out: list[bytes] = []
        size_bytes = 0
        has_more = False
        pack = _FRAME_HEADER.pack
        for waiting in (self._own, self._yielding):
            queue, room = waiting.queue, most - len(pending)
            most -= most // SPARED  # from here on it is the clients'
            while queue and room > 0 and size_bytes < WRITE_BYTES:
                request = queue.popleft()
                body = request.body
                waiting.size_bytes -= len(body)
                if request.future is not None and request.future.done():
                    continue
                xid = self._xid = self._xid % _MAX_XID + 1
                out.append(pack(len(body) + 4, xid))
                out.append(body)
                size_bytes += len(body) + 8
                request.xid = xid
                request.body = b""
                request.sent_ns = now_ns
                pending.append(request)
                room -= 1
            has_more = has_more or (bool(queue) and room > 0)
        if not out:
            return
        self.sent_ns = now_ns
        sent = len(out) // 2
        self._traffic.sent += sent
        self.pacing.wrote(now_ns / 1e9, sent)
        self._traffic.sent_bytes += size_bytes
        write(b"".join(out))
        if has_more and not self.paused:
            self._flush_due = True
            self._loop.call_soon(self.flush)

    # --- being answered

    def answer(self, frame: bytes, xid: int, zxid: int, code: int) -> tuple[Request, ZksideError | None]:
        """Settle the oldest request, whose xid it has to be; returns it and what went wrong.

        Raises: ValueError and what decoders raise; then the request stays unanswered.
        """
        request = self._oldest(xid)
        value = error = None
        if not code:
            value = request.codec.decode(frame, request.operation, self._root)
        elif NO_ERRORS.get(type(request.operation)) != code:
            error = refusal(code, request.operation)
        self._pending.popleft()
        if request.then is not None:
            request.then(zxid, value, error)
        elif request.future is not None:
            complete(request.future, zxid, value, error)
        return request, error

    def refuse_answer(self, xid: int, length: int) -> None:
        """Fail the oldest request alone: one huge listing must not cut off everybody. Raises: ValueError."""
        request = self._oldest(xid)
        limit = self._limits.max_reply_bytes
        text = f"ZooKeeper's answer has {length} bytes, more than the limit of {limit}"
        kind = errors.OutcomeUnknown if isinstance(request.operation, _WRITES) else errors.TooLarge
        self._pending.popleft()
        request.fail(kind(text, limit=str(limit)))

    def _oldest(self, xid: int) -> Request:
        if not self._pending or self._pending[0].xid != xid:
            raise ValueError(f"an answer with xid {xid} to no request")
        return self._pending[0]

    def fail(self, reason: str, failure: ZksideError | None) -> None:
        """Sent ones with ConnectionLoss, the others with `failure` or SessionSuspended."""
        pending, unsent = self._pending, (*self._own.queue, *self._yielding.queue)
        self._pending, self._own, self._yielding = deque(), _Waiting(), _Waiting()
        self._end_gathering()
        for request in pending:
            request.fail(errors.ConnectionLoss(f"sent, but not answered: {reason}"))
        for request in unsent:
            request.fail(failure or errors.SessionSuspended(f"not sent: {reason}"))
