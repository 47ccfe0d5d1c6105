"""The one table from errors to gRPC: every class of errors.py, its code, and when it is sent.

What leaves the daemon is a google.rpc.Status in `grpc-status-details-bin`: ErrorInfo (reason, domain "zkside",
metadata), RetryInfo where a retry makes sense, BadRequest where a field is at fault.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import NamedTuple

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from zkside import errors, log
from zkside.errors import BadRequest, ZksideError

DOMAIN = "zkside"
DETAILS_KEY = "grpc-status-details-bin"

# A status travels as HTTP/2 headers, of which clients take 8 KiB by default; the message is in it twice.
MAX_MESSAGE_CHARACTERS = 800
MAX_METADATA_CHARACTERS = 300
MAX_METADATA_ENTRIES = 8
TRUNCATED = "truncated"
"""The entry that names those that were cut or left out, so that no program takes the beginning of a path for a path."""

RETRY_AFTER_MS = 200
"""Of SESSION_SUSPENDED and THROTTLED: a reconnect to another server takes about that long. Of a QUOTA on bytes too:
room comes with each answer that was taken."""


class Row(NamedTuple):
    code: grpc.StatusCode
    when: str
    """For docs/errors.md; '' for classes that only group others and for those that never leave."""


_C = grpc.StatusCode

TABLE: dict[type[ZksideError], Row] = {
    ZksideError: Row(_C.INTERNAL, "a defect of zkside; the message carries an incident id that its log explains"),
    errors.BadRequest: Row(_C.INVALID_ARGUMENT, ""),
    errors.InvalidPath: Row(_C.INVALID_ARGUMENT, "ZooKeeper takes no such path; the field violation names the field"),
    errors.InvalidArgument: Row(
        _C.INVALID_ARGUMENT,
        "a field has a value that makes no sense, an unknown enum value, or the message cannot be parsed",
    ),
    errors.TooLarge: Row(
        _C.RESOURCE_EXHAUSTED, "over jute.maxbuffer or a limit on entries or on an answer; refused before it was sent"
    ),
    errors.NoMessage: Row(
        _C.INVALID_ARGUMENT,
        "the call was opened, and its message did not come: the client ended it without one, or took longer than "
        "`quotas.message_timeout`. Of unary calls 250 at a time are left to gRPC, which waits on and says nothing",
    ),
    errors.NotSupported: Row(_C.UNIMPLEMENTED, "the ZooKeeper server lacks it (TTL nodes are off, for one)"),
    errors.Refused: Row(_C.FAILED_PRECONDITION, "ZooKeeper refuses it for a reason that has no name here"),
    errors.NoNode: Row(_C.NOT_FOUND, "the node, or the parent of the one to be created, does not exist"),
    errors.NodeExists: Row(_C.ALREADY_EXISTS, "the node exists already"),
    errors.BadVersion: Row(
        _C.FAILED_PRECONDITION, "the node has another version than expected; metadata: path, expected, actual"
    ),
    errors.NotEmpty: Row(_C.FAILED_PRECONDITION, "the node to be deleted has children"),
    errors.NoChildrenForEphemerals: Row(_C.FAILED_PRECONDITION, "the parent is an ephemeral node"),
    errors.InvalidAcl: Row(
        _C.INVALID_ARGUMENT, "ZooKeeper takes no such access control list (auth without an identity, for one)"
    ),
    errors.HistoryChanged: Row(
        _C.FAILED_PRECONDITION,
        "`min_zxid` is of a history of ZooKeeper that is over (it was wiped, or restored from an older snapshot): no "
        "read will ever see it; metadata: min_zxid, zxid",
    ),
    errors.NoAuth: Row(_C.PERMISSION_DENIED, "ZooKeeper's access control list does not allow it"),
    errors.SequenceOverflow: Row(
        _C.FAILED_PRECONDITION,
        "2^31 children were created below the parent, and ZooKeeper has no more numbers; the node was deleted again; "
        "metadata: path, number",
    ),
    errors.RolledBack: Row(_C.ABORTED, "inside a refused transaction: undone, because a later operation was refused"),
    errors.NotAttempted: Row(
        _C.ABORTED, "inside a refused transaction: not tried, because an earlier operation was refused"
    ),
    errors.Unavailable: Row(
        _C.UNAVAILABLE, "it cannot be done now, and nothing was changed: the journal cannot be written, for one"
    ),
    errors.SessionSuspended: Row(
        _C.UNAVAILABLE, "no connection to ZooKeeper at the moment; nothing was sent; RetryInfo says when to try again"
    ),
    errors.TooStale: Row(_C.UNAVAILABLE, "`max_stale` or `min_zxid` could not be met in time"),
    errors.Quota: Row(
        _C.RESOURCE_EXHAUSTED,
        "a limit on streams, holds, watches, calls or bytes is reached; metadata: limit, the last part of its key in "
        "the configuration where it has one; with RetryInfo, if too many calls wait for room for their bytes already",
    ),
    errors.Busy: Row(_C.RESOURCE_EXHAUSTED, ""),
    errors.Throttled: Row(
        _C.UNAVAILABLE,
        "ZooKeeper has more requests than it takes (`request_throttle_*`) and did not look at this one; RetryInfo says "
        "when to try again",
    ),
    errors.Draining: Row(_C.UNAVAILABLE, "the daemon is about to stop and takes no new streams or holds"),
    errors.WaitTimeout: Row(_C.DEADLINE_EXCEEDED, ""),
    errors.SessionLost: Row(_C.ABORTED, "the session is over and what it owned is gone; start again"),
    errors.HoldLost: Row(
        _C.FAILED_PRECONDITION,
        "the hold is not, or no longer, held; of a guarded transaction `committed` in the metadata says whether "
        "it was applied",
    ),
    errors.ConnectionLoss: Row(_C.UNKNOWN, ""),
    errors.OutcomeUnknown: Row(
        _C.UNKNOWN,
        "sent, the answer lost, and not to be found out; metadata: path, operation, zxid_before, and what was seen",
    ),
    errors.DeadlineExceeded: Row(_C.DEADLINE_EXCEEDED, "the caller's deadline passed"),
    errors.Denied: Row(_C.PERMISSION_DENIED, "zkside's own policy does not allow it"),
    errors.Unauthenticated: Row(_C.UNAUTHENTICATED, "no acceptable identity"),
    errors.StartError: Row(_C.INTERNAL, ""),
    errors.BadConfiguration: Row(_C.INTERNAL, ""),
}

_DAEMONS_OWN = (errors.StartError,)
"""Those that no caller is meant to hear: one that is on its way to a caller is a defect."""


class Status(NamedTuple):
    """What goes to the client."""

    code: grpc.StatusCode
    message: str
    trailers: tuple[tuple[str, bytes], ...]


def row(error_type: type[ZksideError]) -> Row:
    """The row of a class, or of the nearest class above that has one."""
    return next(TABLE[above] for above in error_type.__mro__ if above in TABLE)


def code_of(error: BaseException) -> grpc.StatusCode:
    """What its caller hears; logs nothing."""
    if isinstance(error, TimeoutError):
        error = errors.DeadlineExceeded()
    if isinstance(error, _DAEMONS_OWN) or not isinstance(error, ZksideError):
        return grpc.StatusCode.INTERNAL
    return row(type(error)).code


def of(error: BaseException, *, method: str = "") -> Status:
    """The status for an exception.

    One that zkside does not raise on purpose becomes INTERNAL with an incident id; its traceback goes to
    the log and nothing of it to the client.
    """
    error = known(error, method=method)
    message = _shortened(str(error), MAX_MESSAGE_CHARACTERS)
    code = row(type(error)).code
    details = status_pb2.Status(code=code.value[0], message=message)
    for detail in _details(error, message):
        packed = any_pb2.Any()
        packed.Pack(detail)
        details.details.append(packed)
    return Status(code, message, ((DETAILS_KEY, details.SerializeToString()),))


def known(error: BaseException, *, method: str = "") -> ZksideError:
    """The exception as one of zkside's that stands in the table for users. What it does not raise on purpose becomes
    one with an incident id."""
    if isinstance(error, TimeoutError):
        return errors.DeadlineExceeded()
    if isinstance(error, errors.ConnectionLoss):
        # Of a read it never comes here (Interceptors). Of anything else it is not known whether it was a write's.
        return errors.OutcomeUnknown(f"sent, and its answer lost with the connection: {error}", **error.metadata)
    if isinstance(error, ZksideError) and not isinstance(error, _DAEMONS_OWN):
        return error
    incident = uuid.uuid4().hex[:12]
    log.rpc_incident(incident=incident, method=method or "a call", error=error)
    return ZksideError(
        f"a defect of zkside, not of the request; incident {incident} in the daemon's log", incident=incident
    )


def _details(error: ZksideError, message: str) -> list[Message]:
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=_metadata(error.metadata))
    ]
    if isinstance(error, errors.SessionSuspended | errors.Throttled | errors.Busy):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(RETRY_AFTER_MS)
        details.append(retry)
    if isinstance(error, BadRequest) and error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=_cut(error.field, MAX_METADATA_CHARACTERS), description=message
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    return details


def _metadata(given: Mapping[str, str]) -> dict[str, str]:
    """As much of it as a status has room for; TRUNCATED names what is not whole."""
    entries = list(given.items())
    told = {key: _cut(value, MAX_METADATA_CHARACTERS) for key, value in entries[:MAX_METADATA_ENTRIES]}
    cut = [key for key, value in entries if len(value) > MAX_METADATA_CHARACTERS or key not in told]
    return told | {TRUNCATED: _cut(",".join(cut), MAX_METADATA_CHARACTERS)} if cut else told


def _cut(text: str, limit: int) -> str:
    text = _encodable(text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _shortened(text: str, limit: int) -> str:
    """Without its middle, if it is too long: what is wrong with a path stands behind it."""
    text = _encodable(text)
    behind = limit // 3
    return text if len(text) <= limit else f"{text[: limit - behind - 1]}…{text[-behind:]}"


def _encodable(text: str) -> str:
    # Lone surrogates cannot be encoded; a path that a server sent may hold them.
    return text.encode("utf-8", "replace").decode()


def table() -> str:
    """The table for users, for docs/errors.md."""
    lines = ["| reason | gRPC status | when |", "|---|---|---|"]
    for error_type, (code, when) in TABLE.items():
        if when:
            lines.append(f"| `{error_type.reason}` | `{code.name}` | {when} |")
    return "\n".join(lines)
