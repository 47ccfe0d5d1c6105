"""What can be watched, and what a change is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import NamedTuple

from zkside.model.record import Record


class Scope(IntEnum):
    """How much of the tree a target covers; the value is the number of levels below its path.

    (An IntEnum, since it is a part of keys on hot paths: an Enum is hashed by Python code.)
    """

    NODE = 0
    CHILDREN = 1
    SUBTREE = 1_000_000


@dataclass(frozen=True, slots=True)
class Target:
    """What a STATE subscriber watches. Equal targets share one feed."""

    path: str
    scope: Scope
    with_data: bool = True


class WatchKind(Enum):
    """The ZooKeeper call that would set such a watch: exists, getData, getChildren, addWatch."""

    EXISTS = "exists"
    DATA = "data"
    CHILDREN = "children"
    PERSISTENT = "persistent"
    PERSISTENT_RECURSIVE = "persistent recursive"


@dataclass(frozen=True, slots=True)
class EventTarget:
    """What an EVENTS subscriber watches."""

    path: str
    kind: WatchKind
    one_shot: bool = False


class Place(NamedTuple):
    """A part of the tree that somebody watches, for people."""

    path: str
    scope: Scope


class ChangeType(Enum):
    """What happened to a path between two states."""

    CREATED = "created"
    CHANGED = "changed"
    DELETED = "deleted"
    RECREATED = "recreated"
    """Exists before and after, but as another node (another czxid)."""
    UNREADABLE = "unreadable"
    """Exists, and may not be read (any more)."""


class Change(NamedTuple):
    """The latest state of one path; `record` is None when it was deleted, UNREADABLE when it may not be read."""

    type: ChangeType
    zxid: int
    path: str
    record: Record | None
