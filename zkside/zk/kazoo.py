"""The real backend of the port: a ZooKeeper session as a native asyncio client.

It stands on kazoo's serialisers, error codes and security helpers (zk/kazoo_parts.py), not on kazoo's threaded client;
docs/adr/0001 says why. One task connects (zk/dialing.py), hands the session to one `Socket` after the other, and goes
on until the session is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from dataclasses import dataclass, field
from typing import Any, TypeVar

from zkside import errors, log
from zkside.core.backoff import Backoff
from zkside.model.event import WatchedEvent
from zkside.model.operation import OPEN_ACL, Acl, AddWatch, Operation, ReadMany, RemoveWatch, Reply
from zkside.supervisor import Permanent, Supervisor
from zkside.zk import chroot, handshake, refusals, sasl
from zkside.zk.dialing import Context, Dialer, Round, Unreachable, is_writable
from zkside.zk.handshake import Credentials, Ended
from zkside.zk.hosts import Address, Hosts
from zkside.zk.jute import inside
from zkside.zk.kazoo_parts import error_text
from zkside.zk.names import Lookup, Names, ask_the_system
from zkside.zk.port import Connected, ConnectionStatistics, Connector, Ending, Listener, Ticket
from zkside.zk.rearm import RearmedWatches
from zkside.zk.requests import Limits, Traffic, boottime_ns
from zkside.zk.sasl import SaslSettings
from zkside.zk.socket import Socket
from zkside.zk.tls import server_name
from zkside.zk.watches import EVENT_TYPES, KEEPER_STATES, PersistentWatches, read_many
from zkside.zk.wire import CloseSession

T = TypeVar("T")

_BACKOFF = Backoff(first_s=0.1, max_s=1.0)
_STABLE_S = 1.0
_MIN_HANDSHAKE_S = 0.3
_MAX_HANDSHAKE_S = 5.0
_SASL_ATTEMPTS = 3
_WRITABLE_PROBES = Backoff(first_s=1.0, max_s=30.0)


@dataclass(frozen=True, slots=True)
class KazooSettings:
    """How to reach ZooKeeper and what one connection may use."""

    hosts: str
    """'h1:2181,h2:2181/chroot'."""
    create_chroot: bool = False
    """Whether the chroot is made if it is not there; otherwise it is waited for."""
    chroot_acl: tuple[Acl, ...] = OPEN_ACL
    session_timeout_s: float = 10.0
    """As asked for; the server bounds it by its own limits."""
    auth: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """(scheme, credential), such as ('digest', 'user:password')."""
    sasl: SaslSettings | None = None
    ssl_context: Context | None = None
    """TLS if given; asked anew for each attempt. Host names are checked unless the context says otherwise."""
    read_only: bool = False
    """Whether a server that is cut off from its ensemble will do until a writable one is found."""
    connect_timeout_s: float | None = None
    """For one server: TCP and TLS, and once more for the session. None: 5 s, but for the session a share of what is
    left of it."""
    lookup: Lookup = ask_the_system
    """How names become addresses."""
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


def kazoo_connector(settings: KazooSettings, supervisor: Supervisor | None = None) -> Connector:
    """Raises: StartError if the hosts make no sense or SASL lacks a package."""
    supervisor = supervisor or Supervisor()
    hosts = Hosts.parse(settings.hosts)
    if settings.sasl is not None:
        sasl.check(settings.sasl)
    dialer = Dialer(hosts, settings.ssl_context, Names(hosts.names, settings.lookup))
    return lambda listener, ticket: KazooConnection(settings, dialer, listener, ticket, supervisor)


class KazooConnection:
    """port.Connection on real ZooKeeper."""

    def __init__(
        self, settings: KazooSettings, dialer: Dialer, listener: Listener, ticket: Ticket | None, supervisor: Supervisor
    ) -> None:
        self._settings = settings
        self._supervisor = supervisor
        self._dialer = dialer
        self._hosts = dialer.hosts
        self._listener = listener
        self._ticket = ticket
        self._resumes = ticket is not None
        self._saw_writable = ticket is not None
        self._timeout_s = settings.session_timeout_s
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
        self._address: Address | None = None
        """Of the server that has us, or was asked last."""
        self._until_ns = 0
        """When the session ends if nothing more is heard; 0 before it was taken up."""
        self._task: Permanent | None = None
        self._closing = False
        self._leaving = asyncio.Event()
        self._over: str | None = None
        """Why nothing more is done."""

    # --- port.Connection

    @property
    def last_zxid(self) -> int:
        socket = self._socket
        return self._last_zxid if socket is None else socket.last_zxid

    def start(self) -> None:
        if self._task is None and self._over is None:
            # Whoever dies with a connection at hand leaves it to the next, which makes another: SUSPENDED tells.
            self._task = self._supervisor.start("connection", self._supervise, lambda: self._cut("its task died"))

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
                await self._task.wait()

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
            connecting=self._dialer.statistics(),
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
        attempt = self._dialer.begin()
        while True:
            try:
                attempt_s = self._settings.connect_timeout_s
                socket, address = await attempt.next_socket(self._make, attempt_s, self._left_s())
            except Unreachable as error:
                self._dialer.note(str(error))
                return False
            self._opening = socket
            try:
                session = await self._open(socket, address, attempt)
            except handshake.FAILURES as error:
                attempt.failed(address, "session", error)
                self._dialer.avoid(address if isinstance(error, TimeoutError) else None)
            else:
                return await self._live(self._announce(address, session), session)

    def _left_s(self) -> float:
        """How long it makes sense to try: the session's rest, or a whole timeout where none is going on."""
        left_s = (self._until_ns - boottime_ns()) / 1e9
        return left_s if left_s > _MIN_HANDSHAKE_S else self._settings.session_timeout_s

    async def _live(self, socket: Socket, session: handshake.Session) -> bool:
        """Until the connection is lost; whether it lasted."""
        loop = asyncio.get_running_loop()
        since_s = loop.time()
        if session.read_only:
            await self._look_for_writable(socket)
        await self._look_at_chroot(socket)
        # Not awaited itself: cancelling the task would mark a socket as closed that is not.
        await asyncio.wait({socket.closed})
        if not self._saw_writable:
            raise Ended(Ending.EXPIRED, "a session made by a read-only server ends with its connection")
        return loop.time() - since_s >= _STABLE_S

    def _make(self) -> Socket:
        return Socket(self, self._hosts.chroot, self._limits, self._last_zxid, self._traffic)

    async def _open(self, socket: Socket, address: Address, attempt: Round) -> handshake.Session:
        """Do everything but the announcement with the socket that is in `self._opening`."""
        settings = self._settings
        share_s = max(_MIN_HANDSHAKE_S, self._left_s() / max(1, attempt.left))
        within_s = settings.connect_timeout_s or min(_MAX_HANDSHAKE_S, share_s)
        self._early.clear()
        self._address = address
        try:
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
            # Not before: its answer's zxid would be taken for what the watches have told already.
            await self._find_chroot(socket, address, session)
        except BaseException as error:
            socket.drop(f"not taken up: {error}")
            self._opening = None
            raise
        return session

    async def _find_chroot(self, socket: Socket, address: Address, session: handshake.Session) -> None:
        """Return when the chroot is there. A session that was going on ends if it is not: what it owned was below."""
        root, settings = self._hosts.chroot, self._settings
        if not root or await chroot.is_there(socket):
            return
        if self._resumes:
            await self._give_up(socket)
        told = chroot.missing(root)
        if settings.create_chroot and not session.read_only:
            try:
                await chroot.create(socket, root, settings.chroot_acl)
                return
            except errors.Refused as error:
                told = f"{told}, and cannot be made: {error}"
        while not await chroot.is_there(socket):
            self._dialer.failed(str(address), "chroot", told)
            self._dialer.note(told)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(chroot.INTERVAL_S):
                    await self._leaving.wait()
            if self._closing:
                await self._leave(socket)
                raise Ended(Ending.CLOSED, "closed")

    async def _give_up(self, socket: Socket) -> None:
        """The chroot is gone, and with it all that the session owned."""
        await self._leave(socket)
        text = chroot.missing(self._hosts.chroot)
        self._dialer.failed(str(self._address), "chroot", text)
        self._dialer.note(text)
        raise Ended(Ending.EXPIRED, f"{text}, nor does what the session owned below it")

    async def _authenticate(self, socket: Socket, address: Address) -> None:
        credentials = Credentials(self._settings.auth, self._settings.sasl)
        try:
            await handshake.authenticate(socket, server_name(address.name), credentials)
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
        self._dialer.worked(address)
        resumed, self._resumes = self._resumes, True
        self._ticket = Ticket(session.ticket.session_id, session.ticket.password, socket.last_zxid)
        self._socket = socket
        socket.settle()
        timeout_s = self._timeout_s = session.negotiated_timeout_s
        self._listener.connected(Connected(self._ticket, timeout_s, str(address), session.read_only, resumed))
        early, self._early = self._early, []
        for event in early:
            self._listener.event(event)
        return socket

    async def _leave(self, socket: Socket) -> None:
        with contextlib.suppress(errors.ConnectionLoss, errors.SessionSuspended):
            await socket.requests.ask(CloseSession())

    async def _look_for_writable(self, socket: Socket) -> None:
        """While a read-only server has us: ask the others, and leave for the first that takes writes."""
        for attempt in itertools.count():
            await asyncio.wait({socket.closed}, timeout=_WRITABLE_PROBES.delay_s(attempt, random.random()))
            for address in await self._dialer.addresses():
                if socket.closed.done():
                    return
                if await is_writable(address, self._settings.ssl_context, within_s=1.0):
                    socket.drop(f"{address} takes writes")
                    return

    async def _look_at_chroot(self, socket: Socket) -> None:
        """Until the connection is lost: the session ends when the chroot has gone."""
        while self._hosts.chroot and not socket.closed.done():
            await asyncio.wait({socket.closed}, timeout=chroot.LOOK_S)
            with contextlib.suppress(errors.ConnectionLoss, errors.SessionSuspended):
                if not await chroot.is_there(socket):
                    await self._give_up(socket)

    async def _close_session(self) -> None:
        self._leaving.set()
        if self._socket is not None:
            await self._leave(self._socket)
            return
        if self._task is not None and self._ticket is not None:
            await self._task.wait()

    def _end(self, ending: Ending, reason: str) -> None:
        if self._over is None:
            self._over = reason
            if ending is Ending.AUTH_FAILED:
                self._dialer.failed(str(self._address), "auth", reason)
                self._dialer.note(reason)
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
        if self._task is not None and self._task.task is not asyncio.current_task():
            self._task.stop()

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
            self._until_ns = socket.heard_ns + round(self._timeout_s * 1e9)
            if socket.went_silent:
                self._dialer.avoid(self._address)
                # The next attempt may take seconds to fail, and this is what stands in the way until then.
                self._dialer.note(f"{self._address}: {reason}")
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
