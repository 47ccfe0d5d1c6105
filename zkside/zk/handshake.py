"""From a socket to one that carries the session: session, authentication. (TCP and TLS: zk/dialing.py.)"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass

from zkside.errors import ConnectionLoss, NoAuth
from zkside.zk.kazoo_parts import auth_body, connect_request, connect_response, error_text
from zkside.zk.port import Ending, Ticket
from zkside.zk.sasl import SaslError, SaslSettings, negotiate
from zkside.zk.socket import Socket
from zkside.zk.wire import REPLY_HEADER, SaslStep


class Ended(Exception):
    """The session is over."""

    def __init__(self, ending: Ending, reason: str) -> None:
        super().__init__(reason)
        self.ending = ending
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Session:
    """What a server granted."""

    ticket: Ticket
    negotiated_timeout_s: float
    read_only: bool


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who we are."""

    auth: tuple[tuple[str, str], ...]
    sasl: SaslSettings | None


async def take_up_session(
    socket: Socket, wanted: Ticket | None, timeout_s: float, within_s: float, *, read_only: bool
) -> Session:
    """A new session, or the wanted one. From here on the socket looks after itself.

    Raises: Ended (EXPIRED) if the wanted one is gone; ConnectionLoss, TimeoutError, struct.error.
    """
    socket.greet(
        connect_request(
            last_zxid=socket.last_zxid,
            timeout_ms=round(timeout_s * 1000),
            session_id=wanted.session_id if wanted else 0,
            password=wanted.password if wanted else bytes(16),
            read_only=read_only,
        )
    )
    async with asyncio.timeout(within_s):
        frame = await socket.greeting
    if len(frame) == REPLY_HEADER.size:  # a read-only server without local sessions says no like this
        raise ConnectionLoss(f"no session: {error_text(REPLY_HEADER.unpack(frame)[2])}")
    granted = connect_response(frame)
    if granted.timeout_ms <= 0 or not granted.session_id:
        raise Ended(Ending.EXPIRED, "ZooKeeper says that the session has expired")
    if wanted and granted.session_id != wanted.session_id:
        raise Ended(Ending.EXPIRED, "ZooKeeper answered with another session")
    socket.watch_over(granted.timeout_ms / 1000)
    ticket = Ticket(granted.session_id, granted.password, socket.last_zxid)
    return Session(ticket, granted.timeout_ms / 1000, granted.read_only)


async def authenticate(socket: Socket, host: str, credentials: Credentials) -> None:
    """Raises: Ended (AUTH_FAILED); ConnectionLoss."""
    if credentials.sasl is not None:
        try:
            await negotiate(credentials.sasl, host, lambda token: socket.requests.ask(SaslStep(token)))
        except (SaslError, NoAuth) as error:
            raise Ended(Ending.AUTH_FAILED, f"SASL {credentials.sasl.mechanism}: {error}") from error
    for scheme, credential in credentials.auth:
        code = await socket.authenticate(auth_body(scheme, credential))
        if code:
            raise Ended(Ending.AUTH_FAILED, f"authentication by {scheme!r}: {error_text(code)}")


FAILURES = (OSError, TimeoutError, struct.error, ConnectionLoss)
"""After which the next server is tried."""
