"""One TCP connection to one ZooKeeper server: its frames, and whether it is alive.

It knows nothing of sessions, watches or reconnecting. A `Socket` is dropped once, for one reason: by the network,
by the server, by bytes that make no sense, by a listener that raised, or because it went silent. Replies and
events are handed on in the order of the wire.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any, Protocol, cast

from zkside import errors, log
from zkside.errors import ZksideError
from zkside.model.operation import Operation
from zkside.zk import refusals
from zkside.zk.kazoo_parts import AUTH_OPCODE, PING_OPCODE
from zkside.zk.requests import WRITE_BYTES, Limits, Requests, Traffic, boottime_ns
from zkside.zk.wire import AUTH_XID, EVENT_XID, PING_XID, REPLY_HEADER, decode_event

_int_at = struct.Struct("!i").unpack_from
_PING_FRAME = struct.pack("!iii", 8, PING_XID, PING_OPCODE)
_NS = 1_000_000_000


class Owner(Protocol):
    """Whom a socket tells; called synchronously."""

    def heard_event(self, kind: int, state: int, path: str, zxid: int, since: int) -> None: ...

    def acknowledged(self, operation: Operation[Any] | None, sent_boottime_ns: int) -> None: ...

    def lost(self, socket: Socket, reason: str) -> None:
        """Before its requests fail."""

    def session_refused(self, code: int) -> None:
        """A reply said that the session is over, moved or not authenticated."""


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
        self.requests = Requests(root, limits, traffic)
        self._owner = owner
        self._limits = limits
        self._traffic = traffic
        self._transport: asyncio.Transport | None = None
        self._auth: asyncio.Future[int] | None = None
        self._settled = False
        self._parts: list[bytes] = []
        self._have = self._need = self._skip = 0
        self._third_ns = self._limit_ns = 0
        self._ping_ns = 0
        self._heard_ns = boottime_ns()
        self._timer: asyncio.TimerHandle | None = None
        self.went_silent = False
        """Dropped because nothing came any more."""

    @property
    def heard_ns(self) -> int:
        """When something came last."""
        return self._heard_ns

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
            self.requests.sent_ns = boottime_ns()
            self._traffic.sent_bytes += len(frame)
            self._transport.write(frame)

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Each loop has transports of its own, which need not descend from asyncio's class.
        transport = cast(asyncio.Transport, transport)
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.set_write_buffer_limits(4 * WRITE_BYTES)
        self._transport = transport
        self.requests.write = transport.write

    def connection_lost(self, error: Exception | None) -> None:
        self.drop(f"connection lost: {error}" if error else "the server closed the connection")

    def pause_writing(self) -> None:
        self.requests.paused = True

    def resume_writing(self) -> None:
        self.requests.paused = False
        self.requests.flush()

    def data_received(self, data: bytes) -> None:
        self._heard_ns = boottime_ns()
        self._traffic.received_bytes += len(data)
        try:
            self._feed(data)
        # Whatever it was, a malformed frame or a listener that raised: this connection is in an unknown state,
        # and the next one is not. Dropping it is the handling.
        except Exception as error:
            self._traffic.errors += 1
            log.connection_dropped(error=error)
            self.drop(f"{type(error).__name__}: {error}")
            return
        self.requests.flush()

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
                if length < 0:
                    raise ValueError(f"a frame of {length} bytes")
                self.requests.refuse_answer(REPLY_HEADER.unpack_from(data, start)[0], length)
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
        request, error = self.requests.answer(frame, xid, zxid, code)
        if error is None or code in refusals.ANSWERED_BY_LEADER:
            self._owner.acknowledged(request.operation, request.sent_ns)
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
        oldest_ns = min(self.requests.oldest_ns or now_ns, self._ping_ns or now_ns)
        silent_ns = now_ns - self._heard_ns
        waiting = bool(self.requests.in_flight or self._ping_ns)
        # Bytes of a long answer that came lately; not "since the last check", which may be a moment ago.
        receiving = bool(self._parts or self._skip) and silent_ns < self._third_ns
        if waiting and (silent_ns >= self._limit_ns or (now_ns - oldest_ns >= self._limit_ns and not receiving)):
            self.went_silent = True
            self.drop(f"no answer for {max(silent_ns, now_ns - oldest_ns) / _NS:.2f} s")
            return
        quiet_since_ns = min(self.requests.sent_ns, self._heard_ns)
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
        self.requests.write = None
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
                    answer.exception()  # nobody may be waiting for it, which is no news to asyncio
            self.requests.fail(reason, failure)
