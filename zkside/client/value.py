"""What the SDK hands out about nodes, sessions and holds: frozen values, made from messages in one place.

Enumerations have the numbers of the .proto files; a number that this SDK does not know yet becomes
UNSPECIFIED.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from google.protobuf.duration_pb2 import Duration

from zkside.pb import common_pb2, hold_pb2, node_pb2


class WireEnum(Enum):
    """An enumeration of zkside.v1."""

    @property
    def number(self) -> Any:
        """For a message's field."""
        return self.value

    @classmethod
    def _missing_(cls, value: object) -> Any:
        return cls(0) if isinstance(value, int) and value != 0 else None


class SessionState(WireEnum):
    """The state of the daemon's ZooKeeper session."""

    UNSPECIFIED = 0
    CONNECTING = 1
    CONNECTED = 2
    CONNECTED_READ_ONLY = 3
    SUSPENDED = 4
    LOST = 5
    AUTH_FAILED = 6
    CLOSED = 7

    @property
    def is_connected(self) -> bool:
        """Whether reads reach ZooKeeper now."""
        return self in (SessionState.CONNECTED, SessionState.CONNECTED_READ_ONLY)


class KeeperState(WireEnum):
    """ZooKeeper's own view of a session."""

    UNSPECIFIED = 0
    DISCONNECTED = 1
    SYNC_CONNECTED = 2
    AUTH_FAILED = 3
    CONNECTED_READ_ONLY = 4
    SASL_AUTHENTICATED = 5
    EXPIRED = 6
    CLOSED = 7


class HoldState(WireEnum):
    """A hold's life: WAITING, HELD, to and fro between JEOPARDY and HELD, then RELEASED or LOST."""

    UNSPECIFIED = 0
    WAITING = 1
    HELD = 2
    JEOPARDY = 3
    RELEASED = 4
    LOST = 5


class OnExists(WireEnum):
    """What to do about a node that has the name already, such as that of a process that died with its daemon."""

    FAIL = 1
    """NodeExists."""
    WAIT = 2
    """Until it has gone."""
    REPLACE = 3
    """Take its place if it is nobody's who is attached to this daemon, and says the same of itself; else wait."""


class Consistency(WireEnum):
    """How current a read has to be; docs/guarantees.md R1 tells what each costs."""

    CACHED = 1
    SERVER = 2
    LINEARIZABLE = 3


class CreateMode(WireEnum):
    """ZooKeeper's. The ephemeral ones live as long as the daemon's session, not as long as this process."""

    PERSISTENT = 1
    PERSISTENT_SEQUENTIAL = 2
    EPHEMERAL = 3
    EPHEMERAL_SEQUENTIAL = 4
    CONTAINER = 5
    PERSISTENT_WITH_TTL = 6
    PERSISTENT_SEQUENTIAL_WITH_TTL = 7

    @property
    def is_ephemeral(self) -> bool:
        return self in (CreateMode.EPHEMERAL, CreateMode.EPHEMERAL_SEQUENTIAL)


class Header(NamedTuple):
    """From which session an answer comes, and how current it is (R3)."""

    session_id: str
    epoch: int
    zxid: int
    """The answer reflects every transaction up to this one."""
    stale: bool
    """From a cache that is cut off from ZooKeeper, or not yet compared with it."""
    age_s: float
    """How long ago it was last known to be current; 0 when it is not stale."""


class Stat(NamedTuple):
    """ZooKeeper's eleven fields; times in milliseconds of the server's clock."""

    czxid: int
    mzxid: int
    ctime: int
    mtime: int
    version: int
    cversion: int
    aversion: int
    ephemeral_owner: int
    data_length: int
    num_children: int
    pzxid: int


@dataclass(frozen=True, slots=True)
class Node:
    """A znode as it was read. Its Stat is kept as it came and decoded when asked for: a mirror of 100,000
    nodes spends a fifth of the memory."""

    path: str
    data: bytes
    encoded_stat: bytes = field(repr=False)

    @property
    def stat(self) -> Stat:
        return stat_of(common_pb2.Stat.FromString(self.encoded_stat))


class Acl(NamedTuple):
    """One entry of an access control list; permissions are READ 1, WRITE 2, CREATE 4, DELETE 8, ADMIN 16."""

    permissions: int
    scheme: str
    id: str


OPEN_ACL = (Acl(31, "world", "anyone"),)


@dataclass(frozen=True, slots=True)
class Session:
    """The daemon's ZooKeeper session at one moment."""

    state: SessionState
    keeper_state: KeeperState
    session_id: str
    epoch: int
    timeout_s: float
    """As negotiated; 0 before the first session."""
    server: str
    last_zxid: int
    lease_boottime_ns: int
    lease_monotonic_ns: int
    read_only: bool
    reason: str
    sequence: int
    """Counts the changes of state since the daemon started."""
    last_error: str = ""
    """What stood in the way of the last attempt to connect that came to nothing; it stays when a later one succeeds."""
    last_error_unix_s: float = 0.0
    """When that was; 0 if there was none."""


@dataclass(frozen=True, slots=True)
class HoldStatus:
    """A hold at one moment."""

    hold_id: str
    path: str
    epoch: int
    fencing_token: int
    lease_boottime_ns: int
    lease_monotonic_ns: int
    state: HoldState
    reason: str
    position: int


def seconds(duration: Duration) -> float:
    """A Duration as seconds; an unset one is 0."""
    return duration.seconds + duration.nanos / 1e9


def duration(value_s: float) -> Duration:
    """Seconds as a Duration."""
    whole_s, nanos = divmod(round(value_s * 1e9), 1_000_000_000)
    return Duration(seconds=whole_s, nanos=nanos)


def optional_duration(value_s: float | None) -> Duration | None:
    """None leaves the field unset."""
    return None if value_s is None else duration(value_s)


def header_of(message: common_pb2.Header) -> Header:
    stale = message.stale
    return Header(message.session_id, message.epoch, message.zxid, stale, seconds(message.age) if stale else 0.0)


def stat_of(message: common_pb2.Stat) -> Stat:
    return Stat(
        message.czxid,
        message.mzxid,
        message.ctime,
        message.mtime,
        message.version,
        message.cversion,
        message.aversion,
        message.ephemeral_owner,
        message.data_length,
        message.num_children,
        message.pzxid,
    )


def node_of(message: common_pb2.Node) -> Node:
    return Node(message.path, message.data, message.stat.SerializeToString())


def acl_of(message: node_pb2.Acl) -> Acl:
    return Acl(message.permissions, message.scheme, message.id)


def acl_messages(acl: tuple[Acl, ...] | list[Acl] | None) -> list[node_pb2.Acl]:
    """None and an empty list mean the daemon's default."""
    return [node_pb2.Acl(permissions=entry[0], scheme=entry[1], id=entry[2]) for entry in acl or ()]


def session_of(message: common_pb2.Session) -> Session:
    return Session(
        state=SessionState(message.state),
        keeper_state=KeeperState(message.keeper_state),
        session_id=message.session_id,
        epoch=message.epoch,
        timeout_s=seconds(message.timeout),
        server=message.server,
        last_zxid=message.last_zxid,
        lease_boottime_ns=message.lease_boottime_ns,
        lease_monotonic_ns=message.lease_monotonic_ns,
        read_only=message.read_only,
        reason=message.reason,
        sequence=message.sequence,
        last_error=message.last_error,
        last_error_unix_s=message.last_error_time.ToNanoseconds() / 1e9,
    )


def hold_of(hold: hold_pb2.Hold, state: int, *, reason: str = "", position: int = 0) -> HoldStatus:
    return HoldStatus(
        hold_id=hold.hold_id,
        path=hold.path,
        epoch=hold.epoch,
        fencing_token=hold.fencing_token,
        lease_boottime_ns=hold.lease_boottime_ns,
        lease_monotonic_ns=hold.lease_monotonic_ns,
        state=HoldState(state),
        reason=reason,
        position=position,
    )
