"""What watches hand out: frozen values shared by all subscribers of a process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from zkside.client.value import Header, KeeperState, Node, Session, WireEnum


class Scope(WireEnum):
    """What of a target is watched."""

    NODE = 1
    """Existence, data and Stat of the node; the coming and going of children is no change."""
    CHILDREN = 2
    SUBTREE = 3


class ChangeType(WireEnum):
    """What happened to a path."""

    UNSPECIFIED = 0
    CREATED = 1
    CHANGED = 2
    DELETED = 3
    RECREATED = 4
    """Exists as before, but is another node: deleted and created again in between."""
    UNREADABLE = 5
    """Exists, and the daemon's identity may not read it (any more): nothing is known of it. When it may again that is
    CHANGED."""


class SnapshotReason(WireEnum):
    """Why the whole state is handed out."""

    UNSPECIFIED = 0
    INITIAL = 1
    RESUME_TOO_OLD = 2
    """The stream broke, and what happened since is not known any more."""
    OVERFLOW = 3
    """The stream fell behind further than the daemon remembers."""
    HISTORY_CHANGED = 4
    """ZooKeeper was wiped, or restored from an older snapshot: zxids and fencing tokens of before cannot be compared
    with later ones."""


class WatchKind(WireEnum):
    """Which ZooKeeper call sets the watch of an events target."""

    EXISTS = 1
    DATA = 2
    CHILDREN = 3
    PERSISTENT = 4
    PERSISTENT_RECURSIVE = 5


class EventType(WireEnum):
    """ZooKeeper's."""

    UNSPECIFIED = 0
    NONE = 1
    NODE_CREATED = 2
    NODE_DELETED = 3
    NODE_DATA_CHANGED = 4
    NODE_CHILDREN_CHANGED = 5


class GapReason(WireEnum):
    """Why events are missing."""

    UNSPECIFIED = 0
    OVERFLOW = 1
    DISCONNECTED = 2
    """The daemon was cut off from ZooKeeper, or this process from the daemon."""


@dataclass(frozen=True, slots=True)
class Target:
    """What to watch in STATE mode. Without `with_data` the nodes come with their Stat only."""

    path: str
    scope: Scope = Scope.NODE
    with_data: bool = True


@dataclass(frozen=True, slots=True)
class EventTarget:
    """What to watch in EVENTS mode; `one_shot` as ZooKeeper's watches are, not for the persistent kinds."""

    path: str
    kind: WatchKind = WatchKind.PERSISTENT
    one_shot: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole state of one target: replaces all that was known of it. Nothing in `nodes` and `unreadable`: the node
    is absent."""

    header: Header
    target: Target
    reason: SnapshotReason
    nodes: Mapping[str, Node]
    """By path."""
    unreadable: frozenset[str] = frozenset()
    """Paths of nodes that exist and may not be read: they are not in `nodes`."""

    @property
    def zxid(self) -> int:
        return self.header.zxid


class Change(NamedTuple):
    """The latest state of one path."""

    target: Target
    type: ChangeType
    zxid: int
    path: str
    node: Node | None
    """None when DELETED or UNREADABLE."""


@dataclass(frozen=True, slots=True)
class Changes:
    """One complete cut, or several merged: sorted by zxid, a path of a target stands in it once, all of a
    transaction together (W6)."""

    header: Header
    changes: tuple[Change, ...]

    @property
    def zxid(self) -> int:
        return self.header.zxid


@dataclass(frozen=True, slots=True)
class Bookmark:
    """All up to this zxid has been handed out (W5)."""

    header: Header

    @property
    def zxid(self) -> int:
        return self.header.zxid


@dataclass(frozen=True, slots=True)
class SessionChanged:
    """The state of the session that keeps the targets current has changed."""

    header: Header
    session: Session

    @property
    def zxid(self) -> int:
        return self.header.zxid


WatchEvent = Snapshot | Changes | Bookmark | SessionChanged


@dataclass(frozen=True, slots=True)
class WatchedEvent:
    """ZooKeeper's WatchedEvent (W10)."""

    type: EventType
    state: KeeperState
    path: str
    """'' for a change of the session (type NONE)."""
    zxid: int
    """0 where the server does not tell."""
    target: EventTarget | None
    """None for type NONE."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Events are missing before this point."""

    reason: GapReason
    dropped: int
    """How many, where that is known."""
