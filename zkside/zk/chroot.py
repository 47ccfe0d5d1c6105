"""Whether the chroot of the connect string is there. ZooKeeper itself does not care: where it is not, a session begins
all the same, and every request is answered with NO_NODE."""

from __future__ import annotations

import contextlib
from typing import Final

from zkside.errors import (
    ConnectionLoss,
    NodeExists,
    NoNode,
    NotSupported,
    Refused,
    SessionLost,
    SessionSuspended,
    ZksideError,
)
from zkside.model.operation import Acl, Exists, Sync
from zkside.model.path import ancestors
from zkside.zk.socket import Socket
from zkside.zk.wire import CreateOutside

INTERVAL_S: Final = 1.0
"""Between two looks while it is not there."""
LOOK_S: Final = 5.0
"""Between two looks while it is."""


def missing(root: str) -> str:
    """For people."""
    return f"the chroot {root} does not exist"


async def is_there(socket: Socket) -> bool:
    """Raises: ConnectionLoss, SessionSuspended, SessionLost."""
    try:
        if await socket.requests.ask(Exists("/")) is not None:
            return True
        # A server that lags behind may not have heard of it yet. (One that only reads takes no `sync`.)
        with contextlib.suppress(Refused, NotSupported):
            await socket.requests.ask(Sync("/"))
        return await socket.requests.ask(Exists("/")) is not None
    except (ConnectionLoss, SessionSuspended, SessionLost):
        raise
    except ZksideError:
        # From 3.8.4 and 3.9.2 on a node has to be readable to be asked for; a server may be too busy to answer. What
        # cannot be seen is not taken for absent: a session would end by it.
        return True


async def create(socket: Socket, root: str, acl: tuple[Acl, ...]) -> None:
    """Make it, and what is lacking above it. From the node upwards: above it nothing may be allowed, where nothing has
    to be made. Raises: NoAuth and others of Create; ConnectionLoss."""
    wanted = [root]
    while wanted:
        try:
            with contextlib.suppress(NodeExists):
                await socket.requests.ask(CreateOutside(wanted[-1], acl))
            wanted.pop()
        except NoNode:
            above = ancestors(wanted[-1])[0]
            if above == "/":
                raise
            wanted.append(above)
