"""What can be asked of ZooKeeper: frozen values, each typed by its result."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Generic, NamedTuple, TypeVar

from zkside.errors import ZksideError
from zkside.model.record import Record
from zkside.model.stat import Stat

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

ANY_VERSION = -1


class Operation(Generic[T_co]):
    """Something to ask of ZooKeeper whose answer carries a T."""

    __slots__ = ()


class Reply(NamedTuple, Generic[T]):
    """An answer: the zxid in its header (all up to there is reflected), and the result."""

    zxid: int
    value: T


class CreateMode(Enum):
    """ZooKeeper's CreateMode; the values are the flags on the wire."""

    PERSISTENT = 0
    EPHEMERAL = 1
    PERSISTENT_SEQUENTIAL = 2
    EPHEMERAL_SEQUENTIAL = 3
    CONTAINER = 4
    PERSISTENT_WITH_TTL = 5
    PERSISTENT_SEQUENTIAL_WITH_TTL = 6

    @property
    def is_ephemeral(self) -> bool:
        return self in (CreateMode.EPHEMERAL, CreateMode.EPHEMERAL_SEQUENTIAL)

    @property
    def is_sequential(self) -> bool:
        return self in (
            CreateMode.PERSISTENT_SEQUENTIAL,
            CreateMode.EPHEMERAL_SEQUENTIAL,
            CreateMode.PERSISTENT_SEQUENTIAL_WITH_TTL,
        )

    @property
    def has_ttl(self) -> bool:
        return self in (CreateMode.PERSISTENT_WITH_TTL, CreateMode.PERSISTENT_SEQUENTIAL_WITH_TTL)


class Acl(NamedTuple):
    """One entry of an access control list; permissions are READ 1, WRITE 2, CREATE 4, DELETE 8, ADMIN 16."""

    permissions: int
    scheme: str
    id: str


OPEN_ACL = (Acl(31, "world", "anyone"),)


@dataclass(frozen=True, slots=True)
class GetData(Operation[Record]):
    """Raises NoNode, NoAuth."""

    path: str


@dataclass(frozen=True, slots=True)
class Exists(Operation[Stat | None]):
    """None if the node is absent. Raises NoAuth (from servers that ask for the right to read, as 3.9.5 does)."""

    path: str


@dataclass(frozen=True, slots=True)
class GetChildren(Operation[tuple[list[str], Stat]]):
    """The names, in no order, and the parent's Stat. Raises NoNode, NoAuth."""

    path: str


ReadResult = Record | list[str] | ZksideError
"""Of GetData a record, of GetChildren the names (inside ReadMany without the Stat), or why not."""


@dataclass(frozen=True, slots=True)
class ReadMany(Operation[list[ReadResult]]):
    """One consistent cut of the answering server, at the reply's zxid; a result for each read, in order.

    ZooKeeper's multiRead (3.6+). On an older server the backend falls back to pipelined reads, which is no
    cut.
    """

    reads: tuple[GetData | GetChildren, ...]


@dataclass(frozen=True, slots=True)
class Created:
    """What a create made."""

    path: str
    stat: Stat | None
    """None where the server does not tell: in a transaction, or from one older than 3.5 (3.6 for containers
    and TTL nodes)."""


@dataclass(frozen=True, slots=True)
class Create(Operation[Created]):
    """Raises NodeExists, NoNode (no parent), NoChildrenForEphemerals, InvalidAcl, NoAuth, NotSupported."""

    path: str
    data: bytes = b""
    mode: CreateMode = CreateMode.PERSISTENT
    acl: tuple[Acl, ...] = OPEN_ACL
    ttl_ms: int = 0


@dataclass(frozen=True, slots=True)
class SetData(Operation[Stat]):
    """Raises NoNode, BadVersion, NoAuth."""

    path: str
    data: bytes
    version: int = ANY_VERSION


@dataclass(frozen=True, slots=True)
class Delete(Operation[None]):
    """Raises NoNode, BadVersion, NotEmpty, NoAuth."""

    path: str
    version: int = ANY_VERSION


@dataclass(frozen=True, slots=True)
class Check(Operation[None]):
    """Only inside a Transaction. Raises NoNode, BadVersion."""

    path: str
    version: int = ANY_VERSION


Write = Create | SetData | Delete | Check
WriteResult = Created | Stat | None | ZksideError


@dataclass(frozen=True, slots=True)
class TransactionResult:
    """`results` has one entry for each operation, in order; when not committed all of them are errors."""

    committed: bool
    results: tuple[WriteResult, ...]


@dataclass(frozen=True, slots=True)
class Transaction(Operation[TransactionResult]):
    """All or nothing, at one zxid. A refused one is a result, not an exception."""

    operations: tuple[Write, ...]


@dataclass(frozen=True, slots=True)
class Sync(Operation[None]):
    """The reply's zxid is how far the server has caught up with the leader, at least."""

    path: str = "/"


@dataclass(frozen=True, slots=True)
class GetAcl(Operation[tuple[tuple[Acl, ...], Stat]]):
    """Raises NoNode, NoAuth."""

    path: str


@dataclass(frozen=True, slots=True)
class SetAcl(Operation[Stat]):
    """`version` is compared with Stat.aversion. Raises NoNode, InvalidAcl, BadVersion, NoAuth."""

    path: str
    acl: tuple[Acl, ...]
    version: int = ANY_VERSION


@dataclass(frozen=True, slots=True)
class AddWatch(Operation[None]):
    """A persistent watch (absent paths too). On a path that has one, recursive replaces plain.

    Stays over reconnects of the session (the backend sets it again), but what changed while disconnected is
    not reported: compare after every reconnect. Where the server lacks persistent watches the backend keeps
    it alive with one-shot watches, to the same effect.
    """

    path: str
    recursive: bool = False


@dataclass(frozen=True, slots=True)
class RemoveWatch(Operation[None]):
    """Remove the path's persistent watch, of either kind. Removing one that is not there is no error."""

    path: str


@dataclass(frozen=True, slots=True)
class GetEphemerals(Operation[list[str]]):
    """All ephemeral nodes of this session, below the chroot."""
