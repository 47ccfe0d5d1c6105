"""How a session is kept, and what can be measured of it."""

from __future__ import annotations

from dataclasses import dataclass

from zkside import log
from zkside.core.lease import LeaseRules, Proof
from zkside.errors import StartError
from zkside.model.session import SessionState, SessionStatus
from zkside.zk.janitor import JanitorStatistics
from zkside.zk.journal import JournalStatistics
from zkside.zk.latency import Latency
from zkside.zk.port import Connecting, ConnectionStatistics


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
    lease_lowest_s: float | None
    """How low it fell in the last minute or two while something was owned; None if nothing was."""
    transitions: dict[tuple[SessionState, SessionState], int]
    latencies: dict[str, Latency]
    """From sending to answer, by operation; the wait in the daemon's own queue shows as `queued` instead."""
    connection: ConnectionStatistics | None
    """Of the present connection object."""
    connecting: Connecting
    ping_late_max_s: float
    """By how much the latest of pings left later than a third of the timeout after the traffic before."""
    proofs_needed: int
    """For how many proofs are being sent; none are sent when it is 0."""
    proofs_sent: int
    listener_errors: int
    history_changes: int
    """How often ZooKeeper's history went back."""
    rebuilds: int
    """How often the connection was made anew because something inside went wrong."""
    janitor: JanitorStatistics
    journal: JournalStatistics


SAY = {
    SessionState.CONNECTING: log.session_connecting,
    SessionState.CONNECTED: log.session_connected,
    SessionState.CONNECTED_READ_ONLY: log.session_read_only,
    SessionState.SUSPENDED: log.session_suspended,
    SessionState.LOST: log.session_lost,
    SessionState.AUTH_FAILED: log.session_auth_failed,
    SessionState.CLOSED: log.session_closed,
}
"""How a state is logged."""
