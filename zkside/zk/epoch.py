"""The present epoch: its session, what runs inside it, and what the journal knows of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from zkside import log
from zkside.core.lease import Lease, LeaseRules
from zkside.errors import SessionLost, Unavailable
from zkside.zk.journal import Journal
from zkside.zk.port import Connected, Ticket
from zkside.zk.within import Within


class Epoch:
    """`number` grows with each session and stays when the session has ended; `session_id` is 0 then.

    A journal that cannot be written is logged: it weakens the next start, not this session.
    """

    def __init__(self, journal: Journal, rules: LeaseRules) -> None:
        self.number = journal.epoch
        self.session_id = 0
        self.ticket: Ticket | None = None
        self.timeout_s = 0.0
        self.is_taking_up = False
        """The session is the journal's, and has not answered yet."""
        self.lease = Lease(rules)
        self.journal = journal
        self._inside: dict[Within, None] = {}
        """In the order of entering, in which they end: who queues again in the next epoch keeps his place."""

    def take_up(self, now_ns: int) -> None:
        """Go on with the journal's session, if it has one.

        Whatever the daemon before knew of its session, it knew it before now: so it may be believed in for one
        timeout from now at most.
        """
        ticket = self.journal.ticket
        if ticket is not None:
            self.session_id, self.ticket, self.timeout_s = ticket.session_id, ticket, self.journal.timeout_s
            self.is_taking_up = True
            self.lease.begin(now_ns, self.timeout_s)

    def adopt(self, now_ns: int, connected: Connected) -> None:
        """A connection to the present session is up; if there is none, the next epoch begins with it.

        A session that a read-only server made is unknown to the quorum: nothing can be owned under it, so it
        has no lease, and no successor takes it up.
        """
        if not self.session_id:
            self.number += 1
            self.session_id, self.timeout_s = connected.ticket.session_id, connected.negotiated_timeout_s
            self.ticket = None if connected.read_only else connected.ticket
            if self.ticket is not None:
                self.lease.begin(now_ns, self.timeout_s)
            self._write(partial(self.journal.begin, self.number, self.ticket, self.timeout_s))
        elif not connected.read_only:
            self.ticket, self.timeout_s = connected.ticket, connected.negotiated_timeout_s
            if self.is_taking_up:
                self._write(partial(self.journal.resume, self.ticket, self.timeout_s))
            self.is_taking_up = False
        margin_s = self.lease.rules.margin_s
        if margin_s is not None and margin_s > self.lease.rules.lease_margin_s(self.timeout_s):
            log.session_margin_cut(margin_s=margin_s, timeout_s=self.timeout_s)

    def end(self, reason: str, *, forget: bool) -> None:
        """What the session owned is gone, and what runs inside the epoch ends. With `forget` no successor of
        this daemon will take the session up."""
        if not self.session_id:
            return
        self.session_id, self.ticket, self.timeout_s, self.is_taking_up = 0, None, 0.0, False
        self.lease.end()
        inside, self._inside = self._inside, {}
        for guard in inside:
            guard.end(f"epoch {self.number} is over: {reason}")
        if forget:
            self._write(self.journal.end)

    def within(self, number: int, look: Callable[[], None]) -> Within:
        def enter(guard: Within) -> None:
            look()
            if not self.session_id or number != self.number:
                raise SessionLost(f"epoch {number} is over")
            self._inside[guard] = None

        # Not the dictionary's own method: `end` puts a new one in its place.
        return Within(enter, lambda guard: self._inside.pop(guard, None))

    def note_zxid(self, zxid: int) -> None:
        self._write(partial(self.journal.note_zxid, zxid))

    def _write(self, write: Callable[[], None]) -> None:
        try:
            write()
        except Unavailable as error:
            log.journal_not_written(error=error)
