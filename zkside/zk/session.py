"""The session that outlives connections: the shell around core/session.py's table and core/lease.py's clock.

Everything happens on one event loop. Laws:

* The machine is advanced in one place (`_advance`), and every change of state is announced from there, to every
  listener, in order (GUARANTEES S2).
* A connection speaks through its `_Link`; a link that is cut is deaf for ever (S4).
* Before anything is believed the local clock is asked: each report of a connection, each call and each look
  at the status first declares LOST if it is due. A process that was stopped for a minute says LOST with its
  first breath (S3).
* What goes wrong inside ends in a new connection, never in a daemon without one (S7).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from zkside.core.backoff import Backoff
from zkside.core.lease import FAR, PING_STRENGTH, STRENGTHS, Lease, LeaseRules, Proof
from zkside.core.session import INITIAL, KEEPER_STATES, Effect, Input, advance
from zkside.errors import (
    ConnectionLoss,
    SessionLost,
    SessionSuspended,
    StartError,
    Unavailable,
    ZksideError,
)
from zkside.model.event import WatchedEvent
from zkside.model.operation import (
    Check,
    Exists,
    GetEphemerals,
    Operation,
    Reply,
    Sync,
    T,
    Transaction,
)
from zkside.model.session import SessionState, SessionStatus
from zkside.zk.announcer import Announcer
from zkside.zk.clock import Clock, SystemClock, Timer
from zkside.zk.janitor import Janitor, JanitorStatistics
from zkside.zk.journal import Journal, JournalStatistics
from zkside.zk.latency import Latencies, Latency
from zkside.zk.port import Connected, Connection, ConnectionStatistics, Connector, Ending, Ticket
from zkside.zk.within import Within

log = logging.getLogger(__name__)

_LOOK_INTERVAL_NS = 1_000_000_000
_RETRY = Backoff(first_s=0.1, max_s=5.0)

# An operation that each kind of proof accepts, as cheap as can be. The transaction changes nothing and needs
# no node of its own, and yet goes through the quorum like every other: a check is a write to ZooKeeper.
_PROOFS: dict[Proof, Operation[Any]] = {
    Proof.PING: Exists("/"),
    Proof.SYNC: Sync("/"),
    Proof.WRITE: Transaction((Check("/"),)),
}


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """How the session is kept. See core/lease.py for what the lease's settings mean."""

    timeout_s: float = 10.0
    """As asked for; the server may grant another. Used here only to tell when connecting takes too long."""
    proof: Proof = Proof.SYNC
    proof_interval_s: float = 0.5
    tick_s: float = 2.0
    margin_s: float | None = None
    auth_retry_s: float = 30.0
    """The longest wait before refused credentials are tried again; the first waits are shorter."""

    def __post_init__(self) -> None:
        """Raises StartError."""
        if self.timeout_s <= 0 or self.auth_retry_s <= 0:
            raise StartError("the session's timeout and its auth_retry must be more than 0 s")
        self.lease_rules()

    def lease_rules(self) -> LeaseRules:
        return LeaseRules(self.proof, self.proof_interval_s, self.tick_s, self.margin_s)


@dataclass(frozen=True, slots=True)
class SessionStatistics:
    """For metrics and the status page; what is counted is counted since the start."""

    status: SessionStatus
    last_zxid: int
    lease_remaining_s: float
    """0 while nothing is proven."""
    transitions: dict[tuple[SessionState, SessionState], int]
    latencies: dict[str, Latency]
    """From sending to answer, by operation; the wait in the daemon's own queue shows as `queued` instead."""
    connection: ConnectionStatistics | None
    """Of the present connection object."""
    ping_late_max_s: float
    """By how much the latest of pings left later than a third of the timeout after the traffic before."""
    proofs_needed: int
    """For how many proofs are being sent; none are sent when it is 0."""
    proofs_sent: int
    listener_errors: int
    rebuilds: int
    """How often the connection was made anew because something inside went wrong."""
    journal_errors: int
    janitor: JanitorStatistics
    journal: JournalStatistics


class _Link:
    """A connection's way to its session, until it is cut."""

    __slots__ = ("session",)

    def __init__(self, session: Session) -> None:
        self.session: Session | None = session

    def connected(self, connected: Connected) -> None:
        if self.session is not None:
            self.session._guarded(self.session._on_connected, self, connected)

    def suspended(self, reason: str) -> None:
        if self.session is not None:
            self.session._guarded(self.session._on_suspended, self, reason)

    def ended(self, ending: Ending, reason: str) -> None:
        if self.session is not None:
            self.session._guarded(self.session._on_ended, self, ending, reason)

    def event(self, event: WatchedEvent) -> None:
        if self.session is not None:
            self.session._on_event(self, event)

    def acknowledged(self, operation: Operation[object] | None, sent_boottime_ns: int) -> None:
        if self.session is not None:
            self.session._on_acknowledged(operation, sent_boottime_ns)


class Session:
    """The daemon's one ZooKeeper session, epoch after epoch.

    `status`, `epoch` and `lease_boottime_ns` tell the present moment: if the local deadline has passed, reading
    any of them declares LOST first. All listeners are called before that read returns, unless it is one of
    them who reads.
    """

    def __init__(
        self,
        connector: Connector,
        settings: SessionSettings,
        journal: Journal | None = None,
        clock: Clock | None = None,
    ) -> None:
        """The journal is the session's from now on: `close` closes it."""
        self.settings = settings
        self.journal = journal or Journal()
        self.janitor = Janitor(self.call, self.wait_connected)
        self._connector = connector
        self._clock = clock or SystemClock()
        self._boottime_ns = self._clock.boottime_ns
        self._auth_retry = Backoff(first_s=min(1.0, settings.auth_retry_s), max_s=settings.auth_retry_s)

        # The machine, and the moment that was announced last.
        self._state = INITIAL
        self._status = SessionStatus(
            state=INITIAL,
            keeper_state=KEEPER_STATES[INITIAL],
            session_id=0,
            epoch=self.journal.epoch,
            timeout_s=0.0,
            server="",
            read_only=False,
            reason="not started",
            sequence=0,
        )
        self._since_ns = 0
        self._announcer = Announcer()

        # The present session; id 0 means that there is none.
        self._epoch = self.journal.epoch
        self._session_id = 0
        self._ticket: Ticket | None = None
        self._timeout_s = 0.0
        self._connected: Connected | None = None
        self._is_taking_up = False
        self._lease = Lease(settings.lease_rules())
        self._within: set[Within] = set()
        self._needs: set[object] = set()

        # The present connection.
        self._link: _Link | None = None
        self._connection: Connection | None = None
        self._can_read = False
        self._can_write = False
        self._past_zxid = 0

        # What is to come.
        self._timer: Timer | None = None
        self._open_at_ns = FAR
        self._attempt = 0
        self._auth_attempt = 0
        self._waiting: set[tuple[asyncio.Future[None], bool]] = set()
        self._is_kept = False
        self._janitor_task: asyncio.Task[None] | None = None

        self._transitions: Counter[tuple[SessionState, SessionState]] = Counter()
        self._latencies = Latencies()
        self._heard_sent_ns = 0
        self._ping_late_max_ns = 0
        self._proofs_sent = 0
        self._rebuilds = 0
        self._journal_errors = 0
        self._noted_zxid_ns = 0

    # --- what the floors above ask

    @property
    def status(self) -> SessionStatus:
        self._look(self._boottime_ns())
        return self._status

    @property
    def epoch(self) -> int:
        """Of the present session, or of the last one; 0 before the first."""
        self._look(self._boottime_ns())
        return self._epoch

    @property
    def last_zxid(self) -> int:
        """The newest zxid in any reply, over all epochs."""
        connection = self._connection
        return max(self._past_zxid, connection.last_zxid) if connection is not None else self._past_zxid

    @property
    def lease_boottime_ns(self) -> int:
        """Until when this host may believe in what it owns, if it hears nothing more; 0 while nothing is
        proven, and once that instant has passed."""
        now_ns = self._boottime_ns()
        self._look(now_ns)
        lease_ns = self._lease.lease_ns
        return lease_ns if lease_ns > now_ns else 0

    def call(self, operation: Operation[T]) -> asyncio.Future[Reply[T]]:
        """Send an operation if it can be sent now. Never waits, never queues for a later connection.

        Raises (in the future): SessionSuspended without a connection, and for a write on a read-only one;
        SessionLost when the session is over; and what Connection.call raises. Nothing was sent in the first
        two cases.
        """
        if (
            (self._can_write or (self._can_read and STRENGTHS.get(type(operation), 0) == PING_STRENGTH))
            and self._boottime_ns() < self._lease.deadline_ns
            and self._connection is not None
        ):
            return self._connection.call(operation)
        future: asyncio.Future[Reply[T]] = asyncio.get_running_loop().create_future()
        future.set_exception(self._refusal())
        return future

    async def wait_connected(self, *, read_only: bool = False) -> None:
        """Return when operations can be sent; with `read_only` a connection that only reads will do.

        Raises: SessionLost when the session was closed and will not be back. Cancellation leaves nothing.
        """
        while True:
            self._look(self._boottime_ns())
            if self._can_write or (read_only and self._can_read):
                return
            if self._state is SessionState.CLOSED:
                raise SessionLost("the daemon has closed its session")
            entry = (asyncio.get_running_loop().create_future(), read_only)
            self._waiting.add(entry)
            try:
                await entry[0]
            finally:
                self._waiting.discard(entry)

    def listen(
        self,
        *,
        status: Callable[[SessionStatus], None] | None = None,
        event: Callable[[WatchedEvent], None] | None = None,
    ) -> Callable[[], None]:
        """Be told, synchronously, of every change of state and of every event of a node from now on.

        Ordering: all listeners hear all changes in the same order, the one who subscribed first first. A
        change that a listener causes is announced when all have heard the one before. Events of a connection
        come between its CONNECTED and whatever ends it, but those that its watches missed come before
        CONNECTED. A listener that raises is counted and logged, and disturbs nobody.
        Returns the way to stop it, which may be used more than once, also while being told.
        """
        return self._announcer.listen(status, event)

    def within(self, epoch: int) -> Within:
        """`async with session.within(epoch):` ends the body when that epoch ends.

        Raises: SessionLost from the block, also at once if the epoch is over. See Within.
        """

        def enter(guard: Within) -> None:
            self._look(self._boottime_ns())
            if not self._session_id or epoch != self._epoch:
                raise SessionLost(f"epoch {epoch} is over")
            self._within.add(guard)

        return Within(enter, self._within.discard)

    def need_proofs(self) -> Callable[[], None]:
        """Something is owned, or is about to be: prove the lease until what is returned was called."""
        token = object()
        now_ns = self._boottime_ns()
        self._look(now_ns)
        self._needs.add(token)
        self._lease.need(now_ns)
        if self._lease.proof_due_ns() <= now_ns:
            self._arm()

        def need_no_more() -> None:
            self._needs.discard(token)
            if not self._needs:
                self._lease.need_no_more()

        return need_no_more

    def statistics(self) -> SessionStatistics:
        status = self.status
        lease_ns = self.lease_boottime_ns
        return SessionStatistics(
            status=status,
            last_zxid=self.last_zxid,
            lease_remaining_s=(lease_ns - self._boottime_ns()) / 1e9 if lease_ns else 0.0,
            transitions=dict(self._transitions),
            latencies=self._latencies.read(),
            connection=self._connection.statistics() if self._connection is not None else None,
            ping_late_max_s=self._ping_late_max_ns / 1e9,
            proofs_needed=len(self._needs),
            proofs_sent=self._proofs_sent,
            listener_errors=self._announcer.errors,
            rebuilds=self._rebuilds,
            journal_errors=self._journal_errors,
            janitor=self.janitor.statistics(),
            journal=self.journal.statistics(),
        )

    # --- start and end

    def start(self) -> None:
        """Begin to connect, with the journal's session if it has one. Once; needs a running event loop."""
        now_ns = self._since_ns = self._boottime_ns()
        ticket = self.journal.ticket
        if ticket is not None:
            # Whatever the daemon before knew of its session, it knew it before now: so the session may be
            # believed in for one timeout from now at most.
            self._session_id, self._ticket, self._is_taking_up = ticket.session_id, ticket, True
            self._timeout_s = self.journal.timeout_s
            self._past_zxid = ticket.last_zxid
            self._lease.begin(now_ns, self._timeout_s)
            self._status = replace(
                self._status, session_id=ticket.session_id, timeout_s=self._timeout_s, reason="taking up"
            )
        self._run_janitor()
        self._guarded(self._advance, Input.OPEN, "connecting")

    async def close(self, *, keep_session: bool, within_s: float) -> None:
        """End. With `keep_session` the ZooKeeper session is left for a successor with the same journal;
        otherwise it is closed, and its ephemerals are gone at once.

        What the janitor still has to delete gets half of the time first. Cancellation: cuts the connection.
        """
        started_ns = self._boottime_ns()
        if self._can_write:
            await self.janitor.drained(within_s / 2)
        if self._state is SessionState.CLOSED:
            return
        connection, self._is_kept = self._connection, keep_session
        self._journalled(partial(self.journal.note_zxid, self.last_zxid))
        self._advance(Input.CLOSE, "closed, the session is kept" if keep_session else "closed")
        if self._timer is not None:
            self._timer.cancel()
        try:
            if self._janitor_task is not None:
                self._janitor_task.cancel()
                await asyncio.wait([self._janitor_task])
            if connection is not None and not keep_session:
                spent_s = (self._boottime_ns() - started_ns) / 1e9
                await connection.close(within_s=max(0.0, within_s - spent_s))
        finally:
            if connection is not None:
                connection.abandon()
            self.journal.close()

    # --- what the connection reports

    def _on_connected(self, link: _Link, connected: Connected) -> None:
        now_ns = self._boottime_ns()
        self._look(now_ns)
        if link is not self._link:
            return
        self._connected = connected
        if connected.read_only:
            self._advance(Input.CONNECTED_READ_ONLY, f"connected to {connected.server}, which only reads")
            return
        if self._session_id:
            if connected.ticket.session_id != self._session_id:
                self._advance(Input.EXPIRED, f"{connected.server} gave another session than the one asked for")
                return
            self._lease.connected(now_ns, connected.negotiated_timeout_s)
        if self._is_taking_up:
            self._list_orphans(link, connected)
        else:
            self._advance(Input.CONNECTED, f"connected to {connected.server}")

    def _on_suspended(self, link: _Link, reason: str) -> None:
        self._look(self._boottime_ns())
        if link is self._link:
            self._advance(Input.DISCONNECTED, reason)

    def _on_ended(self, link: _Link, ending: Ending, reason: str) -> None:
        self._look(self._boottime_ns())
        if link is self._link:
            # A session that somebody else closed is as gone as one that expired.
            given = Input.AUTH_FAILED if ending is Ending.AUTH_FAILED else Input.EXPIRED
            self._advance(given, reason or ending.value)

    def _on_event(self, link: _Link, event: WatchedEvent) -> None:
        self._look(self._boottime_ns())
        if link is self._link:
            self._announcer.tell_event(event)

    def _on_acknowledged(self, operation: Operation[object] | None, sent_ns: int) -> None:
        now_ns = self._boottime_ns()
        if now_ns >= self._lease.deadline_ns:
            # However good the news, it came too late to be believed.
            self._look(now_ns)
            return
        kind = type(operation)
        self._latencies.observe(kind, now_ns - sent_ns)
        if not self._can_write:
            # A server that only reads proves nothing, and a handshake counts as a whole (Lease.connected).
            return
        if operation is None:
            late_ns = sent_ns - self._heard_sent_ns - round(self._timeout_s / 3 * 1e9)
            self._ping_late_max_ns = max(self._ping_late_max_ns, late_ns)
        self._heard_sent_ns = max(self._heard_sent_ns, sent_ns)
        self._lease.acknowledged(STRENGTHS.get(kind, PING_STRENGTH), sent_ns)

    def _list_orphans(self, link: _Link, connected: Connected) -> None:
        """A session was taken up: nothing is announced until it is known what it owns that nobody knows of.

        Until then nobody can create anything, so that whatever is listed and not journalled is an orphan.
        `sync` comes first, lest a follower that lags behind does not list what was created last.
        """
        assert self._connection is not None
        self._connection.call(Sync("/")).add_done_callback(_forget)
        listing = self._connection.call(GetEphemerals())
        listing.add_done_callback(lambda done: self._guarded(self._on_orphans, link, connected, done))

    def _on_orphans(self, link: _Link, connected: Connected, listing: asyncio.Future[Reply[list[str]]]) -> None:
        error = None if listing.cancelled() else listing.exception()
        self._look(self._boottime_ns())
        if link is not self._link or connected is not self._connected or listing.cancelled():
            return
        if isinstance(error, ConnectionLoss | SessionSuspended | SessionLost):
            return  # The connection reports what has become of it, and the next one begins again.
        if error is not None:
            log.warning("what the session owns cannot be listed, so no orphans are deleted: %s", error)
        else:
            reply, known = listing.result(), self.journal.known_paths()
            for path in reply.value:
                if path not in known:
                    log.info("deleting the orphan %s of the daemon before", path)
                    self.janitor.delete_older(path, reply.zxid)
        self._advance(Input.CONNECTED, f"connected to {connected.server}, session taken up")

    # --- the machine

    def _look(self, now_ns: int) -> None:
        """Declare LOST if it is due."""
        if now_ns >= self._lease.deadline_ns and self._state is not SessionState.AUTH_FAILED:
            reason = f"nothing from ZooKeeper shows that the session of {self._timeout_s:g} s still lives"
            self._guarded(self._advance, Input.LEASE_PASSED, reason)

    def _advance(self, given: Input, reason: str) -> None:
        """The one place where the state changes."""
        before = self._state
        state, effects = advance(before, given)
        self._state = state
        self._since_ns = self._boottime_ns()
        if not state.is_connected:
            self._can_read = self._can_write = False
        session_id, timeout_s = self._session_id, self._timeout_s
        for effect in effects:
            self._perform(effect, reason)
        if Effect.END_EPOCH not in effects:
            session_id, timeout_s = self._session_id, self._timeout_s
        connected = self._connected if state.is_connected else None
        self._can_write = state is SessionState.CONNECTED
        self._can_read = state.is_connected
        self._status = SessionStatus(
            state=state,
            keeper_state=KEEPER_STATES[state],
            session_id=session_id,
            epoch=self._epoch,
            timeout_s=timeout_s,
            server=connected.server if connected is not None else "",
            read_only=state is SessionState.CONNECTED_READ_ONLY,
            reason=reason,
            sequence=self._status.sequence + (state is not before),
        )
        self._arm()
        if state is not before:
            self._transitions[before, state] += 1
            log.info("session %s: %s (epoch %d)", state.value, reason, self._epoch)
            self._release_waiting()
            self._announcer.tell_status(self._status)

    def _perform(self, effect: Effect, reason: str) -> None:
        match effect:
            case Effect.ABANDON:
                self._cut()
            case Effect.CONNECT:
                self._connect()
            case Effect.ADOPT:
                self._adopt()
            case Effect.END_EPOCH:
                self._end_epoch(reason)
            case Effect.RETRY:
                self._open_later(_RETRY.delay_s(self._attempt - 1, random.random()) if self._attempt else 0.0)
                self._attempt += 1
            case Effect.RETRY_SLOWLY:
                self._open_later(self._auth_retry.delay_s(self._auth_attempt, random.random()))
                self._auth_attempt += 1
            case Effect.LEAVE:
                self._deafen()

    def _connect(self) -> None:
        self._link = _Link(self)
        self._open_at_ns = FAR
        try:
            self._connection = self._connector(self._link, self._ticket)
            self._connection.start()
        except Exception:
            # Whatever it is, a daemon without a connection is of no use: try again.
            log.exception("no connection to ZooKeeper can be made; trying again")
            self._cut()
            self._plan_rebuild()

    def _adopt(self) -> None:
        connected = self._connected
        assert connected is not None
        self._ticket, self._timeout_s = connected.ticket, connected.negotiated_timeout_s
        self._attempt = self._auth_attempt = 0
        self._heard_sent_ns = self._boottime_ns()
        if not self._session_id:
            self._epoch += 1
            self._session_id = connected.ticket.session_id
            self._lease.begin(self._boottime_ns(), self._timeout_s)
            self._journalled(partial(self.journal.begin, self._epoch, self._ticket, self._timeout_s))
        elif self._is_taking_up:
            self._journalled(partial(self.journal.resume, self._ticket, self._timeout_s))
        self._is_taking_up = False
        rules = self.settings.lease_rules()
        if rules.margin_s is not None and rules.margin_s > rules.lease_margin_s(self._timeout_s):
            log.warning(
                "the lease's margin of %g s is cut to half of the session timeout of %g s that the server granted",
                rules.margin_s,
                self._timeout_s,
            )

    def _end_epoch(self, reason: str) -> None:
        if not self._session_id:
            return
        self._session_id, self._ticket, self._timeout_s, self._is_taking_up = 0, None, 0.0, False
        self._lease.end()
        guards, self._within = self._within, set()
        for guard in guards:
            guard.end(f"epoch {self._epoch} is over: {reason}")
        self.janitor.epoch_ended()
        if not self._is_kept:
            self._journalled(self.journal.end)

    def _deafen(self) -> Connection | None:
        """From now on the present connection, whatever it does, is not heard."""
        self._past_zxid = self.last_zxid
        connection, self._connection = self._connection, None
        if self._link is not None:
            self._link.session = None
        self._link = None
        self._connected = None
        self._can_read = self._can_write = False
        return connection

    def _cut(self) -> None:
        connection = self._deafen()
        if connection is not None:
            connection.abandon()

    def _journalled(self, write: Callable[[], None]) -> None:
        """A journal that cannot be written weakens the next start, not this session."""
        try:
            write()
        except Unavailable as error:
            self._journal_errors += 1
            log.error("%s", error)

    def _release_waiting(self) -> None:
        for waiting, reads in self._waiting:
            able = self._can_write or (reads and self._can_read) or self._state is SessionState.CLOSED
            if able and not waiting.done():
                waiting.set_result(None)

    def _refusal(self) -> ZksideError:
        self._look(self._boottime_ns())
        if self._state in (SessionState.LOST, SessionState.CLOSED):
            return SessionLost(f"the session is {self._state.value}: {self._status.reason}")
        if self._can_read:
            return SessionSuspended("connected to a server that only reads; nothing was sent")
        return SessionSuspended(f"not connected to ZooKeeper ({self._status.reason}); nothing was sent")

    # --- time

    def _arm(self) -> None:
        """Wake up when something is due, and every second: the event loop's clock stands still while the
        machine sleeps, so that a longer wait could end late by as long."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._state is SessionState.CLOSED:
            return
        at_ns = min(self._boottime_ns() + _LOOK_INTERVAL_NS, self._open_at_ns)
        if self._state is not SessionState.AUTH_FAILED:
            at_ns = min(at_ns, self._lease.deadline_ns)
        if self._can_write:
            at_ns = min(at_ns, self._lease.proof_due_ns())
        self._timer = self._clock.call_at(at_ns, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._guarded(self._do_what_is_due)
        self._arm()

    def _do_what_is_due(self) -> None:
        now_ns = self._boottime_ns()
        self._look(now_ns)
        if now_ns >= self._open_at_ns:
            self._open_at_ns = FAR
            self._advance(Input.OPEN, "connecting")
        if self._can_write and self._connection is not None and now_ns >= self._lease.proof_due_ns():
            self._lease.proof_sent(now_ns)
            self._proofs_sent += 1
            self._connection.call(_PROOFS[self.settings.proof]).add_done_callback(_forget)
        if now_ns - self._noted_zxid_ns >= _LOOK_INTERVAL_NS:
            self._noted_zxid_ns = now_ns
            if self._session_id:
                self._journalled(partial(self.journal.note_zxid, self.last_zxid))
        self._watch_over(now_ns)

    def _watch_over(self, now_ns: int) -> None:
        """A connection object that says nothing for three timeouts while it should be connecting is broken."""
        if self._connection is None or self._state.is_connected:
            return
        patience_s = 3 * max(self._timeout_s, self.settings.timeout_s)
        if now_ns - self._since_ns > patience_s * 1e9:
            log.warning("no connection to ZooKeeper for %g s, making a new one", patience_s)
            self._rebuild()

    def _guarded(self, act: Callable[..., None], *arguments: object) -> None:
        """An error of our own ends in a new connection inside the same session."""
        try:
            act(*arguments)
        except Exception:
            log.exception("the session met an error of its own; making a new connection")
            self._rebuild()

    def _rebuild(self) -> None:
        self._rebuilds += 1
        self._cut()
        if self._state.is_connected:
            self._advance(Input.DISCONNECTED, "the connection is made anew after an internal error")
        self._plan_rebuild()

    def _plan_rebuild(self) -> None:
        if self._state is not SessionState.CLOSED and self._open_at_ns == FAR:
            self._open_later(_RETRY.delay_s(self._attempt, random.random()))
            self._attempt += 1

    def _open_later(self, delay_s: float) -> None:
        self._open_at_ns = self._boottime_ns() + round(delay_s * 1e9)

    def _run_janitor(self) -> None:
        self._janitor_task = asyncio.create_task(self.janitor.run(), name="zkside janitor")
        self._janitor_task.add_done_callback(self._on_janitor_done)

    def _on_janitor_done(self, task: asyncio.Task[None]) -> None:
        if self._state is SessionState.CLOSED or task.cancelled():
            _forget(task)
            return
        log.error("the janitor failed and begins again", exc_info=task.exception())
        self._clock.call_at(self._boottime_ns() + _LOOK_INTERVAL_NS, self._run_janitor)


def _forget(done: asyncio.Future[Reply[T]] | asyncio.Task[None]) -> None:
    """Its outcome is told elsewhere; an error is taken note of here so that asyncio does not report it."""
    if not done.cancelled():
        done.exception()
