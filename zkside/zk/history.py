"""The history of ZooKeeper to which this daemon's zxids belong: a wiped or restored ensemble begins another."""

from __future__ import annotations

from zkside import log
from zkside.core.history import went_back
from zkside.zk.journal import Journal


class History:
    """Counted from 1, over restarts where there is a journal.

    Invariant: zxids are compared only within one history. A new one begins between two sessions, never inside one, so
    whatever belongs to an epoch belongs to one history.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.seen_zxid = journal.zxid
        """The newest of this history that any connection before the present one has seen."""
        self.changes = 0
        """Since the start."""
        self._doubt = ""

    @property
    def number(self) -> int:
        return self._journal.history

    @property
    def former_zxid(self) -> int:
        """The newest zxid that was seen in any history before this one; 0 if there was none."""
        return self._journal.former_zxid

    @property
    def is_to_be_judged(self) -> bool:
        """Whether something was seen before, so that a new session may be one of another history."""
        return self.seen_zxid > 0 or bool(self._doubt)

    def has_seen(self, zxid: int) -> None:
        """A daemon before this one has seen this transaction."""
        self.seen_zxid = max(self.seen_zxid, zxid)

    def doubt(self, reason: str) -> None:
        """What was read contradicts what was read before: the next session begins a new history."""
        self._doubt = self._doubt or reason

    def judge(self, leader_zxid: int) -> None:
        """Begin another history if the leader's answer to a `sync` in a new session says so."""
        reason = self._doubt or went_back(self.seen_zxid, leader_zxid)
        if not reason:
            return
        seen_zxid, self.seen_zxid, self._doubt = self.seen_zxid, 0, ""
        self.changes += 1
        self._journal.begin_history(seen_zxid)
        log.session_history_changed(
            history=self.number, reason=reason, seen_zxid=f"{seen_zxid:#x}", zxid=f"{leader_zxid:#x}"
        )
