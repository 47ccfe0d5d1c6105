"""The port: all that zkside asks of a ZooKeeper client library.

One `Connection` object is one ZooKeeper session over any number of TCP connections: it reconnects by itself
inside the session, sets its watches again, and is dead for good once `ended` was called. A new session is a
new object (GUARANTEES S4). Everything happens on one event loop.

Ordering: operations reach the server in the order of the `call`s; those that yield do so among themselves, and others
may overtake them. `Listener.event` and the completion of
replies happen in the order of the wire; a task that awaits a reply may run after later events, which is why
every event carries `since` (see model/event.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, TypeVar

from zkside.model.event import WatchedEvent
from zkside.model.operation import Operation, Reply

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ticket:
    """What it takes to take up a session again."""

    session_id: int
    password: bytes
    last_zxid: int


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection to a server is up, authenticated, and its watches are set."""

    ticket: Ticket
    negotiated_timeout_s: float
    server: str
    read_only: bool
    resumed: bool
    """False on the first connection of a new session."""


class Ending(Enum):
    """How a session ended."""

    EXPIRED = "expired"
    AUTH_FAILED = "auth failed"
    CLOSED = "closed"


class Listener(Protocol):
    """Called on the event loop, synchronously, in the order in which things happened; must not raise."""

    def connected(self, connected: Connected) -> None: ...

    def suspended(self, reason: str) -> None:
        """The connection is gone, the session may live; reconnecting goes on. Called before the requests
        that were under way fail."""

    def ended(self, ending: Ending, reason: str) -> None:
        """The session is over; nothing is called after this."""

    def event(self, event: WatchedEvent) -> None:
        """A watched event of a node (never of type NONE)."""

    def acknowledged(self, operation: Operation[object] | None, sent_boottime_ns: int) -> None:
        """The server answered what was sent then; None is a ping. Feeds the lease."""


@dataclass(frozen=True, slots=True)
class Connecting:
    """How connecting goes, since the start of the daemon."""

    last_error: str = ""
    """Of the last attempt that came to nothing, in a line that names each server; '' if there was none. It stays when a
    later attempt succeeds."""
    last_error_unix_s: float = 0.0
    stands: bool = False
    """Whether it still stands in the way: no attempt has succeeded since."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """Servers that could not be reached or did not take us, counted by reason (dialing.REASONS)."""


@dataclass(frozen=True, slots=True)
class ConnectionStatistics:
    """For metrics; all counted since the object was made."""

    in_flight: int
    queued: int
    sent: int
    received_bytes: int
    sent_bytes: int
    events: int
    connects: int
    refused: int
    """Requests, because too many waited to be sent."""
    errors: int
    """For which the connection was made anew: bytes that made no sense, or a mistake in dealing with them."""
    connecting: Connecting = Connecting()


class Connection(Protocol):
    """One ZooKeeper session."""

    @property
    def last_zxid(self) -> int:
        """The newest zxid in any reply so far."""

    def start(self) -> None:
        """Begin to connect; returns at once."""

    def call(self, operation: Operation[T], *, yields: bool = False) -> asyncio.Future[Reply[T]]:
        """Send an operation. Never blocks; requests beyond the in-flight limit wait here, in order.

        `yields`: it is a client's. Those of the session itself go before it, and it does not use up their limits.

        Raises (in the future): the error classes that the operation names; SessionSuspended if it was not sent
        because there is no connection; ConnectionLoss if it was sent and the answer was lost; SessionLost if
        the session has ended; Quota if too many wait; TooLarge if it is over jute.maxbuffer. Cancellation:
        cancelling the future takes the request back if it was not sent yet; a sent one stays sent, and its
        answer is dropped.
        """

    async def close(self, *, within_s: float) -> None:
        """End the session (its ephemerals are deleted), or give up after this time and cut the connection."""

    def abandon(self) -> None:
        """Cut the connection at once and leave the session to the server; nothing is sent any more."""

    def statistics(self) -> ConnectionStatistics: ...


Connector = Callable[[Listener, Ticket | None], Connection]
"""Makes a connection; with a ticket it takes up that session again, or ends (EXPIRED) if it is gone."""
