"""One hold, something that a process owns: its life, its stream, and what ends them.

A recipe is a flow over this, an async generator of HoldUpdates for one stream:

    hold = holds.open(terms)                    # WAITING, counts against the quota
    ...                                         # the recipe's own waiting: yield hold.wait(position), …
    hold.grant(path, czxid, epoch)              # HELD; written to the journal first
    async for update in hold.updates(...):      # JEOPARDY, HELD again, … to RELEASED or LOST
        yield update

Whatever ends the stream ends the hold (after its reconnect_grace), and whatever ends the hold ends the stream,
with a last update that says why.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Protocol

from zkside.core.hold import Input, advance
from zkside.errors import Quota, SessionLost
from zkside.hub.hub import Hub
from zkside.model.hold import HoldRow, HoldState, HoldUpdate, Reason, Terms
from zkside.model.session import SessionState, SessionStatus
from zkside.zk.session import Session

MAX_GRACE_S = 3600.0
MAX_UNREAD = 1024
"""Updates that a stream may leave unread; they are not merged, so that none is missed."""

_OWNED = (HoldState.HELD, HoldState.JEOPARDY)
_OWNING = (SessionState.CONNECTED, SessionState.CONNECTED_READ_ONLY, SessionState.SUSPENDED)


class Registry(Protocol):
    """What a hold asks of the one that keeps it (recipes/holds.py)."""

    session: Session
    hub: Hub
    keeping: bool
    """The daemon is about to stop and leaves its holds to the next one."""
    granted: int

    def forget(self, hold: Hold) -> None:
        """The hold is over."""


class _Audience:
    """The stream that hears a hold's updates."""

    def __init__(self) -> None:
        self.unread: deque[HoldUpdate] = deque()
        self.is_refresh = False
        """Whether the newest unread one says nothing new but the lease."""
        self.overflown = False
        self._woken = asyncio.Event()

    def tell(self, update: HoldUpdate, *, refresh: bool = False) -> None:
        if refresh and self.is_refresh and self.unread:
            self.unread.pop()
        if len(self.unread) >= MAX_UNREAD:
            self.overflown = True
        else:
            self.unread.append(update)
            self.is_refresh = refresh
        self._woken.set()

    async def next(self) -> HoldUpdate:
        while not self.unread:
            if self.overflown:
                raise Quota(f"more than {MAX_UNREAD} updates of the hold were left unread")
            self._woken.clear()
            await self._woken.wait()
        return self.unread.popleft()


class Hold:
    """One hold; made by Holds.open. Every method is synchronous: between awaits its state is whole."""

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
        """Set once its node is in the janitor's hands."""
        self.left_behind = False
        """True: it was released, but its node could not be deleted and stays until the session ends."""
        self._holds = holds
        self._audience: _Audience | None = None
        self._unwatch: Callable[[], None] = lambda: None
        self._grace: asyncio.TimerHandle | None = None
        self._heartbeat: asyncio.TimerHandle | None = None
        self._heartbeat_due_s = 0.0
        self._lease_told_ns = 0

    @classmethod
    def reclaimed(cls, holds: Registry, row: HoldRow, epoch: int) -> Hold:
        """The hold of a journal's row: in jeopardy until its session is taken up again."""
        data = dict(row.data)
        terms = Terms(
            row.recipe,
            data.pop("requested_path"),
            row.reconnect_grace_s,
            float(data.pop("heartbeat_timeout_s")),
            data,
        )
        hold = cls(holds, terms)
        hold.hold_id, hold.resume_token = row.hold_id, row.resume_token
        hold.path, hold.czxid, hold.epoch = row.path, row.czxid, epoch
        hold.state, hold.reason = HoldState.JEOPARDY, Reason.CONNECTION_LOST
        return hold

    @property
    def attached(self) -> bool:
        """Whether a stream has it."""
        return self._audience is not None

    def present(self) -> HoldUpdate:
        """The hold as it is now."""
        return HoldUpdate(
            self.hold_id,
            self.path,
            self.epoch,
            self.czxid,
            self._holds.session.lease_boottime_ns if self.state in _OWNED else 0,
            self.resume_token,
            self.state,
            self.reason,
            self.position,
        )

    def wait(self, position: int) -> HoldUpdate:
        """The place in the recipe's queue; the update to yield."""
        self.position = position
        return self.present()

    def grant(self, path: str, czxid: int, epoch: int) -> None:
        """The node is there: HELD.

        Raises: SessionLost if that epoch is over; Unavailable if the journal cannot be written. The node is
        in the janitor's hands then, and the hold is over.
        """
        holds = self._holds
        status = holds.session.status
        self.path, self.czxid, self.epoch = path, czxid, epoch
        if status.epoch != epoch or status.state not in _OWNING:
            self._end(Input.LOST, Reason.SESSION_LOST)
            raise SessionLost(f"the session that created {path} is over")
        try:
            holds.session.journal.put_hold(self._row())
        except BaseException:
            holds.session.janitor.delete(path, czxid)
            self._end(Input.LOST, Reason.NONE)
            raise
        self._holds.granted += 1
        self._advance(Input.GRANTED, Reason.CREATED)
        self.watch()
        if not status.state.is_connected:
            self._advance(Input.DISCONNECTED, Reason.CONNECTION_LOST)

    def watch(self) -> None:
        """Hear of the node's deletion."""
        self._unwatch = self._holds.hub.on_deleted(self.path, self.czxid, self._on_deleted)

    def _row(self) -> HoldRow:
        terms = self.terms
        data = {
            **terms.data,
            "requested_path": terms.requested_path,
            "heartbeat_timeout_s": str(terms.heartbeat_timeout_s),
        }
        return HoldRow(
            self.hold_id, terms.recipe, self.path, self.czxid, self.resume_token, terms.reconnect_grace_s, data
        )

    # Its stream

    async def updates(self, *, resumed: bool = False) -> AsyncGenerator[HoldUpdate, None]:
        """What the stream is to send, from the present state to the last update.

        When the iteration ends for any other reason the stream has broken: then the hold waits for
        reconnect_grace, or is released at once. A stream that had the hold before hears LOST, TAKEN_OVER.
        Cancellation: as a broken stream.
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
                self._detach()

    def unread(self) -> int:
        """Updates that wait for the stream."""
        return len(self._audience.unread) if self._audience is not None else 0

    def _attach(self, *, resumed: bool) -> _Audience:
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        before = self._audience
        audience = self._audience = _Audience()
        if resumed and self.state is HoldState.HELD:
            self.reason = Reason.RESUMED
        if before is not None:
            before.tell(
                HoldUpdate(self.hold_id, self.path, self.epoch, self.czxid, 0, "", HoldState.LOST, Reason.TAKEN_OVER)
            )
        self._tell()
        if self.terms.heartbeat_timeout_s and not self.state.is_over:
            self.heartbeat()
        return audience

    def _detach(self) -> None:
        self._audience = None
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            self._heartbeat = None
        if self.state.is_over or self.releasing is not None:
            return
        if self._holds.keeping:
            # The next daemon finds it in the journal.
            return
        if self.state is HoldState.WAITING or not self.terms.reconnect_grace_s:
            self.release(Reason.STREAM_ENDED)
        else:
            self.expire_in(self.terms.reconnect_grace_s)

    def expire_in(self, grace_s: float) -> None:
        """Release it unless a stream takes it up within this time."""
        loop = asyncio.get_running_loop()
        self._grace = loop.call_later(grace_s, self.release, Reason.STREAM_ENDED)

    def heartbeat(self) -> float:
        """The application lives; returns the seconds until the next heartbeat is due."""
        loop = asyncio.get_running_loop()
        self._heartbeat_due_s = loop.time() + self.terms.heartbeat_timeout_s
        if self._heartbeat is None and self.attached:
            self._heartbeat = loop.call_at(self._heartbeat_due_s, self._on_heartbeat_due)
        return self.terms.heartbeat_timeout_s

    def _on_heartbeat_due(self) -> None:
        self._heartbeat = None
        loop = asyncio.get_running_loop()
        if loop.time() < self._heartbeat_due_s:
            self._heartbeat = loop.call_at(self._heartbeat_due_s, self._on_heartbeat_due)
            return
        self._holds.session.janitor.delete(self.path, self.czxid)
        self._end(Input.LOST, Reason.HEARTBEAT_MISSED)

    # What happens to it

    def release(self, reason: Reason) -> None:
        """Let go: the node goes to the janitor, and RELEASED is announced when it is gone."""
        if self.state.is_over or self.releasing is not None:
            return
        if self.state is HoldState.WAITING:
            self._end(Input.RELEASED, reason)
            return
        self.releasing = reason
        self._holds.session.janitor.delete(self.path, self.czxid).add_done_callback(self._on_settled)

    def _on_settled(self, gone: asyncio.Future[bool]) -> None:
        self.left_behind = gone.cancelled() or not gone.result()
        self._on_deleted()

    def session_changed(self, status: SessionStatus) -> None:
        """From Holds, for every change of the session."""
        if self.state.is_over or not self.epoch:
            return
        if status.epoch != self.epoch or status.state in (SessionState.LOST, SessionState.CLOSED):
            if self.releasing is not None:
                self._end(Input.RELEASED, self.releasing)
            else:
                self._end(Input.LOST, Reason.SESSION_LOST)
        elif status.state is SessionState.SUSPENDED:
            self._advance(Input.DISCONNECTED, Reason.CONNECTION_LOST)
        elif status.state.is_connected:
            self._advance(Input.RECONNECTED, Reason.RESUMED)

    def refresh_lease(self, lease_ns: int, step_ns: int) -> None:
        """Tell the stream that the lease has moved, if it has by a step."""
        if self.state is HoldState.HELD and lease_ns - self._lease_told_ns >= step_ns:
            self._tell(refresh=True)

    def _tell(self, *, refresh: bool = False) -> None:
        if self._audience is not None:
            present = self.present()
            self._lease_told_ns = present.lease_boottime_ns
            self._audience.tell(present, refresh=refresh)

    def _on_deleted(self) -> None:
        if self.state.is_over:
            return
        if self.releasing is not None:
            self._end(Input.RELEASED, self.releasing)
        else:
            self._end(Input.LOST, Reason.NODE_DELETED)

    def _advance(self, given: Input, reason: Reason) -> None:
        before, self.state = self.state, advance(self.state, given)
        if self.state is before:
            return
        self.reason = reason
        self._tell()

    def forget(self) -> None:
        """Give up a hold that was never granted. One that is over stays as it is."""
        if self.state is HoldState.WAITING:
            self._end(Input.RELEASED, Reason.STREAM_ENDED)

    def stop_timers(self) -> None:
        """Neither grace nor heartbeat end it any more."""
        for timer in (self._grace, self._heartbeat):
            if timer is not None:
                timer.cancel()
        self._grace = self._heartbeat = None

    def _end(self, given: Input, reason: Reason) -> None:
        self._unwatch()
        self.stop_timers()
        self._advance(given, reason)
        self.ended.set_result(None)
        self._holds.forget(self)
