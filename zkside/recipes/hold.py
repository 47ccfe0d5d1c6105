"""One hold, something that a process owns: its life, its stream, and what ends them.

A recipe is a linear flow over this, which runs beside the stream:

    hold = holds.open(terms)                    # WAITING, counts against the quota
    hold.run(flow(hold))                        # hold.seat(…) its node, hold.wait(position), … hold.grant(…): HELD
    async for update in hold.updates(...):      # WAITING, HELD, JEOPARDY, HELD again, … to RELEASED or LOST
        yield update

Whatever ends the stream ends the hold (after its reconnect_grace), whatever ends the hold ends the stream, with
a last update that says why, and nothing of it stays in ZooKeeper.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Protocol

from zkside import log
from zkside.core.hold import Input, advance
from zkside.core.recent import Recent
from zkside.errors import SessionLost, ZksideError
from zkside.hub.hub import Hub
from zkside.model.hold import OWNER, HoldRow, HoldState, HoldStatus, HoldUpdate, Reason, Terms
from zkside.model.session import SessionState, SessionStatus
from zkside.recipes.admission import Admission
from zkside.recipes.audience import Audience
from zkside.recipes.heartbeat import Heartbeat
from zkside.zk.clock import Timer
from zkside.zk.session import Session

MAX_GRACE_S = 3600.0
RECALL_S = 2.0
"""How long the owner of an exclusive hold has to let go when it is asked to. Longer than a client believes in
its own lease without hearing from the daemon (docs/adr/0007)."""
WATCH_AFTER_S = 0.25
"""A hold that is over sooner costs the server no watch. Whether somebody else deleted its node is not looked
for until then."""
REVOKE = b"__REVOKE__"
"""Curator's word for it."""

_OWNED = (HoldState.HELD, HoldState.JEOPARDY)
_OWNING = (SessionState.CONNECTED, SessionState.CONNECTED_READ_ONLY, SessionState.SUSPENDED)


class Registry(Protocol):
    """What a hold asks of the one that keeps it (recipes/holds.py)."""

    session: Session
    hub: Hub
    keeping: bool
    """The daemon is about to stop and leaves its holds to the next one."""
    granted: Counter[str]
    recent: Recent
    admission: Admission

    def forget(self, hold: Hold) -> None:
        """The hold is over."""


class Hold:
    """One hold; made by Holds.open. Every method but `updates` is synchronous: between awaits its state is whole."""

    def __init__(self, holds: Registry, terms: Terms) -> None:
        self.hold_id = secrets.token_hex(8)
        self.resume_token = secrets.token_urlsafe(24)
        self.terms = terms
        self.state = HoldState.WAITING
        self.reason = Reason.NONE
        self.path = ""
        self.epoch = 0
        self.czxid = 0
        self.position = 0
        self.started_s = time.monotonic()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the hold is over."""
        self.releasing: Reason | None = None
        """Set once its nodes are in the janitor's hands."""
        self.data: bytes | None = None
        """Its node's, as it was seen last; with `follows_data` only. None before it was looked at."""
        self.left_behind = False
        """True: it was released, but its node could not be deleted and stays until the session ends."""
        self._holds = holds
        self._nodes: dict[str, int | None] = {}
        """What goes with it, by path: the czxid, or None for a name that is not made again."""
        self._work: asyncio.Task[None] | None = None
        self._audience: Audience | None = None
        self._unwatch: Callable[[], None] = lambda: None
        self._is_recalled = False
        self._is_cut = False
        self._believed_until_ns = 0
        """Once it was asked back: until when its owner may go on all the same."""
        self._watching: Timer | None = None
        self._expiry: Timer | None = None
        self._expires_ns = 0
        self._heartbeat = Heartbeat(holds.session.clock, terms.heartbeat_timeout_s)
        self._lease_told_ns = 0

    @classmethod
    def reclaimed(cls, holds: Registry, row: HoldRow, epoch: int) -> Hold:
        """The hold of a journal's row: in jeopardy until its session is taken up again."""
        hold = cls(holds, row.terms)
        hold.hold_id, hold.resume_token = row.hold_id, row.resume_token
        hold.path, hold.czxid, hold.epoch = row.path, row.czxid, epoch
        hold._nodes[row.path] = row.czxid
        # Whatever the daemon before told of the lease, it knew before now.
        hold._lease_told_ns = holds.session.clock.boottime_ns() + round(holds.session.journal.timeout_s * 1e9)
        hold.state, hold.reason = HoldState.JEOPARDY, Reason.CONNECTION_LOST
        return hold

    @property
    def attached(self) -> bool:
        """Whether a stream has it."""
        return self._audience is not None

    @property
    def is_believed(self) -> bool:
        """It was asked back, and its owner may go on all the same: nobody else may get it yet."""
        if self.state not in _OWNED or self.releasing is not None:
            return False
        return self._believed_until_ns > self._holds.session.clock.boottime_ns()

    def present(self) -> HoldUpdate:
        """The hold as it is now."""
        return HoldUpdate(
            self.hold_id,
            self.path,
            self.epoch,
            self.czxid,
            self._lease_ns(),
            self.resume_token,
            self.state,
            self.reason,
            self.position,
        )

    def status(self) -> HoldStatus:
        """For lists."""
        left_ns = self._expires_ns - self._holds.session.clock.boottime_ns()
        return HoldStatus(
            replace(self.present(), resume_token=""),
            self.terms.recipe,
            self.terms.requested_path,
            self.terms.data.get(OWNER, ""),
            time.monotonic() - self.started_s,
            self.attached,
            max(0, left_ns) / 1e9 if self._expiry is not None else None,
        )

    def _lease_ns(self) -> int:
        if self.state not in _OWNED or self._is_recalled:
            return 0
        lease_ns = self._holds.session.lease_boottime_ns
        return min(lease_ns, self._heartbeat.due_ns or lease_ns)

    # While it waits

    def run(self, flow: Coroutine[Any, Any, None]) -> None:
        """Work for the hold, which owns it: it is cancelled when the hold ends. Its error is the stream's."""
        self._work = asyncio.get_running_loop().create_task(flow, name=f"{self.terms.recipe} {self.hold_id}")
        self._work.add_done_callback(self._on_work_done)

    def beginning(self) -> AbstractAsyncContextManager[None]:
        """The block in which the work makes its node: few holds are there at the same time (admission.py)."""
        return self._holds.admission.place()

    def seat(self, path: str) -> None:
        """A node of its own, under a name that is not made again: it goes when the hold does."""
        self._nodes[path] = None

    def leave(self, path: str) -> None:
        """Give up a seat, and go on."""
        del self._nodes[path]
        self._holds.session.janitor.delete(path)

    def adopt(self, identity: str) -> None:
        """It belongs to this identity from now on. Raises: Unavailable if the journal cannot be written."""
        terms = replace(self.terms, identity=identity)
        if self.czxid:
            row = HoldRow.of(terms, self.hold_id, self.path, self.czxid, self.resume_token)
            self._holds.session.journal.put_hold(row)
        self.terms = terms

    def forget_seats(self) -> None:
        """They went with their session."""
        self._nodes.clear()

    def wait(self, position: int) -> None:
        """Tell the place in the recipe's queue."""
        self.position, self.reason = position, Reason.QUEUED
        self._tell()

    def grant(self, path: str, czxid: int, epoch: int, *, reason: Reason = Reason.GRANTED) -> None:
        """The node is there, and it is this hold's turn: HELD, written to the journal first.

        Raises: SessionLost if that epoch is over; Unavailable if the journal cannot be written. Then it still
        waits, and the node goes with it.
        """
        holds = self._holds
        self._nodes.setdefault(path, czxid)
        status = holds.session.status
        if status.epoch != epoch or status.state not in _OWNING:
            raise SessionLost(f"the session that created {path} is over")
        self.path, self.czxid, self.epoch, self.position = path, czxid, epoch, 0
        try:
            holds.session.journal.put_hold(HoldRow.of(self.terms, self.hold_id, path, czxid, self.resume_token))
        except BaseException:
            self.path, self.czxid, self.epoch = "", 0, 0
            raise
        holds.granted[self.terms.recipe] += 1
        holds.recent.note("hold.granted", "", self.terms.requested_path)
        log.hold_granted(kind=self.terms.recipe, path=path, hold_id=self.hold_id, token=czxid, epoch=epoch)
        if self.attached:
            self._heartbeat.feed(self._on_heartbeat_missed)
        self._advance(Input.GRANTED, reason)
        if self.terms.is_revocable:
            self.watch()
        else:
            clock = holds.session.clock
            self._watching = clock.call_at(clock.boottime_ns() + round(WATCH_AFTER_S * 1e9), self.watch)
        if not status.state.is_connected:
            self._advance(Input.DISCONNECTED, Reason.CONNECTION_LOST)

    def watch(self) -> None:
        """Hear of the node's deletion, and of who would like to have it."""
        self._unwatch = self._holds.hub.on_deleted(
            self.path,
            self.czxid,
            self._on_deleted,
            on_data=self._on_data if self.terms.is_revocable or self.terms.follows_data else None,
            on_failed=lambda error: log.hold_unwatched(path=self.path, reason=str(error)),
        )

    def _on_work_done(self, work: asyncio.Task[None]) -> None:
        self._work = None  # its error leads to this hold: a cycle
        error: BaseException | None
        if work.cancelled():
            # By the hold itself it is cancelled when it ends; otherwise nobody would work for it any more.
            error = ZksideError("a defect of zkside: what the hold waited with was cancelled")
        else:
            error = work.exception()
        if error is None or self.state.is_over or (work.cancelled() and self.releasing is not None):
            return
        if not isinstance(error, ZksideError):
            log.hold_work_failed(kind=self.terms.recipe, path=self.terms.requested_path, error=error)
        if self._audience is not None:
            self._audience.fail(error if isinstance(error, ZksideError) else ZksideError(repr(error)))
            self._audience = None
        self._end(Input.LOST, Reason.NONE)

    # Its stream

    async def updates(self, *, resumed: bool = False) -> AsyncGenerator[HoldUpdate, None]:
        """What the stream is to send, from the present state to the last update.

        When the iteration ends for any other reason the stream has broken: then the hold waits for
        reconnect_grace, or is released at once. A stream that had the hold before hears LOST, TAKEN_OVER.
        Raises: what its flow raised. Cancellation: as a broken stream.
        """
        audience = self._attach(resumed=resumed)
        try:
            while True:
                update = await audience.next()
                yield update
                if update.state.is_over:
                    return
        finally:
            if self._audience is audience:
                self._detach(is_cut=self._is_cut or audience.is_overrun)

    def unread(self) -> int:
        """Updates that wait for the stream."""
        return len(self._audience) if self._audience is not None else 0

    def _attach(self, *, resumed: bool) -> Audience:
        if self._expiry is not None and not self._is_recalled:
            self._expiry.cancel()
            self._expiry = None
        before = self._audience
        audience = self._audience = Audience()
        if resumed and self.state is HoldState.HELD:
            self.reason = Reason.RESUMED
        if before is not None:
            before.tell(
                HoldUpdate(self.hold_id, self.path, self.epoch, self.czxid, 0, "", HoldState.LOST, Reason.TAKEN_OVER)
            )
        if self.state in _OWNED:
            self._heartbeat.feed(self._on_heartbeat_missed)
        if self.reason is not Reason.NONE:
            # A hold that has not looked for its place yet has nothing to tell.
            self._tell()
        return audience

    def cut(self) -> None:
        """Its stream is about to be ended from here: its owner has not let go, and may hear of it late."""
        self._is_cut = True

    def _detach(self, *, is_cut: bool) -> None:
        self._audience, self._is_cut = None, False
        self._heartbeat.stop()
        if self.state.is_over or self.releasing is not None:
            return
        if self.state is HoldState.WAITING:
            self.release(Reason.STREAM_ENDED)
        elif self._holds.keeping:
            # The next daemon finds it in the journal.
            return
        elif self.terms.reconnect_grace_s and not self._is_recalled:
            self.expire_in(self.terms.reconnect_grace_s, Reason.STREAM_ENDED)
        elif not is_cut:
            self.release(Reason.STREAM_ENDED)
        elif not self._is_recalled:
            self.recall(Reason.STREAM_ENDED)

    def expire_in(self, grace_s: float, reason: Reason) -> None:
        """Release it unless a stream takes it up within this time."""
        clock = self._holds.session.clock
        if self._expiry is not None:
            self._expiry.cancel()
        self._expires_ns = clock.boottime_ns() + round(grace_s * 1e9)
        self._expiry = clock.call_at(self._expires_ns, lambda: self.release(reason))

    def heartbeat(self) -> float:
        """The application lives; returns the seconds until the next heartbeat is due."""
        if self.attached and self.state in _OWNED:
            self._heartbeat.feed(self._on_heartbeat_missed)
            self._tell(refresh=True)
        return self.terms.heartbeat_timeout_s

    def _on_heartbeat_missed(self) -> None:
        self._end(Input.LOST, Reason.HEARTBEAT_MISSED)

    # What happens to it

    def release(self, reason: Reason) -> None:
        """Let go: its nodes go to the janitor, and RELEASED is announced when they are gone.

        A hold that still waits does not wait for a connection that is lost: then its nodes go later.
        """
        if self.state.is_over or self.releasing is not None:
            return
        self.releasing = reason
        self._stop_work()
        going = self._hand_over()
        if going and (self.state is not HoldState.WAITING or self._holds.session.status.state.is_connected):
            asyncio.gather(*going, return_exceptions=True).add_done_callback(self._on_settled)
        else:
            self._end(Input.RELEASED, reason)

    def recall(self, reason: Reason) -> None:
        """Ask for it back. Who may believe in an exclusive hold has to stop before somebody else gets it.

        Its owner hears JEOPARDY with a lease that is over, and has RECALL_S to end the stream or release it.
        An owner without a stream cannot be told: it believes for as long as the lease that it was told.
        """
        if not self.terms.is_exclusive or self.state not in _OWNED:
            self.release(reason)
        elif not self.attached:
            self._believed_until_ns = self._lease_told_ns
            left_ns = self._lease_told_ns - self._holds.session.clock.boottime_ns()
            self.expire_in(max(0, left_ns) / 1e9, reason)
        elif not self._is_recalled:
            self._is_recalled = True
            self.state, self.reason = advance(self.state, Input.RECALLED), reason
            self._tell()
            self._believed_until_ns = self._holds.session.clock.boottime_ns() + round(RECALL_S * 1e9)
            self.expire_in(RECALL_S, reason)

    def _hand_over(self) -> list[asyncio.Future[bool]]:
        nodes, self._nodes = self._nodes, {}
        return [self._holds.session.janitor.delete(path, czxid) for path, czxid in nodes.items()]

    def _on_settled(self, going: asyncio.Future[list[bool | BaseException]]) -> None:
        self.left_behind = not all(gone is True for gone in going.result())
        self._on_deleted()

    def session_changed(self, status: SessionStatus) -> None:
        """From Holds, for every change of the session."""
        if self.state.is_over or not self.epoch:
            return
        if status.epoch != self.epoch or status.state in (SessionState.LOST, SessionState.CLOSED):
            self._nodes.clear()
            if self.releasing is not None:
                self._end(Input.RELEASED, self.releasing)
            else:
                self._end(Input.LOST, Reason.SESSION_LOST)
        elif self._is_recalled:
            return
        elif status.state is SessionState.SUSPENDED:
            self._advance(Input.DISCONNECTED, Reason.CONNECTION_LOST)
        elif status.state.is_connected:
            self._advance(Input.RECONNECTED, Reason.RESUMED)

    def refresh_lease(self, step_ns: int) -> None:
        """Tell the stream that the lease has moved, if it has by a step."""
        if self.state is HoldState.HELD and self._lease_ns() - self._lease_told_ns >= step_ns:
            self._tell(refresh=True)

    def _tell(self, *, refresh: bool = False) -> None:
        if self._audience is None:
            return
        present = self.present()
        if self.state in _OWNED and not (present.lease_boottime_ns or self._is_recalled):
            # Its session is still to be taken up, and proven: a lease of 0 would be taken for a recall.
            return
        self._lease_told_ns = max(self._lease_told_ns, present.lease_boottime_ns)
        self._audience.tell(present, refresh=refresh)

    def _on_deleted(self) -> None:
        if self.state.is_over:
            return
        self._nodes.pop(self.path, None)
        if self.releasing is not None:
            self._end(Input.RELEASED, self.releasing)
        else:
            self._end(Input.LOST, Reason.NODE_DELETED)

    def _on_data(self, data: bytes) -> None:
        if self.terms.follows_data:
            self.data = data
        if not self.terms.is_revocable:
            return
        if data == REVOKE and self.state is HoldState.HELD and self.reason is not Reason.REVOKE_REQUESTED:
            self.reason = Reason.REVOKE_REQUESTED
            self._tell()

    def _advance(self, given: Input, reason: Reason) -> None:
        before, self.state = self.state, advance(self.state, given)
        if self.state is before:
            return
        self.reason = reason
        self._tell()

    def lose(self, reason: Reason) -> None:
        """What it waited with is gone."""
        if not self.state.is_over:
            self._end(Input.LOST, reason)

    def forget(self) -> None:
        """Give up a hold that was never granted. One that was stays as it is."""
        if self.state is HoldState.WAITING:
            self.release(Reason.STREAM_ENDED)

    def stop_timers(self) -> None:
        """Neither grace nor heartbeat end it any more, and nobody looks after its node."""
        self._heartbeat.stop()
        for timer in (self._expiry, self._watching):
            if timer is not None:
                timer.cancel()
        self._expiry = self._watching = None

    def _stop_work(self) -> None:
        if self._work is not None and self._work is not asyncio.current_task():
            self._work.cancel()

    def _end(self, given: Input, reason: Reason) -> None:
        # First of all: what follows asks the session, which may find itself lost just then and end all holds.
        self._advance(given, reason)
        self._stop_work()
        self._hand_over()
        unwatch, self._unwatch = self._unwatch, lambda: None  # it leads to this hold: a cycle
        unwatch()
        self.stop_timers()
        self.ended.set_result(None)
        self._holds.forget(self)
