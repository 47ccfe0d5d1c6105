"""A read whose answer was lost with the connection to ZooKeeper is done again: it has changed nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.protobuf.descriptor import MethodDescriptor

from zkside.errors import ConnectionLoss, SessionSuspended
from zkside.zk.session import Session

T = TypeVar("T")

PATIENCE_S = 2.0
"""How long a connection may take to come back for it; a reconnect to another server takes a tenth of that."""
ANSWER_MARGIN_S = 0.02
"""So long before its caller's deadline it ends, so that the caller hears SESSION_SUSPENDED."""

_READING = ("Check", "Exists", "Get", "List", "Sync")
"""What the names of methods begin with that change nothing."""


def only_reads(method: MethodDescriptor) -> bool:
    """Whether a call of this method can be done twice without a difference."""
    return not method.server_streaming and method.name.startswith(_READING)


async def read_again(session: Session, read: Callable[[], Awaitable[T]], deadline_s: float | None) -> T:
    """Do a read again once the connection is back, as often as it is lost.

    `deadline_s`: of the caller, by the event loop's clock. Raises: SessionSuspended, if the connection is not back in
    time; what the read raises.
    """
    until_s = asyncio.get_running_loop().time() + PATIENCE_S
    if deadline_s is not None:
        until_s = min(until_s, deadline_s - ANSWER_MARGIN_S)
    scope = asyncio.timeout_at(until_s)
    try:
        async with scope:
            while True:
                await session.wait_connected(read_only=True)
                try:
                    return await read()
                except ConnectionLoss:
                    continue
                except SessionSuspended:
                    # By a connection that only reads some reads are refused, and will be again.
                    if session.status.state.is_connected:
                        raise
    except TimeoutError:
        if not scope.expired():
            raise
    raise SessionSuspended("the connection was lost while this was read, and was not back in time")
