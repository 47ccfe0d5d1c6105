"""The audit log: one JSON line for each write, hold, administration, and for all that was denied.

Lines are made and written by a thread of their own, so that a slow disk holds no caller up. What waits for it is
bounded: lines beyond are dropped, counted, and the log says how many were.

No line has data, tokens, or anything that a caller could act with (hold ids, resume tokens).
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client.core import CounterMetricFamily, Metric

from zkside import log
from zkside.errors import StartError
from zkside.model.identity import Peer

STANDARD_ERROR = Path("-")
MODE = 0o600
MOST_PATHS = 16
"""Of one line; `paths_total` says how many there were."""
MOST_CHARACTERS = 512
"""Of one path; one that was denied may be as long as the caller liked."""
BATCH = 256
CLOSE_S = 2.0
"""How long a stop waits for the disk."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What happened once."""

    event: str
    """"call", "granted" (a hold), "ended" (a hold's stream)."""
    identity: str
    peer: Peer | None
    method: str
    paths: tuple[str, ...]
    """Of the tree, whatever the caller's chroot."""
    code: str
    reason: str
    """As in the error; for "ended" without one the hold's."""
    zxid: int = 0
    fencing_token: int = 0
    committed: bool | None = None
    """Of a transaction."""


@dataclass(frozen=True, slots=True)
class AuditStatistics:
    written: int
    dropped: int
    """Because too many were waiting."""
    failed: int
    """Because the file could not be written."""
    waiting: int


class AuditLog:
    """One log; `open` before the first entry, `close` after the last."""

    def __init__(self, path: Path, most_waiting: int) -> None:
        """`path`: STANDARD_ERROR, or a file, which is made if it is not there and added to if it is."""
        self._path = path
        self._waiting: queue.Queue[tuple[float, Entry] | None] = queue.Queue(most_waiting)
        self._written = self._dropped = self._failed = 0
        self._dropped_said = 0
        self._is_failing = False
        self._file = -1
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)

    def open(self) -> None:
        """Raises: StartError if the file cannot be written to."""
        try:
            self._file = self._opened()
        except OSError as error:
            raise StartError(f"the audit log {self._path} cannot be written: {error.strerror}") from error
        self._thread.start()

    def put(self, entry: Entry) -> None:
        """Take it; never waits."""
        try:
            self._waiting.put_nowait((time.time(), entry))
        except queue.Full:
            if self._dropped == self._dropped_said:
                log.audit_dropping(waiting=self._waiting.maxsize)
            self._dropped += 1

    def close(self) -> None:
        """Write what waits, for CLOSE_S at most."""
        if not self._thread.is_alive():
            return
        try:
            self._waiting.put(None, timeout=CLOSE_S)
        except queue.Full:
            return  # the disk hangs, and the thread with it; it ends with the process
        self._thread.join(CLOSE_S)

    def statistics(self) -> AuditStatistics:
        return AuditStatistics(self._written, self._dropped, self._failed, self._waiting.qsize())

    def collect(self) -> Iterator[Metric]:
        """The families `zkside_audit…`."""
        yield CounterMetricFamily("zkside_audit_lines", "Lines written to the audit log.", value=self._written)
        lost = CounterMetricFamily("zkside_audit_lost", "Lines that the audit log lacks.", labels=("why",))
        lost.add_metric(("dropped",), self._dropped)
        lost.add_metric(("failed",), self._failed)
        yield lost

    # The thread

    def _run(self) -> None:
        is_open = True
        while is_open:
            batch = [self._waiting.get()]
            while len(batch) < BATCH and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            is_open = None not in batch
            lines = [line for line in batch if line is not None]
            try:
                self._write(lines)
            except Exception as error:
                # An error of our own: a thread that died of it would write nothing more, and nobody would know.
                log.audit_not_written(file=self._path, error=error)
                self._failed += len(lines)
        if self._file > 2:
            os.close(self._file)

    def _write(self, batch: Iterable[tuple[float, Entry]]) -> None:
        lines = [_line(at_s, entry) for at_s, entry in batch]
        count = len(lines)
        dropped = self._dropped
        if dropped > self._dropped_said:
            lines.append(
                _encoded({"time": _time(time.time()), "event": "dropped", "lines": dropped - self._dropped_said})
            )
        try:
            self._follow_rotation()
            _write_all(self._file, b"".join(lines))
        except OSError as error:
            if not self._is_failing:
                self._is_failing = True
                log.audit_not_written(file=self._path, error=error)
            self._failed += count
        else:
            self._is_failing = False
            self._written += count
            self._dropped_said = dropped

    def _follow_rotation(self) -> None:
        """Go on in a new file where the old one was moved away, as logrotate does."""
        if self._path == STANDARD_ERROR:
            return
        try:
            there, ours = os.stat(self._path), os.fstat(self._file)
            if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
                return
        except FileNotFoundError:
            pass
        fresh = self._opened()
        os.close(self._file)
        self._file = fresh

    def _opened(self) -> int:
        if self._path == STANDARD_ERROR:
            return sys.stderr.fileno()
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)


def _write_all(file: int, text: bytes) -> None:
    while text:
        text = text[os.write(file, text) :]


def _line(at_s: float, entry: Entry) -> bytes:
    line: dict[str, Any] = {
        "time": _time(at_s),
        "event": entry.event,
        "identity": entry.identity,
        "method": entry.method,
        "paths": [_cut(path) for path in entry.paths[:MOST_PATHS]],
        "code": entry.code,
    }
    if entry.peer is not None:
        line["peer"] = entry.peer.address
        line["listener"] = entry.peer.listener
        if entry.peer.names:
            line["names"] = list(entry.peer.names)
    if len(entry.paths) > MOST_PATHS:
        line["paths_total"] = len(entry.paths)
    for name in ("reason", "zxid", "fencing_token"):
        if value := getattr(entry, name):
            line[name] = value
    if entry.committed is not None:
        line["committed"] = entry.committed
    return _encoded(line)


def _encoded(line: dict[str, Any]) -> bytes:
    # Only ASCII leaves, so that no name of a node makes a line of its own or speaks to a terminal.
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def _cut(path: str) -> str:
    return path if len(path) <= MOST_CHARACTERS else path[:MOST_CHARACTERS] + "…"


def _time(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
