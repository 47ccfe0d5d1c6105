"""Operations and results as seen below a chroot and from the root, and what they weigh on the wire."""

from __future__ import annotations

import dataclasses
from typing import Any

from zkside.errors import ZksideError
from zkside.model.operation import (
    Create,
    Created,
    GetEphemerals,
    Operation,
    ReadMany,
    SetAcl,
    SetData,
    Transaction,
    TransactionResult,
    Write,
)
from zkside.model.path import is_within

HEADER_BYTES = 8
"""Of a request: xid and type."""


def rooted(operation: Operation[Any], chroot: str) -> Operation[Any]:
    if not chroot or isinstance(operation, GetEphemerals):
        return operation
    if isinstance(operation, ReadMany):
        return ReadMany(tuple(dataclasses.replace(r, path=_absolute(r.path, chroot)) for r in operation.reads))
    if isinstance(operation, Transaction):
        return Transaction(tuple(_rooted_write(write, chroot) for write in operation.operations))
    changed: Operation[Any] = dataclasses.replace(
        operation,
        path=_absolute(operation.path, chroot),  # type: ignore[type-var, attr-defined]
    )
    return changed


def _rooted_write(write: Write, chroot: str) -> Write:
    return dataclasses.replace(write, path=_absolute(write.path, chroot))


def _absolute(path: str, chroot: str) -> str:
    return chroot if path == "/" else chroot + path


def unrooted(path: str, chroot: str) -> str:
    return path[len(chroot) :] or "/"


def unrooted_result(operation: Operation[Any] | None, value: Any, chroot: str) -> Any:
    match value:
        case _ if not chroot:
            return value
        case ZksideError():
            return unrooted_error(value, chroot)
        case Created(path, stat):
            return Created(unrooted(path, chroot), stat)
        case TransactionResult(committed, results):
            return TransactionResult(committed, tuple(unrooted_result(None, r, chroot) for r in results))
        case list() if isinstance(operation, GetEphemerals):
            return [unrooted(path, chroot) for path in value if is_within(path, chroot)]
        case list():
            return [unrooted_result(None, one, chroot) for one in value]
    return value


def unrooted_error(error: ZksideError, chroot: str) -> ZksideError:
    if chroot:
        error.args = (str(error).replace(chroot, "", 1),)
        if "path" in error.metadata:
            error.metadata["path"] = unrooted(error.metadata["path"], chroot)
    return error


def size_bytes(operation: Operation[Any]) -> int:
    """About what ZooKeeper's serialisation takes, and exactly so for Create, SetData and what has a path only."""
    match operation:
        case ReadMany(reads=parts) | Transaction(operations=parts):
            # Each with a header of 9 bytes instead of the 8 of a request, and one to close the list.
            return HEADER_BYTES + 9 + sum(size_bytes(part) + 1 for part in parts)
    size = HEADER_BYTES
    path = getattr(operation, "path", None)
    if path is not None:
        size += 4 + len(path.encode())
    if isinstance(operation, Create | SetAcl):
        size += 4 + sum(12 + len(entry.scheme.encode()) + len(entry.id.encode()) for entry in operation.acl)
    match operation:
        case Create():
            size += 4 + len(operation.data) + 4 + 8 * operation.mode.has_ttl
        case SetData():
            size += 4 + len(operation.data) + 4
        case _ if hasattr(operation, "version"):
            size += 4
    return size
