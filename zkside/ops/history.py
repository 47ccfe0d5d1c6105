"""The changes of the session and what else happened lately, with their times, for people."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from zkside.core.recent import Happening, Recent
from zkside.model.session import SessionState, SessionStatus
from zkside.zk.session import Session

_NAMES = {
    SessionState.CONNECTING: "session.connecting",
    SessionState.CONNECTED: "session.connected",
    SessionState.CONNECTED_READ_ONLY: "session.read_only",
    SessionState.SUSPENDED: "session.suspended",
    SessionState.LOST: "session.lost",
    SessionState.AUTH_FAILED: "session.auth_failed",
    SessionState.CLOSED: "session.closed",
}
"""As the log has them."""


class History:
    """Follows the session from `start` to `stop`, and collects what the other parts have noted."""

    def __init__(self, session: Session, others: Iterable[Recent]) -> None:
        self._session = session
        self._others = tuple(others)
        self._own = Recent(time.time)
        self._unlisten: Callable[[], None] = lambda: None
        self.since_s = time.time()
        """When the session came into its present state, in seconds since 1970."""
        self.lost_s: float | None = None
        """When the session was lost, if none has begun since."""

    def start(self) -> None:
        self._unlisten = self._session.listen(status=self._on_status)

    def stop(self) -> None:
        self._unlisten()

    def list(self) -> list[Happening]:
        """The newest first. Bounded: a few of each kind."""
        found = [each for recent in (self._own, *self._others) for each in recent.list()]
        found.sort(key=lambda happening: happening.at_s, reverse=True)
        return found

    def _on_status(self, status: SessionStatus) -> None:
        self.since_s = time.time()
        if status.state is SessionState.LOST:
            self.lost_s = self.since_s
        elif status.state.is_connected:
            self.lost_s = None
        self._own.note(_NAMES[status.state], "", status.reason)
