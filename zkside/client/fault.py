"""Errors of gRPC turned into the classes of zkside/errors.py."""

from __future__ import annotations

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from zkside import errors
from zkside.errors import ZksideError
from zkside.pb import common_pb2

DOMAIN = "zkside"
_DETAILS = "grpc-status-details-bin"

BY_REASON: dict[str, type[ZksideError]] = {
    "BAD_VERSION": errors.BadVersion,
    "CONNECTION_LOSS": errors.ConnectionLoss,
    "DEADLINE_EXCEEDED": errors.DeadlineExceeded,
    "DRAINING": errors.Draining,
    "HISTORY_CHANGED": errors.HistoryChanged,
    "HOLD_LOST": errors.HoldLost,
    "INTERNAL": ZksideError,
    "INVALID_ACL": errors.InvalidAcl,
    "INVALID_ARGUMENT": errors.InvalidArgument,
    "INVALID_PATH": errors.InvalidPath,
    "NODE_EXISTS": errors.NodeExists,
    "NOT_ATTEMPTED": errors.NotAttempted,
    "NOT_EMPTY": errors.NotEmpty,
    "NOT_SUPPORTED": errors.NotSupported,
    "NO_AUTH": errors.NoAuth,
    "NO_CHILDREN_FOR_EPHEMERALS": errors.NoChildrenForEphemerals,
    "NO_MESSAGE": errors.NoMessage,
    "NO_NODE": errors.NoNode,
    "OUTCOME_UNKNOWN": errors.OutcomeUnknown,
    "POLICY_DENIED": errors.Denied,
    "QUOTA": errors.Quota,
    "REFUSED": errors.Refused,
    "ROLLED_BACK": errors.RolledBack,
    "SEQUENCE_OVERFLOW": errors.SequenceOverflow,
    "SESSION_LOST": errors.SessionLost,
    "SESSION_SUSPENDED": errors.SessionSuspended,
    "START_ERROR": errors.StartError,
    "THROTTLED": errors.Throttled,
    "TOO_LARGE": errors.TooLarge,
    "TOO_STALE": errors.TooStale,
    "UNAUTHENTICATED": errors.Unauthenticated,
    "UNAVAILABLE": errors.Unavailable,
    "WAIT_TIMEOUT": errors.WaitTimeout,
}
"""Every reason of docs/errors.md."""

_BY_CODE: dict[grpc.StatusCode, type[ZksideError]] = {
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.UNIMPLEMENTED: errors.NotSupported,
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidArgument,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.TooLarge,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: errors.Denied,
}
"""For answers without ErrorInfo: gRPC itself made them, or something that is no zkside."""

_NEVER_SENT = ("failed to connect", "connection refused", "no such file", "name resolution", "dns resolution")

_TLS_ADVICE = (
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is expired, or not signed by an authority of ZKSIDE_CA"),
    (
        "Hostname Verification Check failed",
        "its certificate is for other names: give the one it has as ZKSIDE_SERVER_NAME",
    ),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS there: leave out ZKSIDE_CA, ZKSIDE_CERT and ZKSIDE_KEY"),
    (
        "Socket closed",
        "it may want TLS (ZKSIDE_CA), or a certificate of an authority that it knows (ZKSIDE_CERT, ZKSIDE_KEY)",
    ),
)
"""What gRPC says of a handshake that failed, and what to do about it."""


def of_reason(reason: str, message: str, metadata: dict[str, str] | None = None, field: str = "") -> ZksideError:
    """The error that travels under this name; a plain ZksideError, with the reason kept, if it is unknown."""
    kind = BY_REASON.get(reason, ZksideError)
    error = kind(message)
    error.metadata = dict(metadata or {})
    if kind is ZksideError and reason:
        error.reason = reason
    if isinstance(error, errors.BadRequest):
        error.field = field
    return error


def of_failure(failure: common_pb2.Failure) -> ZksideError:
    """The error of one part of an answer."""
    return of_reason(failure.reason, failure.message, dict(failure.metadata), failure.field)


def of_rpc(error: grpc.aio.AioRpcError, address: str, *, writes: bool = False) -> ZksideError:
    """The typed error of a failed call.

    With `writes`: a connection to the daemon that broke under a call leaves its outcome unknown, and so
    does a deadline that passes; only a call that surely never left is Unavailable.
    """
    named = _error_info(error)
    if named is not None:
        return named
    code, details = error.code(), error.details() or ""
    kind = _BY_CODE.get(code, ZksideError)
    if kind is errors.Unavailable:
        if writes and not any(sign in details.lower() for sign in _NEVER_SENT):
            return errors.OutcomeUnknown(
                f"the connection to the daemon at {address} broke before it answered ({details}): "
                "the write may or may not have been applied; read to find out",
                address=address,
            )
        return errors.Unavailable(
            f"no daemon answers at {address} ({details}); {_advice(address, details)}", address=address
        )
    if kind is errors.DeadlineExceeded:
        left = "; a write that was sent may still be applied" if writes else ""
        return errors.DeadlineExceeded(f"no answer in time from the daemon at {address}{left}", address=address)
    made = kind(f"{details or 'no details'} (gRPC {code.name} from {address})")
    if kind is ZksideError:
        made.reason = code.name
    return made


def was_refused_unseen(error: grpc.aio.AioRpcError) -> bool:
    """Whether the connection had no room for the call (HTTP/2's REFUSED_STREAM): nobody has looked at it."""
    return error.code() is grpc.StatusCode.UNAVAILABLE and "RST_STREAM with error code 7" in (error.details() or "")


def _advice(address: str, details: str) -> str:
    if "before receiving SETTINGS frame" in details:
        return "something listens there and says nothing: it hangs or is stopped, or is no zkside"
    if not address.startswith("unix:") and details.startswith("failed to connect"):
        for sign, advice in _TLS_ADVICE:
            if sign in details:
                return advice
    return "is `zkside serve` running, and is ZKSIDE_ADDRESS right?"


def late(address: str, left: str) -> errors.DeadlineExceeded:
    """The error of a time limit that this process keeps itself."""
    return errors.DeadlineExceeded(f"no answer in time from the daemon at {address}; {left}", address=address)


def _error_info(error: grpc.aio.AioRpcError) -> ZksideError | None:
    for key, value in error.trailing_metadata() or ():
        if key != _DETAILS or not isinstance(value, bytes):
            continue
        status = status_pb2.Status()
        try:
            status.ParseFromString(value)
        except DecodeError:
            return None
        info, field = None, ""
        for detail in status.details:
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = error_details_pb2.ErrorInfo()
                detail.Unpack(info)
            elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                bad = error_details_pb2.BadRequest()
                detail.Unpack(bad)
                field = bad.field_violations[0].field if bad.field_violations else ""
        if info is not None and info.domain == DOMAIN:
            return of_reason(info.reason, status.message or error.details() or "", dict(info.metadata), field)
    return None
