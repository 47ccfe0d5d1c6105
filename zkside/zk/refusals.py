"""ZooKeeper's error codes as zkside's errors: one table, complete for kazoo's list of codes."""

from __future__ import annotations

from typing import Any

from zkside import errors
from zkside.errors import ZksideError
from zkside.model.operation import Create, Delete, Operation
from zkside.model.path import parent
from zkside.zk.kazoo_parts import error_text, exceptions

ROLLED_BACK: int = exceptions.RolledBackError.code
RUNTIME_INCONSISTENCY: int = exceptions.RuntimeInconsistency.code
UNKNOWN_SESSION: int = exceptions.UnknownSessionError.code
NO_NODE: int = exceptions.NoNodeError.code
NO_WATCHER: int = exceptions.NoWatcherError.code
SESSION_EXPIRED: int = exceptions.SessionExpiredError.code
SESSION_MOVED: int = exceptions.SessionMovedError.code
NO_AUTH: int = exceptions.NoAuthError.code
AUTH_FAILED: int = exceptions.AuthFailedError.code
SASL_REQUIRED: int = exceptions.SessionClosedRequireSaslError.code

# kazoo's class → zkside's. What the server did not say it left undone has an unknown outcome.
_BY_KAZOO_CLASS: dict[Any, type[ZksideError]] = {
    exceptions.RolledBackError: errors.RolledBack,
    exceptions.SystemZookeeperError: errors.OutcomeUnknown,
    exceptions.RuntimeInconsistency: errors.OutcomeUnknown,
    exceptions.DataInconsistency: errors.OutcomeUnknown,
    exceptions.ConnectionLoss: errors.ConnectionLoss,
    exceptions.MarshallingError: errors.NotSupported,
    exceptions.UnimplementedError: errors.NotSupported,
    exceptions.OperationTimeoutError: errors.OutcomeUnknown,
    exceptions.BadArgumentsError: errors.InvalidArgument,
    exceptions.UnknownSessionError: errors.SessionLost,
    exceptions.NewConfigNoQuorumError: errors.Unavailable,
    exceptions.ReconfigInProcessError: errors.Unavailable,
    exceptions.APIError: errors.OutcomeUnknown,
    exceptions.NoNodeError: errors.NoNode,
    exceptions.NoAuthError: errors.NoAuth,
    exceptions.BadVersionError: errors.BadVersion,
    exceptions.NoChildrenForEphemeralsError: errors.NoChildrenForEphemerals,
    exceptions.NodeExistsError: errors.NodeExists,
    exceptions.NotEmptyError: errors.NotEmpty,
    exceptions.SessionExpiredError: errors.SessionLost,
    exceptions.InvalidCallbackError: errors.Refused,
    exceptions.InvalidACLError: errors.InvalidAcl,
    exceptions.AuthFailedError: errors.NoAuth,
    exceptions.SessionMovedError: errors.SessionSuspended,
    exceptions.NotReadOnlyCallError: errors.SessionSuspended,
    exceptions.EphemeralOnLocalSessionError: errors.NotSupported,
    exceptions.NoWatcherError: errors.Refused,
    exceptions.RequestTimeoutError: errors.OutcomeUnknown,
    exceptions.ReconfigDisabledError: errors.NotSupported,
    exceptions.SessionClosedRequireSaslError: errors.SessionLost,
    exceptions.QuotaExceededError: errors.Quota,
    exceptions.ThrottledOpError: errors.Throttled,
}
BY_CODE: dict[int, type[ZksideError]] = {kind.code: ours for kind, ours in _BY_KAZOO_CLASS.items()}

ANSWERED_BY_LEADER = frozenset(
    kind.code
    for kind in (
        exceptions.NoNodeError,
        exceptions.BadVersionError,
        exceptions.NoChildrenForEphemeralsError,
        exceptions.NodeExistsError,
        exceptions.NotEmptyError,
        exceptions.NoAuthError,
        exceptions.InvalidACLError,
    )
)
"""Refusals of a write that only the leader can have decided: a proof of contact as good as a success."""

OF_THE_SESSION = frozenset({UNKNOWN_SESSION, SESSION_EXPIRED, SESSION_MOVED, AUTH_FAILED, SASL_REQUIRED})
"""What is said of the session rather than of the operation."""


def refusal(code: int, operation: Operation[Any]) -> ZksideError:
    """The error for a code, with the path in its message and in `metadata['path']`."""
    kind = BY_CODE.get(code, errors.OutcomeUnknown)
    path: str = getattr(operation, "path", "")
    if kind is errors.BadVersion:
        expected = str(getattr(operation, "version", ""))
        text = f"{path}: expected version {expected}, the node has another"
        return kind(text, path=path, expected=expected)
    if kind is errors.NoNode:
        return errors.NoNode.at(path)
    if kind is errors.NodeExists:
        return kind(f"{path}: exists already", path=path)
    if code == NO_AUTH and path:
        # The right to create and to delete is the parent's to give.
        is_parents = isinstance(operation, Create | Delete) and path != "/"
        return errors.NoAuth.at(path, parent(path) if is_parents else "")
    return kind(f"{path}: {error_text(code)}" if path else error_text(code), path=path)
