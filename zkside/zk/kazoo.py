"""The real backend of the port: a ZooKeeper session as a native asyncio client.

It stands on kazoo's serialisers, error codes, host parser and security helpers (zk/kazoo_parts.py), not on kazoo's
threaded client; docs/adr/0001 says why. One task connects, hands the session to one `Socket` after the other, and
goes on until the session is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import ssl
from dataclasses import dataclass, field
from typing import Any, TypeVar

from zkside import errors, log
from zkside.core.backoff import Backoff
from zkside.model.event import WatchedEvent
from zkside.model.operation import AddWatch, Operation, ReadMany, RemoveWatch, Reply
from zkside.zk import handshake, refusals, sasl
from zkside.zk.handshake import Credentials, Ended
from zkside.zk.hosts import Address, Hosts, is_writable
from zkside.zk.jute import inside
from zkside.zk.kazoo_parts import error_text
from zkside.zk.port import Connected, ConnectionStatistics, Connector, Ending, Listener, Ticket
from zkside.zk.rearm import RearmedWatches
from zkside.zk.requests import Limits, Traffic
from zkside.zk.sasl import SaslSettings
from zkside.zk.socket import Socket
from zkside.zk.watches import EVENT_TYPES, KEEPER_STATES, PersistentWatches, read_many
from zkside.zk.wire import CloseSession

T = TypeVar("T")

_BACKOFF = Backoff(first_s=0.1, max_s=1.0)
_STABLE_S = 1.0
_MAX_CONNECT_TIMEOUT_S = 5.0
_SASL_ATTEMPTS = 3
_WRITABLE_PROBES = Backoff(first_s=1.0, max_s=30.0)


@dataclass(frozen=True, slots=True)
class KazooSettings:
    """How to reach ZooKeeper and what one connection may use."""

    hosts: str
    """'h1:2181,h2:2181/chroot'; the chroot has to exist."""
    session_timeout_s: float = 10.0
    """As asked for; the server bounds it by its own limits."""
    auth: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """(scheme, credential), such as ('digest', 'user:password')."""
    sasl: SaslSettings | None = None
    ssl_context: ssl.SSLContext | None = None
    """TLS if given. Host names are checked unless the context says otherwise."""
    read_only: bool = False
    """Whether a server that is cut off from its ensemble will do until a writable one is found."""
    connect_timeout_s: float | None = None
    """For one server; None: the session timeout divided by the number of hosts, at most 5 s."""
    max_in_flight: int = 1000
    max_queued: int = 10_000
    """Beyond what is in flight; then calls fail with Quota."""
    max_queued_bytes: int = 64 << 20
    jute_maxbuffer_bytes: int = (1 << 20) - 1
    """As the servers have it; larger requests are refused before they are sent."""
    max_reply_bytes: int = 64 << 20
    """Larger answers fail their request with TooLarge."""

    @property
    def limits(self) -> Limits:
        return Limits(
            self.max_in_flight,
            self.max_queued,
            self.max_queued_bytes,
            self.jute_maxbuffer_bytes,
            self.max_reply_bytes,
        )


def kazoo_connector(settings: KazooSettings) -> Connector:
    """Raises: StartError if the hosts make no sense or SASL lacks a package."""
    hosts = Hosts.parse(settings.hosts)
    if settings.sasl is not None:
        sasl.check(settings.sasl)
    return lambda listener, ticket: KazooConnection(settings, hosts, listener, ticket)


class KazooConnection:
    """port.Connection on real ZooKeeper."""

    def __init__(self, settings: KazooSettings, hosts: Hosts, listener: Listener, ticket: Ticket | None) -> None:
        self._settings = settings
        self._hosts = hosts
        self._listener = listener
        self._ticket = ticket
        self._resumes = ticket is not None
        self._saw_writable = ticket is not None
        self._last_zxid = ticket.last_zxid if ticket else 0
        self._limits = settings.limits
        self._traffic = Traffic()
        self._connects = 0
        self._sasl_losses = 0
        self._socket: Socket | None = None
        """Only while announced as connected."""
        self._opening: Socket | None = None
        self._watches: PersistentWatches | RearmedWatches = PersistentWatches(self._emit, self._rearm)
        self._early: list[WatchedEvent] = []
        self._last_address: Address | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._over: str | None = None
        """Why nothing more is done."""

    # --- port.Connection

    @property
    def last_zxid(self) -> int:
        socket = self._socket
        return self._last_zxid if socket is None else socket.last_zxid

    def start(self) -> None:
        if self._task is None and self._over is None:
            self._task = asyncio.get_running_loop().create_task(self._supervise(), name="zookeeper connection")

    def call(self, operation: Operation[T], *, yields: bool = False) -> asyncio.Future[Reply[T]]:
        socket = self._socket
        if socket is None or self._closing:
            return self._refuse()
        if isinstance(operation, ReadMany):
            return read_many(socket, operation, yields=yields)
        if isinstance(operation, AddWatch):
            return self._watches.add(socket, operation)
        if isinstance(operation, RemoveWatch):
            return self._watches.remove(socket, operation)
        return socket.requests.call(operation, yields=yields)

    async def close(self, *, within_s: float) -> None:
        if self._over is not None:
            return
        self._closing = True
        try:
            async with asyncio.timeout(within_s):
                await self._close_session()
            self._end(Ending.CLOSED, "closed")
        except TimeoutError:
            self._end(Ending.CLOSED, f"no answer to the closing within {within_s} s; the session will expire")
        finally:
            self.abandon()
            if self._task is not None:
                await asyncio.wait({self._task})

    def abandon(self) -> None:
        if self._over is None:
            self._stop("abandoned")

    def statistics(self) -> ConnectionStatistics:
        socket, traffic = self._socket, self._traffic
        return ConnectionStatistics(
            in_flight=socket.requests.in_flight if socket else 0,
            queued=socket.requests.queued if socket else 0,
            sent=traffic.sent,
            received_bytes=traffic.received_bytes,
            sent_bytes=traffic.sent_bytes,
            events=traffic.events,
            connects=self._connects,
            refused=traffic.refused,
            errors=traffic.errors,
        )

    # --- the life of the session

    async def _supervise(self) -> None:
        """Keep connecting until the session is over. Nothing that goes wrong inside ends it for good (S7)."""
        failures = 0
        while self._over is None:
            try:
                stable = await self._one_connection()
            except Ended as ended:
                self._end(Ending.CLOSED if self._closing else ended.ending, ended.reason)
                return
            # A listener that raised, or a mistake of ours: the connection that met it is cut, the next one
            # starts afresh, and the session lives on.
            except Exception as error:
                self._traffic.errors += 1
                log.connection_rebuilt(error=error)
                self._cut(f"{type(error).__name__}: {error}")
                stable = False
            failures = 0 if stable else failures + 1
            if failures:
                await asyncio.sleep(_BACKOFF.delay_s(failures - 1, random.random()))

    async def _one_connection(self) -> bool:
        """Try every server once; live with the first that takes us. Returns whether that went well for a while."""
        async with contextlib.aclosing(self._hosts.one_round(self._last_address)) as addresses:
            async for address in addresses:
                self._last_address = address
                try:
                    session = await self._open(address)
                except handshake.FAILURES as error:
                    log.connection_failed(server=str(address), error=error)
                else:
                    return await self._live(self._announce(address, session), session)
        return False

    async def _live(self, socket: Socket, session: handshake.Session) -> bool:
        """Until the connection is lost; whether it lasted."""
        loop = asyncio.get_running_loop()
        since_s = loop.time()
        if session.read_only:
            await self._look_for_writable(socket)
        # Not awaited itself: cancelling the task would mark a socket as closed that is not.
        await asyncio.wait({socket.closed})
        if not self._saw_writable:
            raise Ended(Ending.EXPIRED, "a session made by a read-only server ends with its connection")
        return loop.time() - since_s >= _STABLE_S

    async def _open(self, address: Address) -> handshake.Session:
        """A socket in `self._opening` with everything done but the announcement."""
        settings = self._settings
        within_s = settings.connect_timeout_s or min(
            _MAX_CONNECT_TIMEOUT_S, settings.session_timeout_s / len(self._hosts.names)
        )
        self._early.clear()

        def make() -> Socket:
            self._opening = Socket(self, self._hosts.chroot, self._limits, self._last_zxid, self._traffic)
            return self._opening

        try:
            socket = await handshake.open_socket(make, address, settings.ssl_context, within_s)
            session = await handshake.take_up_session(
                socket, self._ticket, settings.session_timeout_s, within_s, read_only=settings.read_only
            )
            # Even if the rest fails: the session exists, and is to be taken up on the next server.
            self._ticket = session.ticket
            self._saw_writable = self._saw_writable or not session.read_only
            if self._closing:
                await socket.requests.ask(CloseSession())
                raise Ended(Ending.CLOSED, "closed")
            await self._authenticate(socket, address)
            await self._restore_watches(socket)
        except BaseException as error:
            if self._opening is not None:
                self._opening.drop(f"not taken up: {error}")
                self._opening = None
            raise
        return session

    async def _authenticate(self, socket: Socket, address: Address) -> None:
        credentials = Credentials(self._settings.auth, self._settings.sasl)
        try:
            await handshake.authenticate(socket, address.name, credentials)
        except errors.ConnectionLoss as error:
            # Servers may just hang up on wrong credentials, and a server may die at this moment too.
            self._sasl_losses += credentials.sasl is not None
            if self._sasl_losses >= _SASL_ATTEMPTS:
                text = f"{_SASL_ATTEMPTS} times in a row the connection was lost while authenticating"
                raise Ended(Ending.AUTH_FAILED, text) from error
            raise
        self._sasl_losses = 0

    async def _restore_watches(self, socket: Socket) -> None:
        if isinstance(self._watches, PersistentWatches):
            if not self._watches.recursive:
                return
            with contextlib.suppress(errors.NotSupported):
                await self._watches.restore(socket)
                return
            self._watches = RearmedWatches(self._emit, socket, self._watches.recursive)
        await self._watches.restore(socket)

    def _announce(self, address: Address, session: handshake.Session) -> Socket:
        socket, self._opening = self._opening, None
        assert socket is not None
        if socket.closed.done():  # lost in the very moment; the early end is heard of by nobody
            return socket
        self._connects += 1
        resumed, self._resumes = self._resumes, True
        self._ticket = Ticket(session.ticket.session_id, session.ticket.password, socket.last_zxid)
        self._socket = socket
        socket.settle()
        timeout_s = session.negotiated_timeout_s
        self._listener.connected(Connected(self._ticket, timeout_s, str(address), session.read_only, resumed))
        early, self._early = self._early, []
        for event in early:
            self._listener.event(event)
        return socket

    async def _look_for_writable(self, socket: Socket) -> None:
        """While a read-only server has us: ask the others, and leave for the first that takes writes."""
        for attempt in itertools.count():
            await asyncio.wait({socket.closed}, timeout=_WRITABLE_PROBES.delay_s(attempt, random.random()))
            async with contextlib.aclosing(self._hosts.one_round(self._last_address)) as addresses:
                async for address in addresses:
                    if socket.closed.done():
                        return
                    if await is_writable(address, self._settings.ssl_context, within_s=1.0):
                        socket.drop(f"{address} takes writes")
                        return

    async def _close_session(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(errors.ConnectionLoss, errors.SessionSuspended):
                await self._socket.requests.ask(CloseSession())
                return
        if self._task is not None and self._ticket is not None:
            await asyncio.wait({self._task})

    def _end(self, ending: Ending, reason: str) -> None:
        if self._over is None:
            self._over = reason
            try:
                self._listener.ended(ending, reason)
            finally:
                self._stop(reason, errors.SessionLost(reason))

    def _stop(self, reason: str, failure: errors.ZksideError | None = None) -> None:
        self._over = reason
        socket, self._socket = self._socket, None
        if socket is not None:
            self._last_zxid = socket.last_zxid
            socket.drop(reason, failure)
        if self._opening is not None:
            self._opening.drop(reason)
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    def _cut(self, reason: str) -> None:
        if self._socket is not None:
            self._socket.drop(reason)

    def _refuse(self) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._over is not None or self._closing:
            future.set_exception(errors.SessionLost(f"the session is over: {self._over or 'closing'}"))
        else:
            future.set_exception(errors.SessionSuspended())
        return future

    # --- socket.Owner

    def acknowledged(self, operation: Operation[Any] | None, sent_boottime_ns: int) -> None:
        if self._socket is not None:
            self._listener.acknowledged(operation, sent_boottime_ns)

    def heard_event(self, kind: int, state: int, path: str, zxid: int, since: int) -> None:
        below = inside(path, self._hosts.chroot)
        event_type = EVENT_TYPES.get(kind)
        if below and event_type is not None:
            self._watches.heard(event_type, KEEPER_STATES[state], below, zxid, since)

    def lost(self, socket: Socket, reason: str) -> None:
        self._last_zxid = max(self._last_zxid, socket.last_zxid)
        if socket is self._socket:
            self._socket = None
            self._listener.suspended(reason)

    def session_refused(self, code: int) -> None:
        if code == refusals.SESSION_MOVED:
            self._cut("the session moved to another server")
        elif code in (refusals.AUTH_FAILED, refusals.SASL_REQUIRED):
            self._end(Ending.AUTH_FAILED, error_text(code))
        else:
            self._end(Ending.EXPIRED, error_text(code))

    # --- watches

    def _emit(self, event: WatchedEvent) -> None:
        if self._socket is None:
            self._early.append(event)
        else:
            self._listener.event(event)

    def _rearm(self, operation: AddWatch, future: asyncio.Future[Any]) -> None:
        """The server has no persistent watches: from now on they are made of one-shot ones."""
        if isinstance(self._watches, PersistentWatches) and self._socket is not None:
            log.connection_watches_emulated()
            self._watches = RearmedWatches(self._emit, self._socket, {})
        if isinstance(self._watches, RearmedWatches):
            self._watches.add_for(operation, future)
