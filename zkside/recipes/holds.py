"""All holds of this daemon: by id and by token, through changes of the session, restarts and drains."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from zkside import log
from zkside.core.recent import Recent
from zkside.errors import Draining, HoldLost, NoAuth, Quota, SessionSuspended, Unavailable
from zkside.hub.hub import Hub
from zkside.model.hold import HoldState, HoldStatus, HoldUpdate, Reason, Terms
from zkside.model.session import SessionStatus
from zkside.recipes.admission import Admission
from zkside.recipes.hold import RECALL_S, Hold
from zkside.recipes.turnstile import Turnstile
from zkside.supervisor import Permanent, nothing
from zkside.zk.session import Session

LEASE_STEP = 4
"""A HELD update is sent again about when the lease moved forward by this fraction of the session's timeout: in every
second round, of which there are two in that time."""

REFRESHED_AT_ONCE = 50
"""Holds whose streams hear of their lease in one turn of the event loop, unless it is late: some milliseconds."""


@dataclass(frozen=True, slots=True)
class HoldSettings:
    max_holds: int = 10_000
    reclaim_grace_s: float = 30.0
    """How long a hold that was found in the journal waits for its process after a start of the daemon."""


@dataclass(frozen=True, slots=True)
class HoldsStatistics:
    holds: dict[tuple[str, str], int]
    """By (recipe, state)."""
    unread: int
    """Updates that wait for the holds' streams."""
    granted: dict[str, int]
    """By recipe, since the start."""
    ended: dict[tuple[str, str], int]
    """By (recipe, reason), since the start."""
    refused: int
    """Asked for beyond `max_holds`."""
    not_begun: int
    """Of those WAITING: it is not their turn yet to begin."""


class Holds:
    """All holds of this daemon."""

    def __init__(self, session: Session, hub: Hub, settings: HoldSettings | None = None) -> None:
        self.session = session
        self.hub = hub
        self.settings = settings or HoldSettings()
        self.keeping = False
        """True: the daemon stops and leaves its session to the next one, so no stream's end lets go."""
        self.draining = False
        self.turnstile = Turnstile()
        self.admission = Admission(self.turnstile)
        self._holds: dict[str, Hold] = {}
        self._by_token: dict[str, Hold] = {}
        self._by_identity: Counter[str] = Counter()
        self.granted: Counter[str] = Counter()
        """By recipe, since the start."""
        self._refused = 0
        self.recent = Recent(time.time)
        self._ended: Counter[tuple[str, str]] = Counter()
        self._need_no_more: Callable[[], None] | None = None
        self._unlisten: Callable[[], None] = lambda: None
        self._refresher: Permanent | None = None

    def start(self) -> None:
        """Take up the journal's holds, and follow the session. Before the session is started."""
        self._unlisten = self.session.listen(status=self._on_status)
        epoch = self.session.journal.epoch
        for row in self.session.journal.holds():
            hold = Hold.reclaimed(self, row, epoch)
            self._add(hold)
            hold.watch()
            # An owner that asked for a grace believes for as long, whatever became of the daemon; one that was
            # stopped believes for as long as it takes to be asked.
            grace_s = max(self.settings.reclaim_grace_s, hold.terms.reconnect_grace_s, RECALL_S)
            hold.expire_in(grace_s, Reason.STREAM_ENDED)

    async def close(self, *, keep: bool, within_s: float) -> int:
        """End every hold, RELEASED and DRAINED, or with `keep` leave them to the next daemon.

        Returns how many were released in time. New ones are refused from now on. Those whose owners may still
        believe in them when the time is over are left: see `are_believed`.
        """
        self._begin_draining()
        self.keeping = keep
        released = 0
        if keep:
            for hold in list(self._holds.values()):
                hold.stop_timers()
                hold.forget()
        else:
            released = await self.drain(within_s=within_s)
        # What becomes of the session now is no news of any hold: its row stays in the journal.
        self._unlisten()
        if self._refresher is not None:
            self._refresher.stop()
        return released

    async def drain(self, *, within_s: float | None = None) -> int:
        """Refuse new holds and ask for all that there are; returns how many are gone.

        Without `within_s` it waits for all; with it those that are left are released when it is over, but for
        those whose owners may still believe in them.
        """
        self._begin_draining()
        holds = list(self._holds.values())
        for hold in holds:
            hold.recall(Reason.DRAINED)
        if holds:
            await asyncio.wait([hold.ended for hold in holds], timeout=within_s)
        for hold in holds:
            if not hold.is_believed:
                hold.release(Reason.DRAINED)
        return sum(hold.ended.done() for hold in holds)

    def _begin_draining(self) -> None:
        if not self.draining:
            self.draining = True
            self.recent.note("daemon.draining", "", f"{len(self)} holds")

    def are_believed(self) -> bool:
        """Whether there is a hold that was asked back, and its owner may go on all the same. The session must not
        be closed then: left alone it ends after the last lease, or the next daemon takes it up."""
        return any(hold.is_believed for hold in self._holds.values())

    def open(self, terms: Terms) -> Hold:
        """A new hold, WAITING. Raises: Quota, Draining."""
        if self.draining:
            raise Draining()
        if len(self._holds) >= self.settings.max_holds:
            self.count_refused()
            raise Quota(f"the daemon has {len(self._holds)} holds, its limit", limit="max_holds")
        hold = Hold(self, terms)
        self._add(hold)
        return hold

    def count_refused(self) -> None:
        """Somebody asked for more than `max_holds`."""
        self._refused += 1

    async def wait_for(
        self, terms: Terms, resume_token: str, flow: Callable[[Hold], Coroutine[Any, Any, None]]
    ) -> AsyncGenerator[HoldUpdate, None]:
        """The updates of one stream whose hold `flow` is to get; or of the hold with the resume token.

        Raises: Quota, Draining; HoldLost (resume_token); what the flow raises. Cancellation: as a broken stream.
        """
        if resume_token:
            hold = self.take_up(resume_token, terms.recipe, terms.requested_path, terms.identity)
        else:
            hold = self.open(terms)
            hold.run(flow(hold))
        async with aclosing(hold.updates(resumed=bool(resume_token))) as updates:
            async for update in updates:
                yield update

    def take_up(self, resume_token: str, recipe: str, path: str, identity: str = "") -> Hold:
        """The hold of this token, for a new stream. Raises: HoldLost, also for that of another identity.

        One that was opened before there was a policy belongs to the first identity that knows its token.
        """
        hold = self._by_token.get(resume_token)
        if (
            hold is None
            or (identity and hold.terms.identity not in ("", identity))
            or hold.releasing is not None
            or hold.terms.recipe != recipe
            or path not in (hold.path, hold.terms.requested_path)
        ):
            raise HoldLost("no hold with this resume token and path: it is unknown, or it came too late", path=path)
        if identity and not hold.terms.identity:
            hold.adopt(identity)
            self._by_identity[identity] += 1
        return hold

    def get(self, hold_id: str) -> Hold:
        """Raises: HoldLost."""
        try:
            return self._holds[hold_id]
        except KeyError:
            raise HoldLost("there is no such hold (any more)", hold_id=hold_id) from None

    def find(self, hold_id: str) -> Hold | None:
        """None if there is no such hold (any more)."""
        return self._holds.get(hold_id)

    def at(self, path: str) -> Hold | None:
        """The hold that has the node of this path; None if none of this daemon's has."""
        return next((hold for hold in self._holds.values() if hold.path == path), None)

    def count_of(self, identity: str) -> int:
        """The holds of one identity, granted or waiting, with a stream or without."""
        return self._by_identity[identity]

    def owned(self) -> Iterator[Hold]:
        """Those that belong to an identity, also if some end meanwhile."""
        return (hold for hold in [*self._holds.values()] if hold.terms.identity)

    def guard(self, hold_id: str) -> Hold:
        """The hold that is to guard a transaction. Raises: HoldLost unless it is held."""
        hold = self.get(hold_id)
        if hold.releasing is not None or hold.state not in (HoldState.HELD, HoldState.JEOPARDY):
            raise HoldLost(f"the hold is {hold.state.value}, not held", hold_id=hold_id, committed="false")
        return hold

    async def release(self, hold_id: str) -> bool:
        """Let go and return when the node is gone; False if there was no such hold any more.

        Raises: SessionSuspended when that cannot be seen now; it will be deleted all the same. NoAuth when
        ZooKeeper does not let the daemon delete it. Cancellation: the release goes on.
        """
        hold = self._holds.get(hold_id)
        if hold is None:
            return False
        hold.release(Reason.RELEASED)
        suspended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def heard(status: SessionStatus) -> None:
            if not status.state.is_connected and not suspended.done():
                suspended.set_result(None)

        unlisten = self.session.listen(status=heard)
        try:
            if not hold.ended.done():
                heard(self.session.status)
            await asyncio.wait([hold.ended, suspended], return_when=asyncio.FIRST_COMPLETED)
        finally:
            unlisten()
            suspended.cancel()
        if not hold.ended.done():
            raise SessionSuspended(f"{hold.path} will be deleted as soon as the session is back")
        if hold.left_behind:
            raise NoAuth(f"{hold.path} could not be deleted and stays until the session ends", path=hold.path)
        return True

    def cut(self, hold_id: str) -> None:
        """The stream of this hold is about to be ended from here, not by its owner."""
        hold = self._holds.get(hold_id)
        if hold is not None:
            hold.cut()

    def unread(self, hold_id: str) -> int:
        """Updates that wait for the hold's stream; 0 for a hold that is over."""
        hold = self._holds.get(hold_id)
        return hold.unread() if hold is not None else 0

    def list(self) -> list[HoldStatus]:
        """All holds, oldest first."""
        return list(self.each())

    def each(self) -> Iterator[HoldStatus]:
        """As `list`, one at a time, also if some end meanwhile."""
        return (hold.status() for hold in [*self._holds.values()] if not hold.state.is_over)

    def __len__(self) -> int:
        return len(self._holds)

    def statistics(self) -> HoldsStatistics:
        return HoldsStatistics(
            holds=dict(Counter((hold.terms.recipe, hold.state.value) for hold in self._holds.values())),
            unread=sum(hold.unread() for hold in self._holds.values()),
            granted=dict(self.granted),
            ended=dict(self._ended),
            refused=self._refused,
            not_begun=self.admission.waiting,
        )

    def forget(self, hold: Hold) -> None:
        """From Hold, when it is over."""
        self._holds.pop(hold.hold_id, None)
        self._by_token.pop(hold.resume_token, None)
        if hold.terms.identity:
            self._by_identity[hold.terms.identity] -= 1
        self._ended[hold.terms.recipe, hold.reason.value] += 1
        self.recent.note("hold.ended", hold.reason.value, hold.terms.requested_path)
        log.hold_ended(
            kind=hold.terms.recipe,
            path=hold.path or hold.terms.requested_path,
            hold_id=hold.hold_id,
            reason=hold.reason.value,
            age_s=round(time.monotonic() - hold.started_s, 3),
        )
        try:
            self.session.journal.drop_hold(hold.hold_id)
        except Unavailable as error:
            # A later daemon will find the row, and that its node is gone.
            log.journal_hold_stays(hold_id=hold.hold_id, error=error)
        if not self._holds and self._need_no_more is not None:
            self._need_no_more()
            self._need_no_more = None

    def _add(self, hold: Hold) -> None:
        self._holds[hold.hold_id] = hold
        self._by_token[hold.resume_token] = hold
        if hold.terms.identity:
            self._by_identity[hold.terms.identity] += 1
        if self._need_no_more is None:
            self._need_no_more = self.session.need_proofs()
        if self._refresher is None or self._refresher.is_over:
            self._refresher = self.session.supervisor.start("leases", self._refresh_leases, nothing)

    def _on_status(self, status: SessionStatus) -> None:
        if not status.state.is_connected:
            self.admission.vacate()
        failed: Exception | None = None
        for hold in list(self._holds.values()):
            try:
                hold.session_changed(status)
            except Exception as error:
                failed = error  # the others have to hear of it all the same
        if failed is not None:
            raise failed

    async def _refresh_leases(self) -> None:
        """Tell those that are HELD of their lease, several times in a session's timeout, until there are no holds.

        A few at a time, since telling thousands of streams at once would keep all others waiting; but as many as are
        due by the clock: where the event loop is busy, none may hear of its lease too late for that.
        """
        loop = asyncio.get_running_loop()
        while self._holds:
            held = [hold for hold in self._holds.values() if hold.state is HoldState.HELD]
            step_s = max(self.session.status.timeout_s, 1.0) / LEASE_STEP
            round_s, pauses = step_s / 2, math.ceil(max(len(held), 1) / REFRESHED_AT_ONCE)
            began_s, told = loop.time(), 0
            while True:
                due = math.ceil(len(held) * (loop.time() - began_s) / round_s)
                for hold in held[told:due]:
                    # Every second round: a lease that lacks a little of the step is not left for a third.
                    hold.refresh_lease(int((step_s - round_s / 2) * 1e9))
                told = due
                if told >= len(held) and loop.time() - began_s >= round_s:
                    break
                await asyncio.sleep(round_s / pauses)
