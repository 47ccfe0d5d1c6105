"""What a session is at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from zkside.model.event import KeeperState


class SessionState(Enum):
    """The states of the machine in core/session.py."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    CONNECTED_READ_ONLY = "connected read-only"
    SUSPENDED = "suspended"
    LOST = "lost"
    AUTH_FAILED = "auth failed"
    CLOSED = "closed"

    @property
    def is_connected(self) -> bool:
        """Whether reads can be sent now."""
        return self in (SessionState.CONNECTED, SessionState.CONNECTED_READ_ONLY)


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """A moment of the session's life."""

    state: SessionState
    keeper_state: KeeperState
    session_id: int
    """0 before the first session."""
    epoch: int
    """0 before the first session."""
    timeout_s: float
    """As negotiated; 0 before the first session."""
    server: str
    """'host:port'; '' while there is none."""
    read_only: bool
    reason: str
    sequence: int
    """Grows by one with every change of state."""
    history: int = 1
    """The number of ZooKeeper's history: another one begins where its zxids went back. Belongs to the epoch."""

    @property
    def session_id_hex(self) -> str:
        return hex_of(self.session_id)


def hex_of(session_id: int) -> str:
    """As ZooKeeper prints it: a session id is 64 bits without a sign, and begins with the server's number. "" for 0."""
    return f"{session_id & 0xFFFF_FFFF_FFFF_FFFF:#x}" if session_id else ""
