"""Caches on disk, for a start without ZooKeeper (GUARANTEES R5). One file, replaced whole.

    zkside caches 2\\n                   the format
    {"zxid": …, "roots": …, …}\\n        the head
    path, record, path, record, …       each pair behind its two sizes
    BLAKE2b of all that                 32 bytes

It is believed as a whole or not at all: what was altered, cut short, or written with another identity towards
ZooKeeper (it may have nodes that this one may not read) is set aside under another name.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b, pbkdf2_hmac
from pathlib import Path
from typing import Any, BinaryIO

from zkside import log
from zkside.hub.table import NodeTable
from zkside.model.record import Record
from zkside.model.watch import Scope

FORMAT = 2
SLICE = 5000
_MAGIC = b"zkside caches "
_PIECE_BYTES = 1 << 20
_DIGEST_BYTES = 32
_SIZES = struct.Struct("!ii")
_ABSENT = -1
_ROUNDS = 20_000
"""Of the hash of the identity, which has passwords in it."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a former daemon knew."""

    zxid: int
    age_s: float
    roots: list[tuple[str, Scope]]
    nodes: list[tuple[str, Record | None]]


class NotSaved(Exception):
    """The file could not be written; says why."""


class Unusable(Exception):
    """The file is not believed; says why."""


class DiskSnapshot:
    """The file `cache.nodes` in a directory of its own; mode 0600, since nodes can hold secrets."""

    def __init__(self, directory: Path, identity: str = "") -> None:
        """`identity` says whose caches these are: of which ensemble, and as whom it was read."""
        self._file = directory / "cache.nodes"
        self._identity = identity.encode()
        self._salt = secrets.token_bytes(16)
        self._owner = self._hashed(self._salt)
        self.set_aside = 0
        """Files that were not believed."""

    def load(self) -> Loaded | None:
        """None if there is none. A file that cannot be believed is set aside, with a warning."""
        with suppress(OSError):
            self._file.with_name("cache.sqlite").unlink()  # of an earlier version: nobody reads it any more
        try:
            with open(self._file, "rb") as file:
                return self._read(file)
        except FileNotFoundError:
            return None
        except (OSError, Unusable) as error:
            self.set_aside += 1
            aside = self._file.with_suffix(".damaged")
            with suppress(OSError):
                self._file.replace(aside)
            log.cache_set_aside(file=self._file, error=error, aside=aside)
            return None

    async def save(self, zxid: int, roots: list[tuple[str, Scope]], table: NodeTable) -> None:
        """Replace the file with the state of these roots; the writing is done in a thread.

        Raises: NotSaved (disk full, say); the file of before is left.
        """
        nodes: dict[str, Record | None] = {}
        for path, scope in roots:
            nodes[path] = table.records.get(path)
            for below, record in table.walk(path, scope.value):
                nodes[below] = record
                if len(nodes) % SLICE == 0:
                    await asyncio.sleep(0)
        head = {
            "zxid": zxid,
            "written": int(time.time() * 1000),
            "salt": self._salt.hex(),
            "owner": self._owner,
            "nodes": len(nodes),
            "roots": [(path, scope.value) for path, scope in roots],
        }
        try:
            await asyncio.to_thread(self._write, head, nodes.items())
        except OSError as error:
            raise NotSaved(f"{self._file} cannot be written: {error}") from error

    def _write(self, head: dict[str, Any], nodes: Iterable[tuple[str, Record | None]]) -> None:
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._file.with_suffix(".new")
        try:
            with open(os.open(fresh, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_NOFOLLOW, 0o600), "wb") as file:
                digest = blake2b(digest_size=_DIGEST_BYTES)
                for piece in _pieces(head, nodes):
                    digest.update(piece)
                    file.write(piece)
                file.write(digest.digest())
            fresh.replace(self._file)
        except OSError:
            with suppress(OSError):
                fresh.unlink()  # what of it was written takes up room
            raise

    def _read(self, file: BinaryIO) -> Loaded:
        """Raises: Unusable, OSError."""
        first = file.readline(64)
        if not first.startswith(_MAGIC) or not first.endswith(b"\n"):
            raise Unusable("it is not a file of caches" if first else "it is empty")
        if (version := first[len(_MAGIC) : -1]) != b"%d" % FORMAT:
            raise Unusable(f"its format is {version.decode(errors='replace')}, not {FORMAT}")
        _check(file)
        file.seek(len(first))
        head = json.loads(file.readline())
        if head["owner"] != self._hashed(bytes.fromhex(head["salt"])):
            raise Unusable("it was written with another identity towards ZooKeeper, or is of another ensemble")
        return Loaded(
            zxid=head["zxid"],
            age_s=max(0.0, time.time() - head["written"] / 1000),
            roots=[(path, Scope(levels)) for path, levels in head["roots"]],
            nodes=[_node(file) for _ in range(head["nodes"])],
        )

    def _hashed(self, salt: bytes) -> str:
        return pbkdf2_hmac("sha256", self._identity, salt, _ROUNDS).hex()


def _pieces(head: dict[str, Any], nodes: Iterable[tuple[str, Record | None]]) -> Iterator[bytes]:
    piece = bytearray(b"%s%d\n%s\n" % (_MAGIC, FORMAT, json.dumps(head).encode()))
    for path, record in nodes:
        name = path.encode()
        piece += _SIZES.pack(len(name), _ABSENT if record is None else len(record))
        piece += name
        piece += record or b""
        if len(piece) > _PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)


def _check(file: BinaryIO) -> None:
    """Compare the whole file with its digest. Raises: Unusable."""
    left = file.seek(0, os.SEEK_END) - _DIGEST_BYTES
    file.seek(0)
    digest = blake2b(digest_size=_DIGEST_BYTES)
    while left > 0 and (piece := file.read(min(left, _PIECE_BYTES))):
        digest.update(piece)
        left -= len(piece)
    if left or file.read() != digest.digest():
        raise Unusable("its checksum is wrong: it was altered, or is cut short")


def _node(file: BinaryIO) -> tuple[str, Record | None]:
    path_size, record_size = _SIZES.unpack(file.read(_SIZES.size))
    path = file.read(path_size).decode()
    return path, None if record_size == _ABSENT else file.read(record_size)
