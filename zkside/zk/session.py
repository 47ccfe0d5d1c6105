"""The session that outlives connections: the shell around core/session.py's table and core/lease.py's clock.

Everything happens on one event loop. Laws:

* The machine is advanced in one place (`_advance`), and every change of state is announced from there, to every
  listener, in order (GUARANTEES S2).
* A connection speaks through its Link; one that is cut is deaf for ever (S4).
* Before anything is believed the local clock is asked: each report of a connection, each call and each look
  at the status first declares LOST if it is due. A process that was stopped for a minute says LOST with its
  first breath (S3).
* What goes wrong inside ends in a new connection, never in a daemon without one (S7).
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from zkside import log
from zkside.core.backoff import Backoff
from zkside.core.lease import FAR, PING_STRENGTH, PROOFS, STRENGTHS
from zkside.core.lows import Lows
from zkside.core.session import INITIAL, KEEPER_STATES, Effect, Input, advance
from zkside.errors import ConnectionLoss, SessionLost, SessionSuspended, Unavailable, ZksideError
from zkside.model.event import WatchedEvent
from zkside.model.operation import Operation, Reply, T
from zkside.model.session import SessionState, SessionStatus
from zkside.supervisor import Supervisor
from zkside.zk import arrival
from zkside.zk.announcer import Announcer
from zkside.zk.clock import Clock, SystemClock, Timer
from zkside.zk.epoch import Epoch
from zkside.zk.history import History
from zkside.zk.janitor import Janitor
from zkside.zk.journal import Journal
from zkside.zk.latency import Latencies
from zkside.zk.line import Line, Link, tell
from zkside.zk.port import Connected, Connector, Ending
from zkside.zk.session_values import SAY, SessionSettings, SessionStatistics
from zkside.zk.within import Within

__all__ = ["Session", "SessionSettings", "SessionStatistics"]

_LOOK_INTERVAL_NS = 1_000_000_000
_RETRY = Backoff(first_s=0.1, max_s=5.0)


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
        supervisor: Supervisor | None = None,
    ) -> None:
        """The journal is the session's from now on: `close` closes it. The supervisor is for all that runs on it."""
        self.settings = settings
        self.supervisor = supervisor or Supervisor()
        self.journal = journal or Journal()
        self.janitor = Janitor(self.call, self.wait_connected)
        self.clock = clock or SystemClock()
        self._boottime_ns = self.clock.boottime_ns
        self._auth_retry = Backoff(first_s=min(1.0, settings.auth_retry_s), max_s=settings.auth_retry_s)
        self._epoch = Epoch(self.journal, settings.lease_rules())
        self._lease = self._epoch.lease
        self._lows = Lows()
        self.history = History(self.journal)
        self._line = Line(connector, self, self.history)
        self.connecting = self._line.connecting
        self._connected: Connected | None = None
        self._needs: set[object] = set()

        self._state = INITIAL
        self._since_ns = 0
        epoch, history = self._epoch.number, self.history.number
        self._status = SessionStatus(
            INITIAL, KEEPER_STATES[INITIAL], 0, epoch, 0.0, "", False, "not started", 0, history
        )
        self._announcer = Announcer()
        self._readable, self._writable = asyncio.Event(), asyncio.Event()
        # What the gates say, ready to hand: `call` is on every request's way.
        self._can_read = self._can_write = False
        self._is_listing = False
        """A session was taken up, and is not announced yet: what it owns is being listed."""

        self._timer: Timer | None = None
        self._open_at_ns = FAR
        self._attempt = self._auth_attempt = 0
        self._is_kept = False

        self._transitions: Counter[tuple[SessionState, SessionState]] = Counter()
        self._latencies = Latencies()
        self._heard_sent_ns = self._noted_zxid_ns = 0
        self._ping_late_max_ns = self._proofs_sent = self._rebuilds = 0

    # --- what the floors above ask

    @property
    def status(self) -> SessionStatus:
        self._look(self._boottime_ns())
        return self._status

    @property
    def epoch(self) -> int:
        """Of the present session, or of the last one; 0 before the first."""
        self._look(self._boottime_ns())
        return self._epoch.number

    @property
    def last_zxid(self) -> int:
        """The newest zxid in any reply, over all epochs of the present history."""
        return self._line.last_zxid

    def doubt_history(self, reason: str) -> None:
        """What was read contradicts what was read before: end this session; the next begins a new history."""
        self.history.doubt(reason)
        if self._state.is_connected:
            self._guarded(self._advance, Input.EXPIRED, reason)

    @property
    def lease_boottime_ns(self) -> int:
        """Until when this host may believe in what it owns, if it hears nothing more; 0 while nothing is
        proven, and once that instant has passed."""
        now_ns = self._boottime_ns()
        self._look(now_ns)
        lease_ns = self._lease.lease_ns
        return lease_ns if lease_ns > now_ns else 0

    def call(self, operation: Operation[T], *, yields: bool = False) -> asyncio.Future[Reply[T]]:
        """Send an operation if it can be sent now, with `yields` behind the session's own. None waits for a connection.

        Raises (in the future): SessionSuspended without a connection, and for a write on a read-only one;
        SessionLost when the session is over; and what Connection.call raises. Nothing was sent in the first
        two cases.
        """
        if (
            (self._can_write or (self._can_read and STRENGTHS.get(type(operation), 0) == PING_STRENGTH))
            and self._boottime_ns() < self._lease.deadline_ns
            and (connection := self._line.connection) is not None
        ):
            return connection.call(operation, yields=yields)
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
            await (self._readable if read_only else self._writable).wait()

    def listen(
        self,
        *,
        status: Callable[[SessionStatus], None] | None = None,
        event: Callable[[WatchedEvent], None] | None = None,
    ) -> Callable[[], None]:
        """Be told, synchronously, of every change of state and of every event of a node from now on.

        Ordering: all listeners hear all changes in the same order, the one who subscribed first first. A
        change that a listener causes is announced when all have heard the one before. Events of a connection
        come between its CONNECTED and whatever ends it. A listener that raises is counted and logged, and
        disturbs nobody.
        Returns the way to stop it, which may be used more than once, also while being told.
        """
        return self._announcer.listen(status, event)

    def within(self, epoch: int) -> Within:
        """`async with session.within(epoch):` ends the body when that epoch ends.

        Raises: SessionLost from the block, also at once if the epoch is over. See Within.
        """
        return self._epoch.within(epoch, lambda: self._look(self._boottime_ns()))

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
                self._lows.ended(self._boottime_ns())

        return need_no_more

    def statistics(self) -> SessionStatistics:
        status = self.status
        lease_ns, now_ns = self.lease_boottime_ns, self._boottime_ns()
        lowest_ns = self._lows.lowest_ns(now_ns)
        return SessionStatistics(
            status=status,
            last_zxid=self.last_zxid,
            lease_remaining_s=max(0, lease_ns - now_ns) / 1e9,
            lease_lowest_s=None if lowest_ns is None else lowest_ns / 1e9,
            transitions=dict(self._transitions),
            latencies=self._latencies.read(),
            connection=self._line.statistics(),
            connecting=self._line.connecting(),
            ping_late_max_s=self._ping_late_max_ns / 1e9,
            proofs_needed=len(self._needs),
            proofs_sent=self._proofs_sent,
            listener_errors=self._announcer.errors,
            history_changes=self.history.changes,
            rebuilds=self._rebuilds,
            janitor=self.janitor.statistics(),
            journal=self.journal.statistics(),
        )

    # --- start and end

    def start(self) -> None:
        """Begin to connect, with the journal's session if it has one. Once; needs a running event loop."""
        now_ns = self._since_ns = self._boottime_ns()
        self._epoch.take_up(now_ns)
        self.janitor.start(self.supervisor)
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
        connection, self._is_kept = self._line.connection, keep_session
        self._epoch.note_zxid(self.last_zxid)
        self._advance(Input.CLOSE, "closed, the session is kept" if keep_session else "closed")
        try:
            await self.janitor.stop()
            if connection is not None and not keep_session:
                spent_s = (self._boottime_ns() - started_ns) / 1e9
                await connection.close(within_s=max(0.0, within_s - spent_s))
        finally:
            if connection is not None:
                connection.abandon()
            self.journal.close()

    # --- what the connection reports (line.Reports)

    def on_connected(self, link: Link, connected: Connected) -> None:
        self._guarded(self._take_connected, link, connected)

    def on_suspended(self, link: Link, reason: str) -> None:
        self._report(link, Input.DISCONNECTED, reason)

    def on_ended(self, link: Link, ending: Ending, reason: str) -> None:
        # A session that somebody else closed is as gone as one that expired.
        given = Input.AUTH_FAILED if ending is Ending.AUTH_FAILED else Input.EXPIRED
        self._report(link, given, reason or ending.value)

    def on_event(self, link: Link, event: WatchedEvent) -> None:
        self._look(self._boottime_ns())
        if link.is_live:
            self._announcer.tell_event(event)

    def on_acknowledged(self, link: Link, operation: Operation[object] | None, sent_ns: int) -> None:
        now_ns = self._boottime_ns()
        if now_ns >= self._lease.deadline_ns:
            # However good the news, it came too late to be believed.
            self._look(now_ns)
            return
        kind = type(operation)
        self._latencies.observe(kind, now_ns - sent_ns)
        if not (self._can_write or self._is_listing):
            # A server that only reads proves nothing, and a handshake counts as a whole (Lease.connected).
            return
        if operation is None and self._can_write:
            late_ns = sent_ns - self._heard_sent_ns - round(self._epoch.timeout_s / 3 * 1e9)
            self._ping_late_max_ns = max(self._ping_late_max_ns, late_ns)
        self._heard_sent_ns = max(self._heard_sent_ns, sent_ns)
        lease_ns = self._lease.lease_ns
        self._lease.acknowledged(STRENGTHS.get(kind, PING_STRENGTH), sent_ns)
        if self._needs and self._lease.lease_ns != lease_ns:
            self._lows.moved(now_ns, self._lease.lease_ns)

    def _report(self, link: Link, given: Input, reason: str) -> None:
        self._look(self._boottime_ns())
        if link.is_live:
            self._guarded(self._advance, given, reason)

    def _take_connected(self, link: Link, connected: Connected) -> None:
        now_ns = self._boottime_ns()
        self._look(now_ns)
        if not link.is_live:
            return
        session_id, server = self._epoch.session_id, connected.server
        if session_id and connected.ticket.session_id != session_id:
            self._advance(Input.EXPIRED, f"{server} gave another session than the one that was going on")
            return
        self._connected = connected
        if connected.read_only:
            self._advance(Input.CONNECTED_READ_ONLY, f"connected to {server}, which only reads")
            return
        if session_id:
            self._lease.connected(now_ns, connected.negotiated_timeout_s)
        self._ask_on_arrival(link, connected)

    def _ask_on_arrival(self, link: Link, connected: Connected) -> None:
        """Ask what has to be known before the connection is announced; once more if it was refused for the moment."""
        if not link.is_live or connected is not self._connected:
            return
        asked = arrival.ask(self._line, self._epoch, self.history, self.settings.proof if self._needs else None)
        if asked is None:
            self._advance(Input.CONNECTED, f"connected to {connected.server}")
            return
        self._is_listing = self._epoch.is_taking_up
        asked.add_done_callback(lambda done: self._guarded(self._take_answer, link, connected, done))

    def _take_answer(self, link: Link, connected: Connected, asked: asyncio.Future[Any]) -> None:
        error = asyncio.CancelledError() if asked.cancelled() else asked.exception()
        self._look(self._boottime_ns())
        if not link.is_live or connected is not self._connected:
            return
        if isinstance(error, ConnectionLoss | SessionSuspended | SessionLost):
            return  # The connection reports what has become of it, and the next one begins again.
        if isinstance(error, Unavailable):  # throttled: orphans that nobody lists block queues (H6)
            at_ns = self._boottime_ns() + round(_RETRY.first_s * 1e9)
            self.clock.call_at(at_ns, lambda: self._guarded(self._ask_on_arrival, link, connected))
            return
        if self._epoch.is_taking_up:
            arrival.delete_orphans(asked, self.journal, self.janitor)
        else:
            self._line.judge(error)
        how = ", session taken up" if self._epoch.is_taking_up else ""
        self._advance(Input.CONNECTED, f"connected to {connected.server}{how}")

    # --- the machine

    def _look(self, now_ns: int) -> None:
        """Declare LOST if it is due."""
        if now_ns >= self._lease.deadline_ns and self._state is not SessionState.AUTH_FAILED:
            reason = f"nothing from ZooKeeper shows that the session of {self._epoch.timeout_s:g} s still lives"
            self._guarded(self._advance, Input.LEASE_PASSED, reason)

    def _advance(self, given: Input, reason: str) -> None:
        """The one place where the state changes."""
        before, epoch = self._state, self._epoch
        state, effects = advance(before, given)
        self._state = state
        self._since_ns = self._boottime_ns()
        self._can_read = self._can_write = self._is_listing = False
        # LOST is told with the session that was lost.
        lost = (epoch.session_id, epoch.timeout_s) if Effect.END_EPOCH in effects else None
        for effect in effects:
            self._perform(effect, reason)
        session_id, timeout_s = lost or (epoch.session_id, epoch.timeout_s)
        self._can_write = state is SessionState.CONNECTED
        self._can_read = state.is_connected
        self._status = SessionStatus(
            state=state,
            keeper_state=KEEPER_STATES[state],
            session_id=session_id,
            epoch=epoch.number,
            timeout_s=timeout_s,
            server=self._connected.server if self._connected is not None and state.is_connected else "",
            read_only=state is SessionState.CONNECTED_READ_ONLY,
            reason=reason,
            sequence=self._status.sequence + (state is not before),
            history=self.history.number,
        )
        self._arm()
        if state is not before:
            self._transitions[before, state] += 1
            SAY[state](reason=reason, epoch=epoch.number, session_id=self._status.session_id_hex)
            for gate, is_open in ((self._writable, self._can_write), (self._readable, self._can_read)):
                if is_open or state is SessionState.CLOSED:
                    gate.set()
                else:
                    gate.clear()
            self._announcer.tell_status(self._status)

    def _perform(self, effect: Effect, reason: str) -> None:
        match effect:
            case Effect.ABANDON:
                self._line.cut()
            case Effect.CONNECT:
                self._connect()
            case Effect.ADOPT:
                assert self._connected is not None
                self._attempt = self._auth_attempt = 0
                self._heard_sent_ns = self._boottime_ns()
                self._epoch.adopt(self._boottime_ns(), self._connected)
            case Effect.END_EPOCH:
                self._lows.ended(self._boottime_ns())
                self._epoch.end(reason, forget=not self._is_kept)
                self.janitor.epoch_ended()
            case Effect.RETRY:
                self._open_later(_RETRY.delay_s(self._attempt - 1, random.random()) if self._attempt else 0.0)
                self._attempt += 1
            case Effect.RETRY_SLOWLY:
                self._open_later(self._auth_retry.delay_s(self._auth_attempt, random.random()))
                self._auth_attempt += 1
            case Effect.LEAVE:
                self._line.deafen()

    def _connect(self) -> None:
        self._open_at_ns = FAR
        try:
            self._line.open(self._epoch.ticket)
        except Exception as error:
            # Whatever it is, a daemon without a connection is of no use: try again.
            log.session_no_connection(error=error)
            self._rebuild()

    def _refusal(self) -> ZksideError:
        self._look(self._boottime_ns())
        if self._state in (SessionState.LOST, SessionState.CLOSED):
            return SessionLost(f"the session is {self._state.value}: {self._status.reason}")
        what = "connected to a server that only reads" if self._can_read else f"not connected: {self._status.reason}"
        return SessionSuspended(f"{what}; nothing was sent")

    # --- time

    def _arm(self) -> None:
        """Wake up when something is due, and every second: the event loop's clock stands still while the
        machine sleeps, so that a longer wait could end late by as long."""
        if self._timer is not None:
            self._timer.cancel()
        if self._state is SessionState.CLOSED:
            return
        at_ns = min(self._boottime_ns() + _LOOK_INTERVAL_NS, self._open_at_ns)
        if self._state is not SessionState.AUTH_FAILED:
            at_ns = min(at_ns, self._lease.deadline_ns)
        if self._can_write:
            at_ns = min(at_ns, self._lease.proof_due_ns())
        self._timer = self.clock.call_at(at_ns, self._on_timer)

    def _on_timer(self) -> None:
        self._guarded(self._do_what_is_due)
        self._arm()

    def _do_what_is_due(self) -> None:
        now_ns = self._boottime_ns()
        self._look(now_ns)
        if now_ns >= self._open_at_ns:
            self._open_at_ns = FAR
            self._advance(Input.OPEN, "connecting")
        connection = self._line.connection
        if self._can_write and connection is not None and now_ns >= self._lease.proof_due_ns():
            self._lease.proof_sent(now_ns)
            self._proofs_sent += 1
            tell(connection, PROOFS[self.settings.proof])
        if now_ns - self._noted_zxid_ns >= _LOOK_INTERVAL_NS:
            self._noted_zxid_ns = now_ns
            self.journal.look_after()
            self._epoch.note_zxid(self.last_zxid)
        # A connection object that says nothing for three timeouts while it should be connecting is broken.
        patience_s = 3 * max(self._epoch.timeout_s, self.settings.timeout_s)
        if connection is not None and not self._can_read and now_ns - self._since_ns > patience_s * 1e9:
            self._advance(Input.OPEN, f"no connection to ZooKeeper for {patience_s:g} s, trying with a new one")

    def _guarded(self, act: Callable[..., None], *arguments: object) -> None:
        """An error of our own ends in a new connection inside the same session."""
        try:
            act(*arguments)
        except Exception as error:
            log.session_rebuilt(error=error)
            self._rebuild()

    def _rebuild(self) -> None:
        self._rebuilds += 1
        self._line.cut()
        if self._state.is_connected:
            self._advance(Input.DISCONNECTED, "the connection is made anew after an internal error")
        if self._state is not SessionState.CLOSED and self._open_at_ns == FAR:
            self._open_later(_RETRY.delay_s(self._attempt, random.random()))
            self._attempt += 1
            self._arm()

    def _open_later(self, delay_s: float) -> None:
        self._open_at_ns = self._boottime_ns() + round(delay_s * 1e9)
