"""What ZooKeeper tells unasked: watched events, and the states of a session."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class EventType(Enum):
    """ZooKeeper's EventType; the values are those on the wire."""

    NONE = -1
    NODE_CREATED = 1
    NODE_DELETED = 2
    NODE_DATA_CHANGED = 3
    NODE_CHILDREN_CHANGED = 4


class KeeperState(Enum):
    """ZooKeeper's KeeperState; the values are those on the wire."""

    DISCONNECTED = 0
    SYNC_CONNECTED = 3
    AUTH_FAILED = 4
    CONNECTED_READ_ONLY = 5
    SASL_AUTHENTICATED = 6
    EXPIRED = -112
    CLOSED = 7


class WatchedEvent(NamedTuple):
    """A notification. `path` is '' for a change of the session (type NONE)."""

    type: EventType
    state: KeeperState
    path: str
    zxid: int = 0
    """The transaction; 0 where the server does not tell (before 3.9)."""
    since: int = 0
    """A lower bound of the transaction: `zxid` where it is known, otherwise one more than the newest zxid of
    any reply that came before the event. Holds because the server sends the events of a transaction
    before any reply that reflects it."""
