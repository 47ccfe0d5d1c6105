"""Where an answer stays that did not come in time: with the daemon, or with ZooKeeper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zkside.errors import DeadlineExceeded, ZksideError

if TYPE_CHECKING:
    from zkside.client import Client, Session

ASK_S = 1.0
"""So long the daemon may take to tell of its session, which it does from memory."""


async def explained(client: Client, error: DeadlineExceeded) -> DeadlineExceeded:
    """The error with what the daemon says of its session meanwhile; as it is if it is not about a call."""
    if "address" not in error.metadata:
        return error
    try:
        session = (await client.session(timeout_s=ASK_S)).session
    except DeadlineExceeded:
        told = (
            "The daemon is silent altogether: it hangs or is stopped (`zkside debug bundle` gathers what can be known)"
        )
        return DeadlineExceeded(f"{error}. {told}", **error.metadata)
    except ZksideError as another:
        return DeadlineExceeded(f"{error}. {another}", **error.metadata)
    return DeadlineExceeded(f"{error}. {of_session(session)}", **error.metadata, session=session.state.name)


def of_session(session: Session) -> str:
    """Why a call may be late although the daemon answers."""
    if session.state.is_connected:
        return f"The daemon is there, so it waits for ZooKeeper: its server {session.server} has not answered in time"
    reason = session.reason
    if session.last_error and session.last_error not in reason:
        reason = f"{reason}; {session.last_error}" if reason else session.last_error
    return f"The daemon is there and has no connection to ZooKeeper: its session is {session.state.name} ({reason})"
