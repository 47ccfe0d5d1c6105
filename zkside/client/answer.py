"""What calls answer: each value knows from which zxid it is and whether it is stale (R3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from zkside.client.value import Acl, Header, HoldStatus, Node, Session, Stat
from zkside.errors import ZksideError


@dataclass(frozen=True, slots=True)
class Answer:
    """What every answer carries."""

    header: Header

    @property
    def zxid(self) -> int:
        """All transactions up to this one are reflected; pass it on as `min_zxid` of somebody's read."""
        return self.header.zxid

    @property
    def epoch(self) -> int:
        return self.header.epoch

    @property
    def stale(self) -> bool:
        return self.header.stale

    @property
    def age_s(self) -> float:
        return self.header.age_s


@dataclass(frozen=True, slots=True)
class GetAnswer(Answer):
    """A node."""

    node: Node

    @property
    def path(self) -> str:
        return self.node.path

    @property
    def data(self) -> bytes:
        return self.node.data

    @property
    def stat(self) -> Stat:
        return self.node.stat


@dataclass(frozen=True, slots=True)
class GetManyAnswer(Answer):
    """Several nodes of one consistent cut (R6). `answer[path]` is the node, or None if it is absent."""

    results: dict[str, Node | ZksideError | None]

    def __getitem__(self, path: str) -> Node | None:
        """Raises KeyError for a path that was not asked for, NoAuth for one that may not be read."""
        result = self.results[path]
        if isinstance(result, ZksideError):
            raise result
        return result

    def __iter__(self) -> Iterator[str]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)


@dataclass(frozen=True, slots=True)
class ExistsAnswer(Answer):
    """True if the node exists."""

    stat: Stat | None

    def __bool__(self) -> bool:
        return self.stat is not None


@dataclass(frozen=True, slots=True)
class ListAnswer(Answer):
    """Names of children, sorted; with `with_nodes` the nodes too, by name, but for those that vanished
    meanwhile or may not be read. Iterates over the names."""

    stat: Stat
    names: tuple[str, ...]
    nodes: dict[str, Node]
    next_page_token: str = ""
    unreadable: frozenset[str] = frozenset()
    """With `with_nodes`: the names of those that may not be read."""

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True)
class CreateAnswer(Answer):
    """`path` has the prefix and the sequence number that were added. `stat` is None where the server does
    not tell it."""

    path: str
    stat: Stat | None


@dataclass(frozen=True, slots=True)
class SetAnswer(Answer):
    """`stat` is the node's new one (of set_acl too)."""

    stat: Stat


@dataclass(frozen=True, slots=True)
class DeleteAnswer(Answer):
    """`deleted` counts the nodes that this call deleted."""

    deleted: int


@dataclass(frozen=True, slots=True)
class CheckAnswer(Answer):
    """The node had the version."""


WriteAnswer = CreateAnswer | SetAnswer | DeleteAnswer | CheckAnswer


@dataclass(frozen=True, slots=True)
class TransactAnswer(Answer):
    """One result for each operation, in order; all of them are errors when it was not committed: the reason
    of the one that was refused, ROLLED_BACK before it and NOT_ATTEMPTED behind it (N1)."""

    committed: bool
    results: tuple[WriteAnswer | ZksideError, ...]


@dataclass(frozen=True, slots=True)
class AclAnswer(Answer):
    """A node's access control list."""

    acl: tuple[Acl, ...]
    stat: Stat


@dataclass(frozen=True, slots=True)
class SessionAnswer(Answer):
    """The daemon's session."""

    session: Session


@dataclass(frozen=True, slots=True)
class StatusAnswer(Answer):
    """A daemon in figures."""

    session: Session
    version: str
    uptime_s: float
    holds: int
    streams: int
    server_watches: int
    cached_nodes: int
    cached_bytes: int
    draining: bool
    backend: str


@dataclass(frozen=True, slots=True)
class HoldInfo:
    """A hold as an administrator sees it."""

    hold: HoldStatus
    recipe: str
    age_s: float
    attached: bool


@dataclass(frozen=True, slots=True)
class WatchInfo:
    """A watch on the server."""

    path: str
    recursive: bool
    subscribers: int
    cached_nodes: int
    stale: bool


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """An open stream of the daemon."""

    method: str
    peer: str
    age_s: float
    sent: int
    pending: int


@dataclass(frozen=True, slots=True)
class DrainAnswer(Answer):
    """What a drain ended."""

    ended_streams: int
    released_holds: int


@dataclass(frozen=True, slots=True)
class ReloadAnswer(Answer):
    """What became of reading the daemon's configuration again."""

    applied: tuple[str, ...]
    """Keys that have a new value now."""
    needs_restart: tuple[str, ...]
    """Keys that have no effect before the next start."""
    refused: tuple[str, ...]
    """Certificates, tokens or a policy that could not be read again, with the reason."""
    problems: tuple[str, ...]
    """Why nothing was changed; empty when the configuration is valid."""
    read_again: tuple[str, ...]
    """Certificates, tokens and the policy that were read again."""


@dataclass(frozen=True, slots=True)
class LogLevel:
    """The least that a logger of the daemon writes."""

    logger: str
    """"": all that have none of their own."""
    level: str
    back_in_s: float
    """After so long it is the configured one again; 0: it stays."""


@dataclass(frozen=True, slots=True)
class LogLines(Answer):
    """The last lines of the daemon's log, a JSON object each."""

    lines: tuple[str, ...]
    dropped: int
    """Older lines that are not kept any more."""
