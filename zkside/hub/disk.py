"""Caches on disk, for a start without ZooKeeper (GUARANTEES R5). An SQLite file, replaced whole."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from zkside import log
from zkside.hub.table import NodeTable
from zkside.model.record import Record
from zkside.model.watch import Scope

FORMAT = 1
SLICE = 5000


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a former daemon knew."""

    zxid: int
    age_s: float
    roots: list[tuple[str, Scope]]
    nodes: list[tuple[str, Record | None]]


class NotSaved(Exception):
    """The file could not be written; says why."""


class DiskSnapshot:
    """The file `cache.sqlite` in the state directory; mode 0600, since nodes can hold secrets."""

    def __init__(self, state_dir: Path) -> None:
        self._file = state_dir / "cache.sqlite"

    def load(self) -> Loaded | None:
        """None if there is none. A damaged or foreign file is set aside, with a warning."""
        if not self._file.exists():
            return None
        try:
            with contextlib.closing(sqlite3.connect(self._file)) as database:
                rows = dict(database.execute("SELECT name, value FROM about"))
                if rows["format"] != FORMAT:
                    raise sqlite3.DatabaseError(f"format {rows['format']}, expected {FORMAT}")
                return Loaded(
                    zxid=rows["zxid"],
                    age_s=max(0.0, time.time() - rows["written"] / 1000),
                    roots=[(path, Scope(levels)) for path, levels in database.execute("SELECT path, levels FROM root")],
                    nodes=list(database.execute("SELECT path, record FROM node")),
                )
        except (sqlite3.Error, KeyError, ValueError) as error:
            aside = self._file.with_suffix(".damaged")
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
        try:
            await asyncio.to_thread(self._write, zxid, roots, nodes.items())
        except (OSError, sqlite3.Error) as error:
            raise NotSaved(f"{self._file} cannot be written: {error}") from error

    def _write(self, zxid: int, roots: list[tuple[str, Scope]], nodes: Iterable[tuple[str, Record | None]]) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        os.close(os.open(fresh, os.O_CREAT | os.O_WRONLY, 0o600))
        with contextlib.closing(sqlite3.connect(fresh)) as database:
            database.execute("PRAGMA journal_mode = OFF")
            database.execute("CREATE TABLE about (name TEXT PRIMARY KEY, value INTEGER)")
            database.execute("CREATE TABLE root (path TEXT, levels INTEGER)")
            database.execute("CREATE TABLE node (path TEXT PRIMARY KEY, record BLOB) WITHOUT ROWID")
            about = {"format": FORMAT, "zxid": zxid, "written": int(time.time() * 1000)}
            database.executemany("INSERT INTO about VALUES (?, ?)", about.items())
            database.executemany("INSERT INTO root VALUES (?, ?)", [(path, scope.value) for path, scope in roots])
            database.executemany("INSERT INTO node VALUES (?, ?)", nodes)
            database.commit()
        fresh.replace(self._file)
