"""What a killed daemon leaves to its successor: its session, its epoch and its holds.

One file of lines, each with its own checksum: first a head (format, cluster, epoch, session), then what
changed since. Appending a line costs some 20 µs whatever the number of holds. The file is replaced as a
whole, atomically and with fsync, when an epoch begins and when too many lines have become obsolete.

A line is handed to the kernel before `put_hold` returns, but not forced to the disk. That is on purpose: the
journal serves a daemon that was killed, and the kernel's pages survive that. If the machine itself goes down,
the processes that owned the holds go down with it; a lost line then means an ephemeral that the next daemon
does not know, and those it deletes. Only the epoch must not go back, and it is in the head.

The file holds the session's password and the holds' resume tokens: mode 0600.

Other versions read it too, newer and older ones. A field that an older daemon may do without can be added to a row:
what is unknown in a row is passed over. Whatever else changes (a new kind of line, a field that counts) is a new
FORMAT, and a daemon that does not know it begins a new session.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
import zlib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from zkside import log
from zkside.errors import StartError, Unavailable
from zkside.model.hold import HoldRow
from zkside.zk.port import Ticket

FORMAT = 1
_SPARE_LINES = 1000
_ROW_FIELDS = frozenset(one.name for one in fields(HoldRow))


@dataclass(frozen=True, slots=True)
class JournalStatistics:
    """For metrics."""

    holds: int
    owned: int
    lines: int
    size_bytes: int
    replaced: int
    errors: int
    """Lines and files that could not be written, since the start."""


@dataclass(slots=True)
class _Content:
    """What the lines add up to."""

    epoch: int = 0
    ticket: Ticket | None = None
    timeout_s: float = 0.0
    holds: dict[str, HoldRow] = field(default_factory=dict)
    owned: set[str] = field(default_factory=set)


class _Damaged(Exception):
    """The file is no journal of ours; says why. Carries the newest epoch that could be read."""

    def __init__(self, why: str, epoch: int = 0) -> None:
        super().__init__(why)
        self.epoch = epoch


class Journal:
    """One daemon's journal. Synchronous throughout: a method has written when it returns.

    Raises: Unavailable if a line cannot be written (disk full, say); the journal is then as before.
    """

    def __init__(self, cluster: str = "") -> None:
        """A journal in memory only: nothing survives the process."""
        self._cluster = cluster
        self._content = _Content()
        self._path: Path | None = None
        self._file = -1
        self._lock = -1
        self._lines = 0
        self._size_bytes = 0
        self._replaced = 0
        self._errors = 0

    @classmethod
    def open(cls, state_dir: Path, cluster: str = "") -> Journal:
        """The journal in this directory, which is made (mode 0700) if it is not there.

        `cluster` is the connection string ("h1:2181,h2:2181/chroot"). A journal of another ensemble or
        chroot, or a damaged one, is set aside under another name and the daemon starts anew.

        Raises: StartError if another daemon uses the directory or it cannot be used.
        """
        journal = cls(cluster)
        try:
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            journal._lock = _lock(state_dir / "session.lock")
            journal._path = state_dir / "session.journal"
            journal._load()
            journal._replace()
        except OSError as error:
            journal.close()
            raise StartError(f"the state directory {state_dir} cannot be used: {error}") from error
        return journal

    @property
    def epoch(self) -> int:
        """The newest epoch; 0 before the first."""
        return self._content.epoch

    @property
    def ticket(self) -> Ticket | None:
        """The session that can be taken up; None if there is none or it is over."""
        return self._content.ticket

    @property
    def timeout_s(self) -> float:
        """As negotiated for that session."""
        return self._content.timeout_s

    def holds(self) -> tuple[HoldRow, ...]:
        """The holds of the newest epoch, oldest first."""
        return tuple(self._content.holds.values())

    def owned(self) -> frozenset[str]:
        """The ephemeral nodes that belong to the daemon itself (daemon_lifetime)."""
        return frozenset(self._content.owned)

    def known_paths(self) -> frozenset[str]:
        """Every ephemeral that is somebody's: all others of the session are orphans."""
        return self.owned() | {row.path for row in self._content.holds.values() if row.path}

    def begin(self, epoch: int, ticket: Ticket | None, timeout_s: float) -> None:
        """An epoch begins, with this session if it can be taken up again; the holds and nodes of the one before
        are forgotten."""
        before = self._content
        self._content = _Content(epoch, ticket, timeout_s)
        try:
            self._replace()
        except OSError as error:
            self._content = _Content(epoch, None, timeout_s)
            self._errors += 1
            raise Unavailable(
                f"the journal cannot be written ({error}): epoch {epoch} will not survive a restart "
                f"(that of epoch {before.epoch} is over)"
            ) from error

    def resume(self, ticket: Ticket, timeout_s: float) -> None:
        """The session was taken up again: the epoch, its holds and its nodes go on.

        Raises: Unavailable, and goes on in memory.
        """
        self._content.ticket, self._content.timeout_s = ticket, timeout_s
        try:
            self._replace()
        except OSError as error:
            self._errors += 1
            raise Unavailable(f"the journal cannot be written: {error}") from error

    def end(self) -> None:
        """The session is over and must never be taken up again. The rows stay until the next epoch begins."""
        if self._content.ticket is not None:
            self._content.ticket = None
            self._append({"over": self._content.epoch})

    def note_zxid(self, zxid: int) -> None:
        """The session has seen this transaction."""
        ticket = self._content.ticket
        if ticket is not None and zxid > ticket.last_zxid:
            self._append({"zxid": zxid})
            self._content.ticket = Ticket(ticket.session_id, ticket.password, zxid)

    def put_hold(self, row: HoldRow) -> None:
        """Remember a hold, or its new row. To be called before the hold is announced."""
        self._append({"hold": _row(row)})
        self._content.holds[row.hold_id] = row

    def drop_hold(self, hold_id: str) -> None:
        """Forget a hold. To be called when its node is in the janitor's hands; twice is no error."""
        if hold_id in self._content.holds:
            self._append({"drop": hold_id})
            del self._content.holds[hold_id]

    def own(self, path: str) -> None:
        """This ephemeral node belongs to the daemon and is kept over a restart."""
        if path not in self._content.owned:
            self._append({"own": path})
            self._content.owned.add(path)

    def disown(self, path: str) -> None:
        if path in self._content.owned:
            self._append({"disown": path})
            self._content.owned.discard(path)

    def close(self) -> None:
        """Give the directory free. What was written stays."""
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1
        self._path = None

    def statistics(self) -> JournalStatistics:
        return JournalStatistics(
            holds=len(self._content.holds),
            owned=len(self._content.owned),
            lines=self._lines,
            size_bytes=self._size_bytes,
            replaced=self._replaced,
            errors=self._errors,
        )

    def _load(self) -> None:
        assert self._path is not None
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return
        try:
            self._content = _read(text, self._cluster)
        except _Damaged as damaged:
            aside = self._path.with_name(f"session.journal.{time.strftime('%Y%m%dT%H%M%S')}")
            os.replace(self._path, aside)
            log.journal_set_aside(aside=aside, reason=str(damaged))
            self._content = _Content(epoch=damaged.epoch)

    def _append(self, entry: dict[str, Any]) -> None:
        if self._path is None:
            return
        line = _line(entry)
        try:
            if self._lines > 2 * (len(self._content.holds) + len(self._content.owned)) + _SPARE_LINES:
                self._replace()
            written = os.write(self._file, line)
            if written < len(line):
                raise OSError(f"only {written} of {len(line)} bytes written")
        except OSError as error:
            self._errors += 1
            # Whatever part of the line arrived must not stand before the next one. Should even that fail, the
            # next daemon finds the file damaged and starts anew.
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size_bytes)
            raise Unavailable(f"the journal cannot be written: {error}; nothing was changed") from error
        self._lines += 1
        self._size_bytes += len(line)

    def _replace(self) -> None:
        if self._path is None:
            return
        content = self._content
        head: dict[str, Any] = {"format": FORMAT, "cluster": self._cluster, "epoch": content.epoch}
        if content.ticket is not None:
            head["session"] = {
                "id": content.ticket.session_id,
                "password": content.ticket.password.hex(),
                "zxid": content.ticket.last_zxid,
                "timeout_s": content.timeout_s,
            }
        entries = [head]
        entries += ({"own": path} for path in sorted(content.owned))
        entries += ({"hold": _row(row)} for row in content.holds.values())
        text = b"".join(map(_line, entries))
        new = self._path.with_suffix(".new")
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(file, 0o600)
            with open(file, "wb", closefd=False) as whole:
                whole.write(text)
            os.fsync(file)
            os.replace(new, self._path)
            _sync_directory(self._path.parent)
        except OSError:
            os.close(file)
            raise
        if self._file >= 0:
            os.close(self._file)
        self._file = file
        self._lines = len(entries)
        self._size_bytes = len(text)
        self._replaced += 1


def _lock(path: Path) -> int:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(lock, 32).decode(errors="replace").strip()
        os.close(lock)
        raise StartError(
            f"the state directory {path.parent} is in use by another daemon (pid {owner or 'unknown'}): "
            "stop it, or give this one a directory of its own"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _row(row: HoldRow) -> dict[str, Any]:
    return {name.name: getattr(row, name.name) for name in fields(row)} | {"data": dict(row.data)}


def _line(entry: dict[str, Any]) -> bytes:
    text = json.dumps(entry, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _parse(line: bytes) -> dict[str, Any]:
    """Raises ValueError."""
    checksum, _, text = line.partition(b" ")
    if len(checksum) != 8 or int(checksum, 16) != zlib.crc32(text):
        raise ValueError("wrong checksum")
    entry = json.loads(text)
    if not isinstance(entry, dict):
        raise ValueError("not an object")
    return entry


def _read(text: bytes, cluster: str) -> _Content:
    """Raises _Damaged. A last line that is not whole was being written when the daemon died: it was never
    acknowledged to anybody, and is ignored."""
    lines = text.split(b"\n")
    if lines.pop() and not lines:
        raise _Damaged("no line of it is whole, though the first one was written with the file")
    content = _Content()
    for number, line in enumerate(lines, 1):
        try:
            entry = _parse(line)
            if number == 1:
                _apply_head(content, entry, cluster)
            else:
                _apply(content, entry)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _Damaged(f"line {number}: {error}", content.epoch) from error
    return content


def _apply_head(content: _Content, head: dict[str, Any], cluster: str) -> None:
    content.epoch = int(head["epoch"])
    if head["format"] != FORMAT:
        raise _Damaged(f"format {head['format']}, not {FORMAT}", content.epoch)
    if not _is_same_cluster(str(head["cluster"]), cluster):
        raise _Damaged(f"it is of {head['cluster']!r}, not of {cluster!r}", content.epoch)
    session = head.get("session")
    if session is not None:
        content.timeout_s = float(session["timeout_s"])
        content.ticket = Ticket(int(session["id"]), bytes.fromhex(session["password"]), int(session["zxid"]))


def _apply(content: _Content, entry: dict[str, Any]) -> None:
    ((kind, value),) = entry.items()
    match kind:
        case "hold":
            row = HoldRow(**{name: value[name] for name in _ROW_FIELDS & value.keys()})
            content.holds[row.hold_id] = row
        case "drop":
            content.holds.pop(value, None)
        case "own":
            content.owned.add(value)
        case "disown":
            content.owned.discard(value)
        case "zxid":
            if content.ticket is not None:
                content.ticket = Ticket(content.ticket.session_id, content.ticket.password, int(value))
        case "over":
            content.ticket = None
        case _:
            raise ValueError(f"unknown entry {kind!r}")


def _is_same_cluster(one: str, other: str) -> bool:
    """The same chroot, and a server in common (an ensemble may grow while its sessions live on)."""
    hosts, _, chroot = one.partition("/")
    other_hosts, _, other_chroot = other.partition("/")
    return chroot == other_chroot and bool(set(hosts.split(",")) & set(other_hosts.split(",")))
