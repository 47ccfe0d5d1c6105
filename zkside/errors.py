"""Floor 0: the one exception tree.

    ZksideError
    ├── BadRequest              the caller's fault, before anything was sent
    │   ├── InvalidPath
    │   ├── InvalidArgument
    │   ├── TooLarge
    │   ├── NoMessage
    │   └── NotSupported
    ├── Refused                 ZooKeeper said no; nothing was changed
    │   ├── NoNode, NodeExists, BadVersion, NotEmpty
    │   ├── NoChildrenForEphemerals, InvalidAcl, NoAuth, SequenceOverflow
    │   └── RolledBack, NotAttempted        (inside a refused transaction)
    ├── Unavailable             nothing was changed; later it may work
    │   ├── SessionSuspended
    │   ├── TooStale
    │   ├── Quota
    │   │   └── Busy                        (later there is room)
    │   ├── Throttled                       (by ZooKeeper)
    │   ├── Draining
    │   └── WaitTimeout                     (made by clients: waited for a hold, not granted)
    ├── SessionLost             what the session owned is gone
    ├── HoldLost
    ├── HistoryChanged          the zxid is of a history of ZooKeeper that is over
    ├── ConnectionLoss          sent, not answered; turned into OutcomeUnknown or resolved above the port
    ├── OutcomeUnknown          sent, not answered, not to be found out
    ├── DeadlineExceeded        the caller's deadline passed
    ├── Denied                  zkside's own policy: PolicyDenied, Unauthenticated
    └── StartError              the daemon cannot start: socket in use, listener unsafe
        └── BadConfiguration

`reason` is the name under which an error travels (docs/errors.md); `rpc/status.py` holds the one table from
here to gRPC's codes. Every error may carry `metadata`: short strings that a program can act on.
"""

from __future__ import annotations


class ZksideError(Exception):
    """All that zkside raises on purpose. `str()` says what happened, what was left, what to do."""

    reason = "INTERNAL"

    def __init__(self, message: str = "", **metadata: str) -> None:
        super().__init__(message or type(self).__doc__ or self.reason)
        self.metadata = metadata


class BadRequest(ZksideError):
    """The request is malformed; nothing was sent."""

    reason = "INVALID_ARGUMENT"

    def __init__(self, message: str = "", *, field: str = "", **metadata: str) -> None:
        super().__init__(message, **metadata)
        self.field = field


class InvalidPath(BadRequest):
    """The path is not one that ZooKeeper accepts."""

    reason = "INVALID_PATH"


class InvalidArgument(BadRequest):
    """A field has a value that makes no sense."""

    reason = "INVALID_ARGUMENT"


class TooLarge(BadRequest):
    """The request is larger than ZooKeeper or the daemon takes; nothing was sent."""

    reason = "TOO_LARGE"


class NoMessage(BadRequest):
    """The call was opened, and its message did not come."""

    reason = "NO_MESSAGE"


class NotSupported(BadRequest):
    """The ZooKeeper server lacks this."""

    reason = "NOT_SUPPORTED"


class Refused(ZksideError):
    """ZooKeeper refused the operation; nothing was changed."""

    reason = "REFUSED"


class NoNode(Refused):
    """The node does not exist."""

    reason = "NO_NODE"

    @classmethod
    def at(cls, path: str) -> NoNode:
        """The error for a path, in the same words whoever found it out."""
        return cls(f"{path}: no such node", path=path)


class NodeExists(Refused):
    """The node exists already."""

    reason = "NODE_EXISTS"


class BadVersion(Refused):
    """The node has another version than expected."""

    reason = "BAD_VERSION"


class NotEmpty(Refused):
    """The node has children."""

    reason = "NOT_EMPTY"


class NoChildrenForEphemerals(Refused):
    """An ephemeral node cannot have children."""

    reason = "NO_CHILDREN_FOR_EPHEMERALS"


class InvalidAcl(Refused):
    """The access control list is not valid for this session."""

    reason = "INVALID_ACL"


class NoAuth(Refused):
    """ZooKeeper's access control list does not allow it."""

    reason = "NO_AUTH"

    @classmethod
    def at(cls, path: str, guard: str = "") -> NoAuth:
        """The error for a path, in the same words whoever found it out.

        `guard`: the node whose access control list decides, if it is another one.
        """
        whose = f"the access control list of {guard}" if guard else "its access control list"
        return cls(
            f"{path}: {whose} does not allow it: have the list changed (`zkside acl`), or give the daemon an identity "
            "that it allows (zookeeper.auth, zookeeper.sasl)",
            path=path,
        )


class SequenceOverflow(Refused):
    """The sequence numbers of the parent are used up; the node was deleted again."""

    reason = "SEQUENCE_OVERFLOW"


class RolledBack(Refused):
    """Undone, because a later operation of its transaction was refused."""

    reason = "ROLLED_BACK"


class NotAttempted(Refused):
    """Not tried, because an earlier operation of its transaction was refused."""

    reason = "NOT_ATTEMPTED"


class Unavailable(ZksideError):
    """Not possible now; nothing was changed."""

    reason = "UNAVAILABLE"


class SessionSuspended(Unavailable):
    """There is no connection to ZooKeeper at the moment; the request was not sent."""

    reason = "SESSION_SUSPENDED"


class TooStale(Unavailable):
    """No answer as current as asked for could be had in time."""

    reason = "TOO_STALE"


class HistoryChanged(ZksideError):
    """The zxid is of a history of ZooKeeper that is over: it was wiped, or restored from an older snapshot."""

    reason = "HISTORY_CHANGED"


class Quota(Unavailable):
    """A limit on streams, holds, watches, requests or bytes is reached."""

    reason = "QUOTA"


class Busy(Quota):
    """Too much is under way at the moment."""


class Throttled(Unavailable):
    """ZooKeeper has more requests than it takes, and did not look at this one. Try again a little later."""

    reason = "THROTTLED"


class Draining(Unavailable):
    """The daemon is about to stop and takes no new streams or holds."""

    reason = "DRAINING"


class WaitTimeout(Unavailable):
    """What was waited for was not to be had in time: a turn, or a name. Nothing is left behind."""

    reason = "WAIT_TIMEOUT"


class SessionLost(ZksideError):
    """The ZooKeeper session is over: what it owned is gone. Start again."""

    reason = "SESSION_LOST"


class HoldLost(ZksideError):
    """The hold is not, or no longer, held."""

    reason = "HOLD_LOST"


class ConnectionLoss(ZksideError):
    """The request was sent and its answer lost with the connection."""

    reason = "CONNECTION_LOSS"


class OutcomeUnknown(ZksideError):
    """The request was sent, its answer was lost, and whether it was applied cannot be found out."""

    reason = "OUTCOME_UNKNOWN"


class DeadlineExceeded(ZksideError):
    """The caller's deadline passed."""

    reason = "DEADLINE_EXCEEDED"


class Denied(ZksideError):
    """Not allowed by zkside's own policy."""

    reason = "POLICY_DENIED"


class Unauthenticated(Denied):
    """No acceptable identity."""

    reason = "UNAUTHENTICATED"


class StartError(ZksideError):
    """The daemon cannot start."""

    reason = "START_ERROR"


class BadConfiguration(StartError):
    """The configuration cannot be used."""

    def __init__(self, message: str = "", *, problems: tuple[str, ...] = (), **metadata: str) -> None:
        """`problems`: all that is wrong, a text each; the message is made of them."""
        told = "the configuration cannot be used:\n" + "\n".join(f"  {line}" for line in problems)
        super().__init__(told if problems else message, **metadata)
        self.problems = problems or (str(self),)
