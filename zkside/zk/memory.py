"""The port to the ZooKeeper in process: connections to a MemoryZooKeeper over a MemoryNetwork.

Serves tests under a virtual clock with faults to order, and `zkside dev --memory`. A development tool.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from enum import Enum, auto
from typing import Any, TypeVar

from zkside import errors
from zkside.errors import Refused, ZksideError
from zkside.model.event import KeeperState, WatchedEvent
from zkside.model.operation import (
    AddWatch,
    Operation,
    RemoveWatch,
    Reply,
)
from zkside.zk.clock import Timer
from zkside.zk.memory_chroot import HEADER_BYTES, rooted, size_bytes, unrooted, unrooted_error, unrooted_result
from zkside.zk.memory_network import MemoryNetwork
from zkside.zk.memory_server import Answer, Attachment, CloseSession, Event, Hello, MemoryZooKeeper
from zkside.zk.port import Connected, Connection, ConnectionStatistics, Connector, Ending, Listener, Ticket

__all__ = ["MemoryNetwork", "MemoryZooKeeper", "memory_connector"]

T = TypeVar("T")

_RETRY_NS = 100_000_000
JUTE_MAXBUFFER_BYTES = (1 << 20) - 1


def memory_connector(
    zookeeper: MemoryZooKeeper,
    *,
    network: MemoryNetwork | None = None,
    chroot: str = "",
    timeout_s: float = 10.0,
    auth: tuple[tuple[str, str], ...] = (),
    read_only: bool = False,
    max_in_flight: int = 1000,
    max_queued: int = 10_000,
) -> Connector:
    """Makes connections to it.

    `network` is a part of the network of its own, to be cut without the others; `auth` are pairs like
    ("digest", "user:password"); with `read_only` a read-only server is better than none.
    """

    def connect(listener: Listener, ticket: Ticket | None) -> Connection:
        return MemoryConnection(
            zookeeper,
            network or zookeeper.network,
            listener,
            Hello(ticket, timeout_s, auth, read_only, {}),
            chroot="" if chroot == "/" else chroot,
            max_in_flight=max_in_flight,
            max_queued=max_queued,
        )

    return connect


class _Phase(Enum):
    NEW = auto()
    CONNECTING = auto()
    CONNECTED = auto()
    OVER = auto()


@dataclasses.dataclass(slots=True, eq=False)
class _Request:
    """An operation on its way; None is a ping."""

    operation: Operation[Any] | None
    rooted: Operation[Any] | None
    """The same as the server knows it, without a chroot."""
    size_bytes: int
    future: asyncio.Future[Reply[Any]] | None = None
    sent_ns: int = 0

    def fail(self, error: ZksideError) -> None:
        if self.future is not None and not self.future.done():
            self.future.set_exception(error)


class MemoryConnection:
    """port.Connection without a socket."""

    def __init__(
        self,
        zookeeper: MemoryZooKeeper,
        network: MemoryNetwork,
        listener: Listener,
        hello: Hello,
        *,
        chroot: str,
        max_in_flight: int,
        max_queued: int,
    ) -> None:
        self._zookeeper = zookeeper
        self._network = network
        self._clock = self._network.clock
        self._listener = listener
        self._hello = hello
        self._chroot = chroot
        self._max_in_flight = max_in_flight
        self._max_queued = max_queued
        self._phase = _Phase.NEW
        self._last_zxid = hello.ticket.last_zxid if hello.ticket is not None else 0
        self._attachment: Attachment | None = None
        self._watches: dict[str, bool] = {}
        self._queue: deque[_Request] = deque()
        self._sent: deque[_Request] = deque()
        """Oldest first, and answered in this order."""
        self._is_flush_due = False
        self._timer: Timer | None = None
        """In CONNECTING of the next attempt, in CONNECTED of the next look at the connection."""
        self._heard_ns = 0
        self._spoke_ns = 0
        self._over: asyncio.Future[None] | None = None
        """From the call of `close` on; done when that may return."""
        self._is_closed = False
        """The server has said that the session is closed; it will cut the connection."""
        self._requests_sent = self._sent_bytes = self._received_bytes = 0
        self._events = self._connects = self._refused = 0

    @property
    def last_zxid(self) -> int:
        return self._last_zxid

    def statistics(self) -> ConnectionStatistics:
        return ConnectionStatistics(
            in_flight=len(self._sent),
            queued=len(self._queue),
            sent=self._requests_sent,
            received_bytes=self._received_bytes,
            sent_bytes=self._sent_bytes,
            events=self._events,
            connects=self._connects,
            refused=self._refused,
            errors=0,
        )

    # --- asking

    def call(self, operation: Operation[T], *, yields: bool = False) -> asyncio.Future[Reply[T]]:
        future: asyncio.Future[Reply[T]] = asyncio.get_running_loop().create_future()
        full = rooted(operation, self._chroot)
        request = _Request(operation, full, size_bytes(full), future)
        if self._phase is _Phase.OVER or self._over is not None:
            request.fail(errors.SessionLost())
        elif self._phase is not _Phase.CONNECTED:
            request.fail(errors.SessionSuspended())
        elif request.size_bytes > JUTE_MAXBUFFER_BYTES:
            limit = str(JUTE_MAXBUFFER_BYTES)
            text = f"a request of {request.size_bytes} bytes; ZooKeeper takes {limit}"
            request.fail(errors.TooLarge(text, limit=limit))
        elif len(self._queue) + len(self._sent) >= self._max_in_flight + self._max_queued:
            self._refused += 1
            text = f"{len(self._queue)} requests wait to be sent to ZooKeeper already (zookeeper.max_queued)"
            request.fail(errors.Quota(text, limit="max_queued"))
        else:
            self._enqueue(request)
        return future

    def _enqueue(self, request: _Request) -> None:
        self._queue.append(request)
        if not self._is_flush_due:
            self._is_flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        while self._queue and len(self._sent) < self._max_in_flight and self._phase is _Phase.CONNECTED:
            request = self._queue.popleft()
            if request.future is None or not request.future.done():
                self._send(request)

    def _send(self, request: _Request) -> None:
        assert self._attachment is not None
        request.sent_ns = self._spoke_ns = self._clock.boottime_ns()
        self._requests_sent += request.operation is not None
        self._sent_bytes += request.size_bytes
        self._sent.append(request)
        self._attachment.link.up.send(request.rooted)

    # --- hearing

    def _hear(self, item: Answer | Event) -> None:
        self._heard_ns = self._clock.boottime_ns()
        if isinstance(item, Event):
            self._events += 1
            since = item.zxid or self._last_zxid + 1
            path = unrooted(item.path, self._chroot)
            self._listener.event(WatchedEvent(item.type, KeeperState.SYNC_CONNECTED, path, item.zxid, since))
            return
        request = self._sent.popleft()
        self._last_zxid = max(self._last_zxid, item.zxid)
        self._received_bytes += 2 * HEADER_BYTES + (len(item.value) if type(item.value) is bytes else 0)
        self._answered(request, item)
        if self._queue and not self._is_flush_due:
            self._flush()

    def _answered(self, request: _Request, answer: Answer) -> None:
        refused = isinstance(answer.value, ZksideError)
        if refused:
            request.fail(unrooted_error(answer.value, self._chroot))
        else:
            self._remember_watch(request.rooted)
            if request.future is not None and not request.future.done():
                value = unrooted_result(request.operation, answer.value, self._chroot)
                request.future.set_result(Reply(answer.zxid, value))
        if isinstance(request.operation, CloseSession):
            self._is_closed = True
            return
        if not refused or isinstance(answer.value, Refused):
            self._listener.acknowledged(request.operation, request.sent_ns)

    def _remember_watch(self, operation: Operation[Any] | None) -> None:
        match operation:
            case AddWatch(path, recursive):
                self._watches[path] = recursive
            case RemoveWatch(path):
                self._watches.pop(path, None)

    # --- connecting

    def start(self) -> None:
        self._phase = _Phase.CONNECTING
        self._try_again(after_ns=0)

    def _try_again(self, *, after_ns: int) -> None:
        # There and back takes two delays; all of it is counted before the attempt.
        due = self._clock.boottime_ns() + after_ns + 2 * self._network.delay_ns
        self._timer = self._clock.call_at(due, self._connect)

    def _connect(self) -> None:
        self._timer = None
        if self._network.is_refusing or self._network.is_half_open:
            self._try_again(after_ns=_RETRY_NS)
            return
        hello = dataclasses.replace(self._hello, watches=self._watches)
        try:
            attachment = self._zookeeper.attach(self._network, hello, to_client=self._hear, on_cut=self._suspend)
        except errors.SessionSuspended:
            self._try_again(after_ns=_RETRY_NS)
        except errors.SessionLost as error:
            self._end(Ending.EXPIRED, str(error))
        except errors.NoAuth as error:
            self._end(Ending.AUTH_FAILED, str(error))
        else:
            self._connected(attachment)

    def _connected(self, attachment: Attachment) -> None:
        session = attachment.session
        self._attachment = attachment
        self._phase = _Phase.CONNECTED
        resumed = self._hello.ticket is not None
        ticket = Ticket(session.id, session.password, self._last_zxid)
        self._hello = dataclasses.replace(self._hello, ticket=ticket)
        self._connects += 1
        self._heard_ns = self._spoke_ns = self._clock.boottime_ns()
        self._look()
        if self._over is not None:
            self._enqueue(_Request(CloseSession(), CloseSession(), HEADER_BYTES))
            return
        self._listener.connected(
            Connected(ticket, session.timeout_ns / 1e9, "memory:0", self._zookeeper.is_read_only, resumed)
        )

    def _look(self) -> None:
        """Ping after a third of the timeout without a word, give up after two thirds without an answer."""
        assert self._attachment is not None
        third_ns = self._attachment.session.timeout_ns // 3
        now = self._clock.boottime_ns()
        if now >= self._heard_ns + 2 * third_ns:
            self._attachment.link.cut(f"no answer for {(now - self._heard_ns) / 1e9:.2f} s")
            return
        if now >= self._spoke_ns + third_ns:
            self._send(_Request(None, None, HEADER_BYTES))
        due = min(self._spoke_ns + third_ns, self._heard_ns + 2 * third_ns)
        self._timer = self._clock.call_at(due, self._look)

    # --- the end of a connection, and of the session

    def _suspend(self, reason: str) -> None:
        if self._phase is not _Phase.CONNECTED:
            return
        self._phase = _Phase.CONNECTING
        self._stop_timer()
        self._attachment = None
        if self._over is None:
            self._listener.suspended(reason)
        self._fail_all(reason)
        if self._is_closed:
            self._end(Ending.CLOSED, reason)
        # The listener may have started or ended something itself.
        elif self._phase is _Phase.CONNECTING and self._timer is None:
            self._try_again(after_ns=0)

    def _fail_all(self, reason: str) -> None:
        sent, self._sent = self._sent, deque()
        queue, self._queue = self._queue, deque()
        for request in sent:
            request.fail(errors.ConnectionLoss(f"sent, but not answered: {reason}"))
        for request in queue:
            request.fail(errors.SessionSuspended(f"not sent: {reason}"))

    def _end(self, ending: Ending, reason: str) -> None:
        """Ordering: the listener, then what is under way, then those who wait for the end."""
        self._listener.ended(ending, reason)
        self.abandon()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def close(self, *, within_s: float) -> None:
        if self._phase is _Phase.OVER or self._over is not None:
            return
        self._over = asyncio.get_running_loop().create_future()
        if self._phase is _Phase.CONNECTED:
            self._enqueue(_Request(CloseSession(), CloseSession(), HEADER_BYTES))
        elif self._hello.ticket is None:
            self._end(Ending.CLOSED, "closed before there was a session")
        due = self._clock.boottime_ns() + int(within_s * 1e9)
        give_up = self._clock.call_at(due, lambda: self._give_up(within_s))
        try:
            await self._over
        finally:
            give_up.cancel()
            self.abandon()

    def _give_up(self, within_s: float) -> None:
        if self._phase is not _Phase.OVER:
            self._end(Ending.CLOSED, f"no answer to the closing within {within_s} s; the session will expire")

    def abandon(self) -> None:
        self._phase = _Phase.OVER
        self._stop_timer()
        attachment, self._attachment = self._attachment, None
        if attachment is not None:
            attachment.link.cut("abandoned")
        self._fail_all("the connection was abandoned")
        if self._over is not None and not self._over.done():
            self._over.set_result(None)
