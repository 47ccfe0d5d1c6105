"""ZooKeeper in process: one tree, its sessions and their expiry. A development tool: nothing is stored.

What a session does arrives through links (memory_network.py) from connections (memory.py).
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

from zkside import errors
from zkside.errors import ZksideError
from zkside.model import path as paths
from zkside.model.event import EventType
from zkside.model.operation import (
    AddWatch,
    Check,
    Create,
    Delete,
    GetEphemerals,
    Operation,
    RemoveWatch,
    SetAcl,
    SetData,
    Sync,
    Transaction,
)
from zkside.model.session import hex_of
from zkside.zk.clock import Clock, SystemClock, Timer
from zkside.zk.memory_acl import READ, Identities, Identity, allows, digest_identity
from zkside.zk.memory_network import Link, MemoryNetwork
from zkside.zk.memory_tree import Change, Transition, Tree
from zkside.zk.port import Ticket

T = TypeVar("T")

_WRITES = (Create, SetData, Delete, Check, SetAcl, Transaction)


@dataclass(frozen=True, slots=True)
class CloseSession(Operation[None]):
    """The last request of a session."""


class Answer(NamedTuple):
    """To the oldest request of a connection that has none yet."""

    zxid: int
    value: Any
    """An error is an instance of ZksideError."""


class Event(NamedTuple):
    """Of a watch; zxid 0 where servers do not tell."""

    type: EventType
    path: str
    zxid: int


@dataclass(slots=True, eq=False)
class Session:
    """What the servers know of a session."""

    id: int
    password: bytes
    timeout_ns: int
    is_local: bool
    """Begun on a read-only server: gone with it."""
    identities: Identities
    expires_ns: int = 0
    timer: Timer | None = None
    attachment: Attachment | None = None


@dataclass(slots=True, eq=False)
class Attachment:
    """A session's connection, as the server sees it. Watches belong to a connection."""

    session: Session
    link: Link[Operation[Any] | None, Answer | Event]
    watches: dict[str, bool] = field(default_factory=dict)
    """By path; True is recursive."""

    def hears(self, change: Change) -> bool:
        """Whether one of its watches fires, and it may know. Source: WatchManager, NIOServerCnxn.process."""
        return self._watches(change) and allows(change.acl, READ, self.session.identities)

    def _watches(self, change: Change) -> bool:
        if change.type is EventType.NODE_CHILDREN_CHANGED:
            return self.watches.get(change.path) is False
        if change.path in self.watches:
            return True
        return any(self.watches.get(above) for above in paths.ancestors(change.path))


@dataclass(frozen=True, slots=True)
class Hello:
    """What a client says on a new connection."""

    ticket: Ticket | None
    timeout_s: float
    auth: tuple[tuple[str, str], ...]
    read_only: bool
    """Whether it takes a server that is read-only."""
    watches: dict[str, bool]


class MemoryZooKeeper:
    """All servers of an ensemble in one object, always of one mind.

    `network` is the one that connections use by default; `event_zxids` says whether watch events name
    their transaction, as since 3.9.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        tick_s: float = 2.0,
        event_zxids: bool = True,
        container_check_s: float = 60.0,
    ) -> None:
        self.clock = clock or SystemClock()
        self.network = MemoryNetwork(self.clock)
        self.tree = Tree()
        self.zxid = 0
        self.requests: Counter[str] = Counter()
        """Received so far, by the operation's name; "Ping" for pings."""
        self.is_read_only = False
        self._event_zxids = event_zxids
        self._tick_ns = int(tick_s * 1e9)
        self._container_check_ns = int(container_check_s * 1e9)
        self._sessions: dict[int, Session] = {}
        self._next_session_id = 0x100000000000001
        self._perish_timer: Timer | None = None
        self._wall_offset_ms = time.time_ns() // 1_000_000 - self.clock.boottime_ns() // 1_000_000

    @property
    def session_ids(self) -> list[int]:
        """Of the sessions alive."""
        return list(self._sessions)

    @property
    def watches(self) -> list[tuple[int, str, bool]]:
        """All watches set: session id, path, whether it is recursive."""
        return [
            (attachment.session.id, path, recursive)
            for attachment in self._attachments()
            for path, recursive in attachment.watches.items()
        ]

    def apply(self, write: Operation[T]) -> T:
        """Carry out a write at once, as a stranger without a session. Raises what the operation names."""
        transition = self._transition()
        value: T = self.tree.write(write, transition)
        self._fire(transition)
        return value

    def expire(self, session_id: int) -> None:
        """End a session as if its time had passed. Raises: KeyError if there is none."""
        session = self._sessions[session_id]
        attachment = session.attachment
        self._end(session)
        if attachment is not None:
            attachment.link.close_by_server("the session has expired")

    def set_read_only(self, read_only: bool) -> None:
        """Lose the quorum, or find it again: every connection is closed, and only those that take a
        read-only server find one meanwhile. No session expires without a quorum."""
        if read_only == self.is_read_only:
            return
        self.is_read_only = read_only
        for attachment in list(self._attachments()):
            self._detach(attachment, "the server has lost its quorum" if read_only else "a quorum is back")
        for session in list(self._sessions.values()):
            if session.is_local:
                self._forget(session)
            else:
                self._touch(session)

    def attach(
        self,
        network: MemoryNetwork,
        hello: Hello,
        *,
        to_client: Callable[[Answer | Event], None],
        on_cut: Callable[[str], None],
    ) -> Attachment:
        """Begin or take up a session on a new connection.

        Raises: SessionSuspended if there is no server for this client now, SessionLost if the session asked
        for is gone, NoAuth if the client's credentials are no good.
        """
        if self.is_read_only and not hello.read_only:
            raise errors.SessionSuspended("only a read-only server is there")
        identities = _identities(hello.auth)
        session = self._begin(hello, identities) if hello.ticket is None else self._take_up(hello.ticket)
        session.identities = identities
        self._touch(session)
        if session.attachment is not None:
            self._detach(session.attachment, "the session has moved to another connection")
        link: Link[Operation[Any] | None, Answer | Event] = Link(
            network,
            to_server=lambda operation: self._receive(attachment, network, operation),
            to_client=to_client,
            on_cut=lambda reason: self._cut(attachment, on_cut, reason),
        )
        attachment = Attachment(session, link, dict(hello.watches))
        session.attachment = attachment
        return attachment

    def _begin(self, hello: Hello, identities: Identities) -> Session:
        timeout_ns = min(max(int(hello.timeout_s * 1e9), 2 * self._tick_ns), 20 * self._tick_ns)
        session = Session(self._next_session_id, secrets.token_bytes(16), timeout_ns, self.is_read_only, identities)
        self._next_session_id += 1
        self._sessions[session.id] = session
        if not session.is_local:
            self.zxid += 1
        return session

    def _take_up(self, ticket: Ticket) -> Session:
        session = self._sessions.get(ticket.session_id)
        if session is None or session.password != ticket.password:
            raise errors.SessionLost(f"session {hex_of(ticket.session_id)} has expired")
        return session

    def _receive(self, attachment: Attachment, network: MemoryNetwork, operation: Operation[Any] | None) -> None:
        session = attachment.session
        self._touch(session)
        self.requests["Ping" if operation is None else type(operation).__name__] += 1
        if operation is None:
            attachment.link.down.send(Answer(self.zxid, None))
            return
        if network.requests_to_lose:
            network.requests_to_lose -= 1
            attachment.link.cut("connection reset")
            return
        try:
            value = self._perform(attachment, operation)
        except ZksideError as error:
            value = error
        if network.replies_to_lose:
            network.replies_to_lose -= 1
            attachment.link.cut("connection reset")
            return
        attachment.link.down.send(Answer(self.zxid, value))
        if isinstance(operation, CloseSession):
            attachment.link.close_by_server("the session is closed")

    def _perform(self, attachment: Attachment, operation: Operation[Any]) -> Any:
        session = attachment.session
        match operation:
            case AddWatch(path, recursive):
                attachment.watches[path] = recursive
            case RemoveWatch(path):
                attachment.watches.pop(path, None)
            case GetEphemerals():
                return list(self.tree.ephemerals.get(session.id, ()))
            case CloseSession():
                self._end(session)
            case Sync():
                return None
            case _ if not isinstance(operation, _WRITES):
                return self.tree.read(operation, session.identities)
            case _ if self.is_read_only:
                raise errors.SessionSuspended("the server is read-only")
            case _:
                transition = self._transition(session)
                value = self.tree.write(operation, transition)
                self._fire(transition)
                return value
        return None

    def _transition(self, session: Session | None = None) -> Transition:
        self.zxid += 1
        session_id, identities = (session.id, session.identities) if session is not None else (0, frozenset())
        return Transition(self.zxid, self._wall_ms(), session_id, identities)

    def _fire(self, transition: Transition) -> None:
        """Events leave before the answer to the write that caused them, and before any that reflects it."""
        zxid = transition.zxid if self._event_zxids else 0
        for attachment in self._attachments():
            if attachment.watches:
                for change in transition.changes:
                    if attachment.hears(change):
                        attachment.link.down.send(Event(change.type, change.path, zxid))
        if self.tree.perishable and self._perish_timer is None:
            self._perish_timer = self._after(self._container_check_ns, self._remove_perished)

    def _remove_perished(self) -> None:
        self._perish_timer = None
        for path in self.tree.perished(self._wall_ms()):
            transition = self._transition()
            self.tree.remove(path, transition)
            self._fire(transition)
        if self.tree.perishable and self._perish_timer is None:
            self._perish_timer = self._after(self._container_check_ns, self._remove_perished)

    def _touch(self, session: Session) -> None:
        # To the next tick: a session ends between its timeout and one tick later (ExpiryQueue).
        ticks = (self.clock.boottime_ns() + session.timeout_ns) // self._tick_ns + 1
        session.expires_ns = ticks * self._tick_ns
        if session.timer is None:
            session.timer = self.clock.call_at(session.expires_ns, partial(self._check_expiry, session))

    def _check_expiry(self, session: Session) -> None:
        session.timer = None
        if self.is_read_only:
            self._touch(session)
        elif self.clock.boottime_ns() >= session.expires_ns:
            self.expire(session.id)
        else:
            session.timer = self.clock.call_at(session.expires_ns, partial(self._check_expiry, session))

    def _end(self, session: Session) -> None:
        self._forget(session)
        transition = self._transition(session)
        for path in list(self.tree.ephemerals.get(session.id, ())):
            self.tree.remove(path, transition)
        self._fire(transition)

    def _forget(self, session: Session) -> None:
        del self._sessions[session.id]
        session.attachment = None
        if session.timer is not None:
            session.timer.cancel()

    def _detach(self, attachment: Attachment, reason: str) -> None:
        attachment.session.attachment = None
        attachment.link.close_by_server(reason)

    def _cut(self, attachment: Attachment, on_cut: Callable[[str], None], reason: str) -> None:
        if attachment.session.attachment is attachment:
            attachment.session.attachment = None
        on_cut(reason)

    def _attachments(self) -> Iterator[Attachment]:
        return (session.attachment for session in self._sessions.values() if session.attachment is not None)

    def _after(self, delay_ns: int, callback: Callable[[], None]) -> Timer:
        return self.clock.call_at(self.clock.boottime_ns() + delay_ns, callback)

    def _wall_ms(self) -> int:
        return self.clock.boottime_ns() // 1_000_000 + self._wall_offset_ms


def _identities(auth: tuple[tuple[str, str], ...]) -> Identities:
    identities = {Identity("ip", "127.0.0.1")}
    for scheme, credential in auth:
        if scheme != "digest" or ":" not in credential:
            raise errors.NoAuth(f"the server does not know the scheme {scheme!r} or refuses its credential")
        identities.add(digest_identity(credential))
    return frozenset(identities)
