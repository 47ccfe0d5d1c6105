"""proto ↔ model, both ways. What comes in is checked here: unknown enum values, paths, durations, versions."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration

from zkside.errors import BadRequest, InvalidArgument, InvalidPath, ZksideError
from zkside.hub.reads import Answer, Consistency, Freshness
from zkside.model import path as paths
from zkside.model import record as records
from zkside.model.event import KeeperState
from zkside.model.hold import HoldState, HoldUpdate
from zkside.model.operation import (
    ANY_VERSION,
    Acl,
    Check,
    Create,
    Created,
    CreateMode,
    Delete,
    SetData,
    Write,
    WriteResult,
)
from zkside.model.record import Record
from zkside.model.session import SessionState, SessionStatus, hex_of
from zkside.model.stat import Stat
from zkside.pb import common_pb2, hold_pb2, node_pb2
from zkside.recipes.contenders import Place
from zkside.zk.session import Session

K = TypeVar("K")
V = TypeVar("V")

MAX_TTL_MS = (1 << 40) - 1
PERMISSIONS_ALL = 31
MAX_ACL_ENTRIES = 1000

SESSION_STATES = {state: common_pb2.SessionState.Value(f"SESSION_STATE_{state.name}") for state in SessionState}
KEEPER_STATES = {state: common_pb2.KeeperState.Value(f"KEEPER_STATE_{state.name}") for state in KeeperState}
HOLD_STATES = {state: hold_pb2.HoldState.Value(f"HOLD_STATE_{state.name}") for state in HoldState}
CONSISTENCIES: Mapping[int, Consistency] = {
    node_pb2.CONSISTENCY_UNSPECIFIED: Consistency.SERVER,
    node_pb2.CONSISTENCY_CACHED: Consistency.CACHED,
    node_pb2.CONSISTENCY_SERVER: Consistency.SERVER,
    node_pb2.CONSISTENCY_LINEARIZABLE: Consistency.LINEARIZABLE,
}
CREATE_MODES: Mapping[int, CreateMode] = {
    node_pb2.CREATE_MODE_UNSPECIFIED: CreateMode.PERSISTENT,
    **{node_pb2.CreateMode.Value(f"CREATE_MODE_{mode.name}"): mode for mode in CreateMode},
}

_PLAIN_READS = {number: Freshness(consistency) for number, consistency in CONSISTENCIES.items()}


# From the model


def header(session: Session, zxid: int, *, stale: bool = False, age_s: float = 0.0) -> common_pb2.Header:
    """Where an answer comes from, and how current it is; the age is that of a stale answer."""
    made = common_pb2.Header()
    fill_header(made, session, zxid, stale=stale, age_s=age_s)
    return made


def fill_header(
    made: common_pb2.Header, session: Session, zxid: int, *, stale: bool = False, age_s: float = 0.0
) -> None:
    """As `header`, into a message that is there, which takes half the time."""
    status = session.status
    made.session_id, made.epoch, made.zxid = status.session_id_hex, status.epoch, zxid
    if stale:
        made.stale = True
        made.age.CopyFrom(duration(age_s))


def duration(seconds: float) -> Duration:
    made = Duration()
    made.FromNanoseconds(int(seconds * 1e9))
    return made


def monotonic_ns(boottime_ns: int) -> int:
    """The same instant on CLOCK_MONOTONIC; 0 stays 0."""
    if not boottime_ns:
        return 0
    return boottime_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME) + time.monotonic_ns()


def session(status: SessionStatus, source: Session) -> common_pb2.Session:
    """A moment of the session, with the zxid and the lease of now."""
    lease_ns = source.lease_boottime_ns
    made = common_pb2.Session(
        state=SESSION_STATES[status.state],
        keeper_state=KEEPER_STATES[status.keeper_state],
        session_id=status.session_id_hex,
        epoch=status.epoch,
        server=status.server,
        last_zxid=source.last_zxid,
        lease_boottime_ns=lease_ns,
        lease_monotonic_ns=monotonic_ns(lease_ns),
        read_only=status.read_only,
        reason=status.reason,
        sequence=status.sequence,
    )
    if status.timeout_s:
        made.timeout.CopyFrom(duration(status.timeout_s))
    connecting = source.connecting()
    if connecting.last_error:
        made.last_error = connecting.last_error
        made.last_error_time.FromNanoseconds(int(connecting.last_error_unix_s * 1e9))
    return made


def stat(value: Stat) -> common_pb2.Stat:
    czxid, mzxid, ctime, mtime, version, cversion, aversion, owner, length, children, pzxid = value
    return common_pb2.Stat(
        czxid=czxid,
        mzxid=mzxid,
        ctime=ctime,
        mtime=mtime,
        version=version,
        cversion=cversion,
        aversion=aversion,
        ephemeral_owner=owner,
        data_length=length,
        num_children=children,
        pzxid=pzxid,
    )


def fill_stat(made: common_pb2.Stat, value: Stat) -> None:
    """As `stat`, into a message that is there."""
    (
        made.czxid,
        made.mzxid,
        made.ctime,
        made.mtime,
        made.version,
        made.cversion,
        made.aversion,
        made.ephemeral_owner,
        made.data_length,
        made.num_children,
        made.pzxid,
    ) = value


def fill_node(made: common_pb2.Node, path: str, record: Record, *, with_data: bool = True) -> None:
    """A node, into a message that is there."""
    made.path = path
    fill_stat(made.stat, records.stat(record))
    if with_data:
        made.data = records.data(record)


def failure(error: ZksideError) -> common_pb2.Failure:
    field = error.field if isinstance(error, BadRequest) else ""
    return common_pb2.Failure(reason=error.reason, message=str(error), metadata=error.metadata, field=field)


def hold(update: HoldUpdate, *, with_token: bool) -> hold_pb2.Hold:
    return hold_pb2.Hold(
        hold_id=update.hold_id,
        path=update.path,
        epoch=update.epoch,
        fencing_token=update.fencing_token,
        lease_boottime_ns=update.lease_boottime_ns,
        lease_monotonic_ns=monotonic_ns(update.lease_boottime_ns),
        resume_token=update.resume_token if with_token else "",
    )


def hold_update(update: HoldUpdate) -> hold_pb2.HoldUpdate:
    """As the owner's stream tells it, but for the header."""
    return hold_pb2.HoldUpdate(
        hold=hold(update, with_token=True),
        state=HOLD_STATES[update.state],
        reason=update.reason.value,
        position=update.position,
    )


def contender(place: Place, *, is_holder: bool | None = None) -> hold_pb2.Contender:
    return hold_pb2.Contender(
        path=place.path,
        value=place.value,
        fencing_token=place.czxid,
        session_id=hex_of(place.session_id),
        is_holder=place.is_holder if is_holder is None else is_holder,
        is_shared=place.is_shared,
    )


def answer_header(source: Session, answer: Answer[Any]) -> common_pb2.Header:
    return header(source, answer.zxid, stale=answer.stale, age_s=answer.age_s)


def acl_entries(entries: Iterable[Acl]) -> list[node_pb2.Acl]:
    return [node_pb2.Acl(permissions=entry.permissions, scheme=entry.scheme, id=entry.id) for entry in entries]


def operation_result(step: Write, result: WriteResult) -> node_pb2.OperationResult:
    """One step's part of an answer; its header is left unset."""
    match result:
        case ZksideError():
            return node_pb2.OperationResult(failure=failure(result))
        case Created():
            return node_pb2.OperationResult(create=create_response(result))
        case Stat():
            return node_pb2.OperationResult(set=node_pb2.SetResponse(stat=stat(result)))
    if isinstance(step, Check):
        return node_pb2.OperationResult(check=node_pb2.CheckResponse())
    return node_pb2.OperationResult(delete=node_pb2.DeleteResponse(deleted=1))


def create_response(made: Created, header: common_pb2.Header | None = None) -> node_pb2.CreateResponse:
    return node_pb2.CreateResponse(header=header, path=made.path, stat=None if made.stat is None else stat(made.stat))


# To the model. All raise InvalidArgument or InvalidPath, with the field's name.


def chosen(table: Mapping[int, V], number: int, field: str) -> V:
    """The value of an enumeration's number."""
    try:
        return table[number]
    except KeyError:
        raise InvalidArgument(f"{number} is no value of {field} that this daemon knows", field=field) from None


def seconds(request: Any, field: str, *, most_s: float, least_s: float = 0.0, within: str = "") -> float | None:
    """The duration in a field of a request, or of the part of one that `within` names; None if it is unset."""
    if not request.HasField(field):
        return None
    value: Duration = getattr(request, field)
    if not 0 <= value.nanos < 1_000_000_000:
        raise InvalidArgument(
            f"{field} must not be negative, and its nanos lie between 0 and 999,999,999, not at {value.nanos:,}",
            field=within + field,
        )
    total_s = value.seconds + value.nanos / 1e9
    if not least_s <= total_s <= most_s:
        raise InvalidArgument(
            f"{field} must lie between {_time_text(least_s)} and {_time_text(most_s)}, not at {_time_text(total_s)}",
            field=within + field,
        )
    return total_s


def _time_text(time_s: float) -> str:
    """A limit for people: 0.1 s, 3,600 s (1 hour), 1,000,000,000 s (11,574 days)."""
    shown = f"{time_s:,.3f}".rstrip("0").rstrip(".") if abs(time_s) >= 1 else f"{time_s:g}"
    for name, unit_s in (("day", 86_400), ("hour", 3_600)):
        count = int(time_s / unit_s)
        if count:
            return f"{shown} s ({count:,} {name}{'s' if count > 1 else ''})"
    return f"{shown} s"


def freshness(request: Any) -> Freshness:
    """Of a read's `options`."""
    options: node_pb2.ReadOptions = request.options
    if not options.min_zxid and not options.HasField("max_stale"):
        # Nearly every read: a value made beforehand.
        return chosen(_PLAIN_READS, options.consistency, "options.consistency")
    if options.min_zxid < 0:
        raise InvalidArgument("a zxid is not negative", field="options.min_zxid")
    return Freshness(
        chosen(CONSISTENCIES, options.consistency, "options.consistency"),
        options.min_zxid,
        seconds(options, "max_stale", most_s=1e9, within="options."),
    )


def version(request: Any, field: str = "") -> int:
    """`expected_version`; any if it is unset."""
    if not request.HasField("expected_version"):
        return ANY_VERSION
    expected: int = request.expected_version
    if expected < 0:
        raise InvalidArgument("leave it unset for any version", field=f"{field}expected_version")
    return expected


def acl(entries: Iterable[node_pb2.Acl], default: tuple[Acl, ...], field: str = "") -> tuple[Acl, ...]:
    made = tuple(Acl(entry.permissions, entry.scheme, entry.id) for entry in entries)
    if len(made) > MAX_ACL_ENTRIES:
        raise InvalidArgument(f"at most {MAX_ACL_ENTRIES} entries", field=f"{field}acl")
    for number, entry in enumerate(made):
        if not 0 < entry.permissions <= PERMISSIONS_ALL:
            raise InvalidArgument(
                f"permissions are 1 to {PERMISSIONS_ALL}, not {entry.permissions}",
                field=f"{field}acl[{number}].permissions",
            )
    return made or default


def create(request: node_pb2.CreateRequest, default_acl: tuple[Acl, ...], *, alone: bool, field: str = "") -> Create:
    """`alone`: a call of its own, which may use daemon_lifetime, make_parents and protected."""
    mode = chosen(CREATE_MODES, request.mode, f"{field}mode")
    path = paths.validate(request.path, sequential=mode.is_sequential, field=f"{field}path")
    if not alone:
        for flag in ("make_parents", "protected", "daemon_lifetime"):
            if getattr(request, flag):
                raise InvalidArgument(f"{flag} cannot be used here", field=f"{field}{flag}")
    if mode.is_ephemeral and not request.daemon_lifetime:
        raise InvalidArgument(
            "an ephemeral node that belongs to a process is a hold: use HoldEphemeral. For one that lives as long "
            "as the daemon's session set daemon_lifetime, in a Create of its own",
            field=f"{field}daemon_lifetime",
        )
    ttl_ms = 0
    if mode.has_ttl:
        ttl_ms = round((seconds(request, "ttl", most_s=MAX_TTL_MS / 1000, within=field) or 0.0) * 1000)
        if ttl_ms < 1:
            raise InvalidArgument("a TTL node needs a ttl: at least 1 ms", field=f"{field}ttl")
    elif request.HasField("ttl"):
        raise InvalidArgument("only the TTL modes have a ttl", field=f"{field}ttl")
    return Create(path, request.data, mode, acl(request.acl, default_acl, field), ttl_ms)


def deletable(path: str, field: str = "") -> str:
    """A path below the root. (Below a chroot ZooKeeper itself would delete the chroot's node.)"""
    if path == "/":
        raise InvalidPath("the root cannot be deleted", field=f"{field}path")
    return paths.validate(path, field=f"{field}path")


def step(operation: node_pb2.Operation, default_acl: tuple[Acl, ...], field: str) -> Write:
    """One operation of a transaction or a pipeline."""
    kind = operation.WhichOneof("operation")
    field = f"{field}.{kind}." if kind else field
    match kind:
        case "create":
            return create(operation.create, default_acl, alone=False, field=field)
        case "set":
            request = operation.set
            return SetData(paths.validate(request.path, field=f"{field}path"), request.data, version(request, field))
        case "delete":
            if operation.delete.recursive:
                raise InvalidArgument("a recursive delete is a call of its own", field=f"{field}recursive")
            return Delete(deletable(operation.delete.path, field), version(operation.delete, field))
        case "check":
            return Check(paths.validate(operation.check.path, field=f"{field}path"), version(operation.check, field))
        case _:
            raise InvalidArgument("an operation must be one of create, set, delete and check", field=field)
