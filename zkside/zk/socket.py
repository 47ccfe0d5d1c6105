"""One TCP connection to one ZooKeeper server: frames, the requests on it, and whether it is alive.

It knows nothing of sessions, watches or reconnecting. A `Socket` is dropped once, for one reason: by the network,
by the server, by bytes that make no sense, by a listener that raised, or because it went silent.

Ordering: requests are sent in the order of `call` and `ask`, replies and events handed on in the order of the
wire. Everything asked for in one turn of the event loop leaves in one write.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, Protocol, TypeVar

from zkside import errors
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
from zkside.zk import refusals
from zkside.zk.kazoo_parts import AUTH_OPCODE, PING_OPCODE
from zkside.zk.wire import (
    AUTH_XID,
    CODECS,
    EVENT_XID,
    NO_ERRORS,
    PING_XID,
    REPLY_HEADER,
    Codec,
    decode_event,
)

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
_FRAME_HEADER = struct.Struct("!ii")  # length, xid
_int_at = struct.Struct("!i").unpack_from
_PING_FRAME = struct.pack("!iii", 8, PING_XID, PING_OPCODE)
_MAX_XID = 2**31 - 1
_READS = frozenset({Exists, GetChildren, GetData, ReadMany})
_WRITES = Create | SetData | Delete | Transaction | SetAcl
_WRITE_BYTES: Final = 1 << 20
_PURGE_INTERVAL_S = 0.1
_NS = 1_000_000_000

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


class Owner(Protocol):
    """Whom a socket tells; called synchronously."""

    def heard_event(self, kind: int, state: int, path: str, zxid: int, since: int) -> None: ...

    def acknowledged(self, operation: Operation[Any] | None, sent_boottime_ns: int) -> None: ...

    def lost(self, socket: Socket, reason: str) -> None:
        """Before its requests fail."""

    def session_refused(self, code: int) -> None:
        """A reply said that the session is over, moved or not authenticated."""


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


class Socket(asyncio.Protocol):
    """One connection, from the TCP handshake to its end."""

    def __init__(self, owner: Owner, root: str, limits: Limits, last_zxid: int, traffic: Traffic) -> None:
        self.last_zxid = last_zxid
        self._initial_zxid = last_zxid
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Done with the reason when the connection is over."""
        self.greeting: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        """The server's first frame."""
        self._loop = asyncio.get_running_loop()
        self._owner = owner
        self._root = root
        self._limits = limits
        self._traffic = traffic
        self._transport: asyncio.Transport | None = None
        self._xid = 0
        self._queue: deque[Request] = deque()
        self._queued_bytes = 0
        self._pending: deque[Request] = deque()
        self._auth: asyncio.Future[int] | None = None
        self._flush_due = False
        self._paused = False
        self._purge_at_s = 0.0
        self._settled = False
        self._parts: list[bytes] = []
        self._have = self._need = self._skip = 0
        self._third_ns = self._limit_ns = 0
        self._ping_ns = 0
        self._sent_ns = self._heard_ns = boottime_ns()
        self._checked_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def in_flight(self) -> int:
        return len(self._pending)

    @property
    def queued(self) -> int:
        return len(self._queue)

    def has_reads_under_way(self) -> bool:
        """Whether anything is asked of the state of nodes; looks at every request."""
        return any(
            type(request.operation) in _READS for requests in (self._pending, self._queue) for request in requests
        )

    # --- asking

    def call(self, operation: Operation[Any], then: Then | None = None) -> asyncio.Future[Any]:
        """Ask on behalf of a user: within the limits, cancellable until it is sent. As port.Connection.call.

        With `then` it is called in the order of the wire and has to complete the future.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        limits = self._limits
        if (
            len(self._queue) + len(self._pending) >= limits.max_in_flight + limits.max_queued
            or self._queued_bytes >= limits.max_queued_bytes
        ) and not self._purge():
            text = f"{len(self._queue)} requests of {self._queued_bytes} bytes wait to be sent already"
            future.set_exception(errors.Quota(text))
            return future
        try:
            self._add(operation, future, then)
        except ZksideError as error:
            future.set_exception(error)
        return future

    async def ask(self, operation: Operation[T]) -> T:
        """Ask on behalf of the connection itself: not counted among those that wait.

        Raises: as port.Connection.call, at once or later.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        self._add(operation, future, None)
        reply: Reply[T] = await future
        return reply.value

    def tell(self, operation: Operation[Any], then: Then) -> None:
        """As `ask`; `then` is called in the order of the wire (or at once if it cannot be sent)."""
        try:
            self._add(operation, None, then)
        except ZksideError as error:
            then(0, None, error)

    def _add(self, operation: Operation[Any], future: asyncio.Future[Any] | None, then: Then | None) -> None:
        if self._transport is None:
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
        self._queue.append(Request(operation, codec, body, future, then))
        self._queued_bytes += len(body)
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _purge(self) -> bool:
        """Forget the cancelled among those that wait; whether that made room. Seldom, since it looks at all."""
        now_s = self._loop.time()
        if now_s < self._purge_at_s:
            return False
        self._purge_at_s = now_s + _PURGE_INTERVAL_S
        live = deque(request for request in self._queue if request.future is None or not request.future.done())
        purged = len(self._queue) - len(live)
        self._queue = live
        self._queued_bytes = sum(len(request.body) for request in live)
        return purged > 0

    def _flush(self) -> None:
        """Send what waits, as far as the limit in flight and the transport's buffer allow, in one write."""
        self._flush_due = False
        transport, queue, pending = self._transport, self._queue, self._pending
        if transport is None or self._paused:
            return
        room = self._limits.max_in_flight - len(pending)
        now_ns = boottime_ns()
        out: list[bytes] = []
        size_bytes = 0
        pack = _FRAME_HEADER.pack
        while queue and room > 0 and size_bytes < _WRITE_BYTES:
            request = queue.popleft()
            body = request.body
            self._queued_bytes -= len(body)
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
        if not out:
            return
        self._sent_ns = now_ns
        self._traffic.sent += len(out) // 2
        self._traffic.sent_bytes += size_bytes
        transport.write(b"".join(out))
        if queue and room > 0 and not self._paused:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    # --- the beginning of a connection

    def greet(self, connect_request: bytes) -> None:
        """Ask for the session; `greeting` is done with the answer."""
        self._write(struct.pack("!i", len(connect_request)) + connect_request)

    def watch_over(self, negotiated_timeout_s: float) -> None:
        """From now on ping, and drop the connection when it goes silent."""
        self._third_ns = int(negotiated_timeout_s * _NS / 3)
        self._limit_ns = 2 * self._third_ns
        self._check()

    def authenticate(self, auth_body: bytes) -> asyncio.Future[int]:
        """Send one auth packet; done with the server's error code. One at a time."""
        self._auth = self._loop.create_future()
        self._write(struct.pack("!iii", len(auth_body) + 8, AUTH_XID, AUTH_OPCODE) + auth_body)
        return self._auth

    def settle(self) -> None:
        """The session is ready. Events that came before happened after the former connection was lost: of the
        replies, only those of that one bound them."""
        self._settled = True

    def _write(self, frame: bytes) -> None:
        if self._transport is not None:
            self._sent_ns = boottime_ns()
            self._traffic.sent_bytes += len(frame)
            self._transport.write(frame)

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.set_write_buffer_limits(4 * _WRITE_BYTES)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self.drop(f"connection lost: {error}" if error else "the server closed the connection")

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._heard_ns = boottime_ns()
        self._traffic.received_bytes += len(data)
        try:
            self._feed(data)
        # Whatever it was, a malformed frame or a listener that raised: this connection is in an unknown state,
        # and the next one is not. Dropping it is the handling.
        except Exception as error:
            _LOG.warning("dropping the connection to ZooKeeper", exc_info=error)
            self.drop(f"{type(error).__name__}: {error}")
            return
        if self._queue and not self._flush_due:
            self._flush()

    def _feed(self, data: bytes) -> None:
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        if self._parts:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(self._parts)
            self._parts.clear()
        pos, size, largest = 0, len(data), self._limits.max_reply_bytes
        while self._transport is not None:
            start = pos + 4
            self._need = 4
            if start > size:
                break
            (length,) = _int_at(data, pos)
            end = start + length
            if not 0 <= length <= largest:
                self._need = 4 + REPLY_HEADER.size
                if size - pos < self._need:
                    break
                self._refuse_reply(data, start, length)
                self._skip = max(0, end - size)
                pos = min(end, size)
                continue
            if end > size:
                self._need = 4 + length
                break
            pos = end
            self._take(data[start:end])
        if pos < size:
            self._parts = [data[pos:]]
            self._have = size - pos

    def _refuse_reply(self, data: bytes, start: int, length: int) -> None:
        """A reply that is too large fails its request alone: one huge listing must not cut off everybody."""
        xid, _, _ = REPLY_HEADER.unpack_from(data, start)
        if length < 0 or not self._pending or self._pending[0].xid != xid:
            raise ValueError(f"a frame of {length} bytes")
        limit = self._limits.max_reply_bytes
        text = f"ZooKeeper's answer has {length} bytes, more than the limit of {limit}"
        request = self._pending.popleft()
        unknown = isinstance(request.operation, _WRITES)
        kind = errors.OutcomeUnknown if unknown else errors.TooLarge
        request.fail(kind(text, limit=str(limit)))

    def _take(self, frame: bytes) -> None:
        if not self.greeting.done():
            self.greeting.set_result(frame)
            return
        xid, zxid, code = REPLY_HEADER.unpack_from(frame)
        if xid == EVENT_XID:
            self._event(frame)
            return
        if zxid > self.last_zxid:
            self.last_zxid = zxid
        if xid == PING_XID:
            sent_ns, self._ping_ns = self._ping_ns, 0
            if sent_ns:
                self._owner.acknowledged(None, sent_ns)
            return
        if xid == AUTH_XID:
            if self._auth is not None and not self._auth.done():
                self._auth.set_result(code)
            return
        if not self._pending or self._pending[0].xid != xid:
            raise ValueError(f"an answer with xid {xid} to no request")
        self._reply(frame, zxid, code)

    def _reply(self, frame: bytes, zxid: int, code: int) -> None:
        request = self._pending[0]
        operation = request.operation
        value = error = None
        if not code:
            value = request.codec.decode(frame, operation, self._root)
        elif NO_ERRORS.get(type(operation)) != code:
            error = refusals.refusal(code, operation)
        # Only now: had the frame made no sense, the request would have failed with the connection.
        self._pending.popleft()
        if request.then is not None:
            request.then(zxid, value, error)
        elif request.future is not None:
            complete(request.future, zxid, value, error)
        if error is None or code in refusals.ANSWERED_BY_LEADER:
            self._owner.acknowledged(operation, request.sent_ns)
        elif code in refusals.OF_THE_SESSION:
            self._owner.session_refused(code)

    def _event(self, frame: bytes) -> None:
        zxid, kind, state, path = decode_event(frame)
        self._traffic.events += 1
        known = max(zxid, 0)
        since = known or (self.last_zxid if self._settled else self._initial_zxid) + 1
        self._owner.heard_event(kind, state, path, known, since)

    # --- alive or not

    def _check(self) -> None:
        """Ping after a third of the timeout without traffic in either direction; drop the connection when
        nothing was heard for two thirds, or when the oldest request is that old although other traffic flows
        (a server whose `sync` hangs goes on sending events). The timer runs after the loop has read what is
        there, so a stalled event loop does not look like a silent server.
        """
        if self._transport is None:
            return
        now_ns = boottime_ns()
        oldest_ns = self._pending[0].sent_ns if self._pending else now_ns
        if self._ping_ns:
            oldest_ns = min(oldest_ns, self._ping_ns)
        silent_ns = now_ns - self._heard_ns
        waiting = bool(self._pending or self._ping_ns)
        receiving = bool(self._parts or self._skip) and self._traffic.received_bytes != self._checked_bytes
        self._checked_bytes = self._traffic.received_bytes
        if waiting and (silent_ns >= self._limit_ns or (now_ns - oldest_ns >= self._limit_ns and not receiving)):
            self.drop(f"no answer for {max(silent_ns, now_ns - oldest_ns) / _NS:.2f} s")
            return
        quiet_since_ns = min(self._sent_ns, self._heard_ns)
        if not self._ping_ns and now_ns - quiet_since_ns >= self._third_ns:
            self._ping_ns = now_ns
            self._write(_PING_FRAME)
            waiting = True
        due_ns = now_ns + self._third_ns
        if not self._ping_ns:
            due_ns = min(due_ns, quiet_since_ns + self._third_ns)
        if waiting:
            silent_at_ns = min(self._heard_ns, oldest_ns) + self._limit_ns
            due_ns = min(due_ns, silent_at_ns) if silent_at_ns > now_ns else now_ns + self._third_ns // 8
        self._timer = self._loop.call_later(max(due_ns - now_ns, 1_000_000) / _NS, self._check)

    def drop(self, reason: str, failure: ZksideError | None = None) -> None:
        """Cut the connection. The owner is told, then the requests fail: sent ones with ConnectionLoss, the
        others with `failure` or SessionSuspended. A second call does nothing."""
        if self.closed.done():
            return
        self.closed.set_result(reason)
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        if self._timer is not None:
            self._timer.cancel()
        try:
            self._owner.lost(self, reason)
        finally:
            for answer in (self.greeting, self._auth):
                if answer is not None and not answer.done():
                    answer.set_exception(errors.ConnectionLoss(reason))
            pending, queue = self._pending, self._queue
            self._pending, self._queue = deque(), deque()
            self._queued_bytes = 0
            for request in pending:
                request.fail(errors.ConnectionLoss(f"sent, but not answered: {reason}"))
            for request in queue:
                request.fail(failure or errors.SessionSuspended(f"not sent: {reason}"))
