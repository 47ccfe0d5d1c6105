"""The codec: each operation's bytes on the wire, out and back (ZooKeeper's jute records).

`CODECS` has an entry for every Operation of model/operation.py and for the few that only this backend sends.
An encoder returns opcode and body (the frame's length and xid are put before it when it is sent); a decoder
gets the whole frame of a reply without error, whose body begins at BODY. Both get the chroot `root` ('' for
none).

Raises: encoders struct.error for a number out of range, UnicodeEncodeError for a lone surrogate; decoders
struct.error, ValueError or IndexError for bytes that are no such reply.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from zkside.errors import InvalidArgument, NotAttempted, RolledBack, ZksideError
from zkside.model import operation as model
from zkside.model.operation import Acl, Created, CreateMode, Operation, ReadResult, TransactionResult, WriteResult
from zkside.model.stat import STAT_SIZE_BYTES, Stat
from zkside.zk.jute import (
    acl_list,
    inside,
    inside_or_error,
    int_at,
    outside,
    pack_int,
    path_list,
    path_string,
    read_string,
    read_strings,
    string,
)
from zkside.zk.kazoo_parts import CLOSE_OPCODE, SASL_OPCODE, sasl_body, sasl_token
from zkside.zk.refusals import NO_NODE, NO_WATCHER, ROLLED_BACK, RUNTIME_INCONSISTENCY, refusal

REPLY_HEADER: Final = struct.Struct("!iqi")  # xid, zxid, error
BODY: Final = REPLY_HEADER.size
EVENT_XID, PING_XID, AUTH_XID = -1, -2, -4

_INT_INT = struct.Struct("!ii")
_LONG = struct.Struct("!q")
_MULTI_HEADER = struct.Struct("!iBi")  # type, done, error
_MULTI_HEADER_INT = struct.Struct("!iBii")  # … and the length, count or error code that follows it
_MULTI_END = _MULTI_HEADER.pack(-1, 1, -1)
_READ_GET = _MULTI_HEADER.pack(4, 0, -1)
_READ_CHILDREN = _MULTI_HEADER.pack(8, 0, -1)

_ANY_WATCHER = 3
_ERROR_RESULT = -1


class Codec(NamedTuple):
    """The two ways of an operation."""

    encode: Callable[[Any, str], bytes]
    decode: Callable[[bytes, Any, str], Any]


# --- operations that only this backend sends


@dataclass(frozen=True, slots=True)
class CloseSession(Operation[None]):
    """End the session on the server."""


@dataclass(frozen=True, slots=True)
class CreateOutside(Operation[None]):
    """Create an empty node at a path that counts from the server's root, whatever the chroot is."""

    path: str
    acl: tuple[Acl, ...]


@dataclass(frozen=True, slots=True)
class SaslStep(Operation[bytes]):
    """The client's token; the server's comes back."""

    token: bytes


@dataclass(frozen=True, slots=True)
class ArmData(Operation[Stat | None]):
    """`exists` with a one-shot watch; it works on absent nodes too."""

    path: str


@dataclass(frozen=True, slots=True)
class ArmChildren(Operation[tuple[list[str], Stat]]):
    """`getChildren` with a one-shot watch. Raises NoNode, and sets no watch then."""

    path: str


@dataclass(frozen=True, slots=True)
class SetOneShotWatches(Operation[None]):
    """SetWatches (every release): what changed after `since_zxid` is reported, the rest is watched."""

    since_zxid: int
    data: tuple[str, ...]
    absent: tuple[str, ...]
    children: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SetPersistentWatches(Operation[None]):
    """SetWatches2 (3.6+), with persistent watches only."""

    since_zxid: int
    plain: tuple[str, ...]
    recursive: tuple[str, ...]


# --- one operation each


def _simple(opcode: int, tail: bytes = b"") -> Callable[[Any, str], bytes]:
    code = pack_int(opcode)

    def encode(op: Any, root: str) -> bytes:
        path: bytes = (outside(op.path, root) if root else op.path).encode()
        return b"".join((code, pack_int(len(path)), path, tail))

    return encode


def _nothing(frame: bytes, op: Any, root: str) -> None:
    return None


def _decode_data(frame: bytes, op: Any, root: str) -> bytes:
    record = frame[BODY + 4 :]
    if len(record) != max(int_at(frame, BODY)[0], 0) + STAT_SIZE_BYTES:
        raise ValueError("a node's data does not fill its frame")
    return record


def _decode_stat(frame: bytes, op: Any, root: str) -> Stat:
    return Stat.unpack(frame, BODY)


def _decode_children(frame: bytes, op: Any, root: str) -> tuple[list[str], Stat]:
    names, pos = read_strings(frame, BODY)
    return names, Stat.unpack(frame, pos)


def _encode_read_many(op: model.ReadMany, root: str) -> bytes:
    parts = [pack_int(22)]
    append = parts.append
    for read in op.reads:
        path = (outside(read.path, root) if root else read.path).encode()
        append(_READ_GET if type(read) is model.GetData else _READ_CHILDREN)
        append(pack_int(len(path)))
        append(path)
        append(b"\0")
    append(_MULTI_END)
    return b"".join(parts)


def _decode_read_many(frame: bytes, op: model.ReadMany, root: str) -> list[ReadResult]:
    results: list[ReadResult] = []
    append, header_at = results.append, _MULTI_HEADER_INT.unpack_from
    pos = BODY
    for read in op.reads:
        kind, _, _, number = header_at(frame, pos)
        pos += 13
        if kind == 4:
            start = pos
            pos += number + STAT_SIZE_BYTES if number > 0 else STAT_SIZE_BYTES
            append(frame[start:pos])
        elif kind == _ERROR_RESULT:
            append(refusal(number, read))
        elif kind == 8:
            names, pos = read_strings(frame, pos - 4)
            append(names)
        else:
            raise ValueError(f"a result of type {kind} in a multiRead")
    if frame[pos:] != _MULTI_END:
        raise ValueError("the results of a multiRead do not fill its frame")
    return results


_CREATE, _CREATE2, _CONTAINER, _TTL = 1, 15, 19, 21


def _create_opcode(mode: CreateMode) -> int:
    if mode.has_ttl:
        return _TTL
    return _CONTAINER if mode is CreateMode.CONTAINER else _CREATE2


def _create_body(op: model.Create, root: str) -> bytes:
    # A sequential path may end in '/', and '/' itself stays a slash: the server appends the number to it.
    path = (root + op.path if op.mode.is_sequential else outside(op.path, root)).encode()
    data = op.data
    ttl = _LONG.pack(op.ttl_ms) if op.mode.has_ttl else b""
    flags = pack_int(op.mode.value)
    return b"".join((pack_int(len(path)), path, pack_int(len(data)), data, acl_list(op.acl), flags, ttl))


def _encode_create(op: model.Create, root: str) -> bytes:
    return pack_int(_create_opcode(op.mode)) + _create_body(op, root)


def _decode_create(frame: bytes, op: Any, root: str) -> Created:
    path, pos = read_string(frame, BODY)
    stat = Stat.unpack(frame, pos) if len(frame) - pos >= STAT_SIZE_BYTES else None
    return Created(inside_or_error(path, root), stat)


def _set_body(op: model.SetData, root: str) -> bytes:
    path = outside(op.path, root).encode()
    data = op.data
    return b"".join((pack_int(len(path)), path, pack_int(len(data)), data, pack_int(op.version)))


def _encode_set(op: model.SetData, root: str) -> bytes:
    return pack_int(5) + _set_body(op, root)


def _path_version_body(op: model.Delete | model.Check, root: str) -> bytes:
    return path_string(op.path, root) + pack_int(op.version)


def _encode_delete(op: model.Delete, root: str) -> bytes:
    return pack_int(2) + _path_version_body(op, root)


def _encode_transaction(op: model.Transaction, root: str) -> bytes:
    parts = [pack_int(14)]
    for write in op.operations:
        match write:
            case model.Create():
                kind, body = _create_opcode(write.mode), _create_body(write, root)
            case model.SetData():
                kind, body = 5, _set_body(write, root)
            case model.Delete():
                kind, body = 2, _path_version_body(write, root)
            case model.Check():
                kind, body = 13, _path_version_body(write, root)
        parts += (_MULTI_HEADER.pack(kind, 0, -1), body)
    parts.append(_MULTI_END)
    return b"".join(parts)


def _decode_transaction(frame: bytes, op: model.Transaction, root: str) -> TransactionResult:
    results: list[WriteResult] = []
    refused_at: int | None = None
    pos = BODY
    for index, write in enumerate(op.operations):
        kind, _, _ = _MULTI_HEADER.unpack_from(frame, pos)
        pos += _MULTI_HEADER.size
        if kind == _ERROR_RESULT:
            (code,) = int_at(frame, pos)
            pos += 4
            results.append(_transaction_error(code, write, after=refused_at is not None))
            if refused_at is None and code != ROLLED_BACK:
                refused_at = index
        elif kind == _CREATE:  # so a server answers a create2, too: without a Stat
            path, pos = read_string(frame, pos)
            results.append(Created(inside_or_error(path, root), None))
        elif kind in (_CREATE2, _CONTAINER, _TTL):
            path, pos = read_string(frame, pos)
            results.append(Created(inside_or_error(path, root), Stat.unpack(frame, pos)))
            pos += STAT_SIZE_BYTES
        elif kind == 5:
            results.append(Stat.unpack(frame, pos))
            pos += STAT_SIZE_BYTES
        elif kind in (2, 13):
            results.append(None)
        else:
            raise ValueError(f"a result of type {kind} in a transaction")
    return TransactionResult(refused_at is None, tuple(results))


def _transaction_error(code: int, write: model.Write, *, after: bool) -> ZksideError:
    if code == ROLLED_BACK:
        return RolledBack(f"{write.path}: undone, a later operation was refused", path=write.path)
    if after and code == RUNTIME_INCONSISTENCY:
        return NotAttempted(f"{write.path}: not tried, an earlier operation was refused", path=write.path)
    return refusal(code, write)


def _encode_check(op: Any, root: str) -> bytes:
    raise InvalidArgument("Check is only possible inside a Transaction")


def _decode_acl(frame: bytes, op: Any, root: str) -> tuple[tuple[Acl, ...], Stat]:
    (count,) = int_at(frame, BODY)
    pos = BODY + 4
    entries = []
    for _ in range(count):
        (permissions,) = int_at(frame, pos)
        scheme, pos = read_string(frame, pos + 4)
        identity, pos = read_string(frame, pos)
        entries.append(Acl(permissions, scheme, identity))
    return tuple(entries), Stat.unpack(frame, pos)


def _encode_set_acl(op: model.SetAcl, root: str) -> bytes:
    return b"".join((pack_int(7), path_string(op.path, root), acl_list(op.acl), pack_int(op.version)))


def _encode_add_watch(op: model.AddWatch, root: str) -> bytes:
    return b"".join((pack_int(106), path_string(op.path, root), pack_int(op.recursive)))


def _encode_remove_watch(op: model.RemoveWatch, root: str) -> bytes:
    return b"".join((pack_int(18), path_string(op.path, root), pack_int(_ANY_WATCHER)))


def _encode_ephemerals(op: Any, root: str) -> bytes:
    return pack_int(103) + string(root or "/")


def _decode_ephemerals(frame: bytes, op: Any, root: str) -> list[str]:
    # The server compares bare prefixes, so it may name nodes beside the chroot.
    paths = (inside(path, root) for path in read_strings(frame, BODY)[0])
    return [path for path in paths if path is not None]


def _encode_one_shots(op: SetOneShotWatches, root: str) -> bytes:
    lists = (path_list(paths, root) for paths in (op.data, op.absent, op.children))
    return b"".join((pack_int(101), _LONG.pack(op.since_zxid), *lists))


def _encode_persistent(op: SetPersistentWatches, root: str) -> bytes:
    lists = (path_list(paths, root) for paths in ((), (), (), op.plain, op.recursive))
    return b"".join((pack_int(105), _LONG.pack(op.since_zxid), *lists))


CODECS: Final[dict[type[Operation[Any]], Codec]] = {
    model.GetData: Codec(_simple(4, b"\0"), _decode_data),
    model.Exists: Codec(_simple(3, b"\0"), _decode_stat),
    model.GetChildren: Codec(_simple(12, b"\0"), _decode_children),
    model.ReadMany: Codec(_encode_read_many, _decode_read_many),
    model.Create: Codec(_encode_create, _decode_create),
    model.SetData: Codec(_encode_set, _decode_stat),
    model.Delete: Codec(_encode_delete, _nothing),
    model.Check: Codec(_encode_check, _nothing),
    model.Transaction: Codec(_encode_transaction, _decode_transaction),
    model.Sync: Codec(_simple(9), _nothing),
    model.GetAcl: Codec(_simple(6), _decode_acl),
    model.SetAcl: Codec(_encode_set_acl, _decode_stat),
    model.AddWatch: Codec(_encode_add_watch, _nothing),
    model.RemoveWatch: Codec(_encode_remove_watch, _nothing),
    model.GetEphemerals: Codec(_encode_ephemerals, _decode_ephemerals),
    CloseSession: Codec(lambda op, root: pack_int(CLOSE_OPCODE), _nothing),
    CreateOutside: Codec(lambda op, root: _encode_create(model.Create(op.path, acl=op.acl), ""), _nothing),
    SaslStep: Codec(
        lambda op, root: pack_int(SASL_OPCODE) + sasl_body(op.token),
        lambda frame, op, root: sasl_token(frame, BODY),
    ),
    ArmData: Codec(_simple(3, b"\1"), _decode_stat),
    ArmChildren: Codec(_simple(12, b"\1"), _decode_children),
    SetOneShotWatches: Codec(_encode_one_shots, _nothing),
    SetPersistentWatches: Codec(_encode_persistent, _nothing),
}
"""Complete for model/operation.py, by test."""

# Errors that are answers: Exists of an absent node, removing a watch that is not there.
NO_ERRORS: Final[dict[type[Operation[Any]], int]] = {
    model.Exists: NO_NODE,
    ArmData: NO_NODE,
    model.RemoveWatch: NO_WATCHER,
}


def decode_event(frame: bytes) -> tuple[int, int, int, str]:
    """(zxid or -1, event type, keeper state, path as the server knows it) of a frame with EVENT_XID."""
    _, zxid, _ = REPLY_HEADER.unpack_from(frame)
    kind, state = _INT_INT.unpack_from(frame, BODY)
    path, _ = read_string(frame, BODY + 8)
    return zxid, kind, state, path
