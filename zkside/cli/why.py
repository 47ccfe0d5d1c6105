"""Why a hold is not, or may soon not be, relied on any more, in plain words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zkside.client import Held

WORDS = {
    "CLIENT_CLOSED": "its connection to the daemon was closed",
    "CONNECTION_LOST": "the daemon has no connection to ZooKeeper",
    "DRAINED": "the daemon asks for it back, as it does before it stops",
    "FORKED": "this process is a child that was forked: the hold is its parent's",
    "HEARTBEAT_MISSED": "no heartbeat came in time",
    "HOLD_LOST": "the daemon does not know the hold any more",
    "INTERNAL": "a defect of zkside",
    "LEASE_OVER": "its lease ended before anything proved that the session lives",
    "NODE_DELETED": "somebody deleted its node",
    "POLICY_DENIED": "the daemon's policy has changed, and does not allow it any more",
    "RELEASED": "it was released",
    "REVOKE_REQUESTED": "somebody asks for it (--revocable)",
    "SESSION_LOST": "the daemon's ZooKeeper session ended, and the node with it",
    "STREAM_ENDED": "the connection to the daemon broke, and the grace time is over",
    "TAKEN_OVER": "another process took it over",
}
"""By the reason of a state, but for those of a hold that goes well."""


def told(reason: str) -> str:
    """With the reason's name, which docs and logs have."""
    return f"{WORDS[reason]} ({reason})" if reason in WORDS else reason or "for an unknown reason"


def of(held: Held) -> tuple[str, str]:
    """Why what runs under this hold has to end now: the reason's name, and words.

    A hold that is held, as far as was told last, is in danger because nothing more is heard of the daemon.
    """
    from zkside.client import HoldState

    if held.revoke_requested.is_set():
        return "REVOKE_REQUESTED", told("REVOKE_REQUESTED")
    if held.lost.is_set():
        return held.lost.reason, told(held.lost.reason)
    if held.state is HoldState.HELD:
        return "DAEMON_SILENT", "the daemon does not answer any more, or this process was stopped for a while"
    return held.status.reason, told(held.status.reason)
