"""What a hold is: its states, its terms, one moment of it, and how the journal remembers it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType


class HoldState(Enum):
    """The states of the machine in core/hold.py."""

    WAITING = "waiting"
    """Not granted yet."""
    HELD = "held"
    JEOPARDY = "jeopardy"
    """Cut off from ZooKeeper, or asked back: owned until the lease ends, perhaps longer."""
    RELEASED = "released"
    """Ended as asked."""
    LOST = "lost"
    """Ended otherwise."""

    @property
    def is_over(self) -> bool:
        return self in (HoldState.RELEASED, HoldState.LOST)


OWNER = "owner"
"""In the data of Terms: what the owner calls itself."""


class OnExists(Enum):
    """What to do about a node that has the name already."""

    FAIL = "fail"
    WAIT = "wait"
    """Until it has gone."""
    REPLACE = "replace"
    """Take its place if it says the same of itself, else wait."""


class Reason(Enum):
    """Why a hold entered its state; these names travel."""

    NONE = ""
    QUEUED = "QUEUED"
    GRANTED = "GRANTED"
    CREATED = "CREATED"
    RESUMED = "RESUMED"
    CONNECTION_LOST = "CONNECTION_LOST"
    RELEASED = "RELEASED"
    STREAM_ENDED = "STREAM_ENDED"
    DRAINED = "DRAINED"
    SESSION_LOST = "SESSION_LOST"
    NODE_DELETED = "NODE_DELETED"
    HEARTBEAT_MISSED = "HEARTBEAT_MISSED"
    TAKEN_OVER = "TAKEN_OVER"
    """Another stream took the hold up; only the stream that had it before hears this."""
    WAIT_TIMEOUT = "WAIT_TIMEOUT"
    REVOKE_REQUESTED = "REVOKE_REQUESTED"
    """Somebody would like to have it; it is still held."""
    POLICY_DENIED = "POLICY_DENIED"
    """The policy has changed, and its owner may not hold it any more."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What was agreed on a hold when it was opened."""

    recipe: str
    requested_path: str
    reconnect_grace_s: float = 0.0
    """How long it outlives its stream."""
    heartbeat_timeout_s: float = 0.0
    """0: none."""
    is_exclusive: bool = False
    """Somebody else may get it as soon as its node is gone: its owner has to stop believing before that."""
    is_revocable: bool = False
    """Its owner is told when the node's data becomes __REVOKE__."""
    follows_data: bool = False
    """What its node's data becomes goes on into the next epoch."""
    identity: str = ""
    """Whose it is by the policy; '' where none was in force when it was opened."""
    data: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """The recipe's own, kept by the journal."""


@dataclass(frozen=True, slots=True)
class HoldUpdate:
    """A hold at one moment."""

    hold_id: str
    path: str
    """The znode; '' while WAITING."""
    epoch: int
    fencing_token: int
    lease_boottime_ns: int
    """Until when its owner may believe that it is held; 0 while it is not, or has to let go."""
    resume_token: str
    state: HoldState
    reason: Reason
    position: int = 0


@dataclass(frozen=True, slots=True)
class HoldStatus:
    """A hold in a list."""

    update: HoldUpdate
    """Without its resume token, which is for its owner alone."""
    recipe: str
    requested_path: str
    owner: str
    """As its process calls itself; '' if it does not say."""
    age_s: float
    attached: bool
    ends_in_s: float | None
    """When it is let go unless its process comes back for it; None while nothing ends it."""


@dataclass(frozen=True, slots=True)
class HoldRow:
    """What a restarted daemon must know to give a hold back to its owner.

    The journal keeps it as it is; only the recipe named by `recipe` understands `data`.
    """

    hold_id: str
    recipe: str
    """Which recipe made it, such as "ephemeral"."""
    path: str
    """The znode, with its suffix; '' while it waits for one."""
    czxid: int
    """The fencing token; 0 while there is no znode."""
    resume_token: str
    """A secret of the owner's; never logged."""
    reconnect_grace_s: float
    data: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", MappingProxyType(dict(self.data)))

    @classmethod
    def of(cls, terms: Terms, hold_id: str, path: str, czxid: int, resume_token: str) -> HoldRow:
        """The row of a hold that is being granted."""
        data = {
            **terms.data,
            "requested_path": terms.requested_path,
            "heartbeat_timeout_s": str(terms.heartbeat_timeout_s),
            "is_exclusive": "yes" if terms.is_exclusive else "",
            "is_revocable": "yes" if terms.is_revocable else "",
            "follows_data": "yes" if terms.follows_data else "",
            "identity": terms.identity,
        }
        return cls(hold_id, terms.recipe, path, czxid, resume_token, terms.reconnect_grace_s, data)

    @property
    def terms(self) -> Terms:
        """What was agreed on it."""
        data = dict(self.data)
        return Terms(
            self.recipe,
            data.pop("requested_path"),
            self.reconnect_grace_s,
            float(data.pop("heartbeat_timeout_s")),
            is_exclusive=bool(data.pop("is_exclusive", "")),
            is_revocable=bool(data.pop("is_revocable", "")),
            follows_data=bool(data.pop("follows_data", "")),
            identity=data.pop("identity", ""),
            data=data,
        )

    def __repr__(self) -> str:
        return f"HoldRow({self.recipe} {self.hold_id} {self.path} czxid={self.czxid:#x})"
