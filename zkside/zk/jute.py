"""The pieces that packets are made of (ZooKeeper's jute): integers, strings, lists, and paths below a chroot.

Raises: readers ValueError or struct.error for what runs over the end of its frame.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import lru_cache

from zkside.model.operation import Acl

_INT = struct.Struct("!i")
pack_int = _INT.pack
int_at = _INT.unpack_from


def outside(path: str, root: str) -> str:
    """The path as the server knows it."""
    if root:
        return root if path == "/" else root + path
    return path


def inside(path: str, root: str) -> str | None:
    """The path as the client knows it; None if it is not at or below the root (names compared whole)."""
    if not root:
        return path
    if path == root:
        return "/"
    if path.startswith(root) and path[len(root)] == "/":
        return path[len(root) :]
    return None


def inside_or_error(path: str, root: str) -> str:
    below = inside(path, root)
    if below is None:
        raise ValueError(f"{path!r} lies outside the chroot {root!r}")
    return below


def buffer(data: bytes) -> bytes:
    return pack_int(len(data)) + data


def string(text: str) -> bytes:
    return buffer(text.encode())


def path_string(path: str, root: str) -> bytes:
    return buffer(outside(path, root).encode())


def path_list(paths: Iterable[str], root: str) -> bytes:
    encoded = [path_string(path, root) for path in paths]
    return pack_int(len(encoded)) + b"".join(encoded)


@lru_cache(256)
def acl_list(acl: tuple[Acl, ...]) -> bytes:
    entries = [pack_int(entry.permissions) + string(entry.scheme) + string(entry.id) for entry in acl]
    return pack_int(len(acl)) + b"".join(entries)


def read_string(frame: bytes, pos: int) -> tuple[str, int]:
    end = pos + 4 + max(int_at(frame, pos)[0], 0)
    if end > len(frame):
        raise ValueError("a string runs over the end of its frame")
    return frame[pos + 4 : end].decode(), end


def read_strings(frame: bytes, pos: int) -> tuple[list[str], int]:
    (count,) = int_at(frame, pos)
    if count > len(frame) // 4:
        raise ValueError("a list of strings runs over the end of its frame")
    pos += 4
    names: list[str] = []
    append, length_at = names.append, int_at
    for _ in range(count):
        start = pos + 4
        pos = start + length_at(frame, pos)[0]
        append(frame[start:pos].decode())
    if pos > len(frame):
        raise ValueError("a list of strings runs over the end of its frame")
    return names, pos
