"""What a killed daemon leaves to its successor: its session, its epoch and its holds.

One file of lines, each with its own checksum: first a head (format, cluster, epoch, session), then what
changed since. Appending a line costs some 20 µs whatever the number of holds. The file is replaced as a
whole, atomically and with fsync, when an epoch begins and when too many lines have become obsolete.

A line is handed to the kernel before `put_hold` returns, but not forced to the disk. That is on purpose: the
journal serves a daemon that was killed, and the kernel's pages survive that. If the machine itself goes down,
the processes that owned the holds go down with it; a lost line then means an ephemeral that the next daemon
does not know, and those it deletes. Only the epoch must not go back, and it is in the head.

The file holds the session's password and the holds' resume tokens: mode 0600.

It names itself in its head (zk/state_dir.py): a copy, on whatever host, is not believed, lest two daemons have one
session and delete each other's nodes. While it is open it is looked after once a second: a directory that was removed
is made anew.

Other versions read it too, newer and older ones. A field that an older daemon may do without can be added to a row:
what is unknown in a row is passed over. Whatever else changes (a new kind of line, a field that counts) is a new
FORMAT, and a daemon that does not know it begins a new session.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zkside import log
from zkside.errors import StartError, Unavailable
from zkside.model.hold import HoldRow
from zkside.zk.journal_lines import FORMAT, Content, Damaged, line_of, read, row_of, whole
from zkside.zk.port import Ticket
from zkside.zk.state_dir import FULL, bound_to, is_at, lock, sync

__all__ = ["FORMAT", "Journal", "JournalStatistics"]

_SPARE_LINES = 1000


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
    set_aside: int
    """Files that were not believed at the start: damaged, another ensemble's, or a copy."""
    remade: int
    """How often the directory or what was in it was gone, and was made anew."""


class Journal:
    """One daemon's journal. Synchronous throughout: a method has written when it returns.

    Raises: Unavailable if a line cannot be written (disk full, say); the journal is then as before.
    """

    def __init__(self, cluster: str = "") -> None:
        """A journal in memory only: nothing survives the process."""
        self._cluster = cluster
        self._content = Content()
        self._path: Path | None = None
        self._file = self._lock = -1
        self._lines = 0
        self._size_bytes = 0
        self._replaced = 0
        self._errors = self._set_aside = self._remade = 0
        self._is_gone = False
        """What was to be made anew could not be, and that was told."""

    @classmethod
    def open(cls, state_dir: Path, cluster: str = "") -> Journal:
        """The journal in this directory, which is made (mode 0700) if it is not there.

        `cluster` is the connection string ("h1:2181,h2:2181/chroot"). A journal of another ensemble or
        chroot, a copied or a damaged one, is set aside under another name and the daemon starts anew. On a full disk
        the daemon starts with what it can read, and appends as soon as there is room.

        Raises: StartError if another daemon uses the directory or it cannot be used.
        """
        journal = cls(cluster)
        journal._path = state_dir / "session.journal"
        try:
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            journal._lock = journal._take_lock()
            journal._load()
        except OSError as error:
            journal.close()
            raise StartError(f"the state directory {state_dir} cannot be used: {error}") from error
        try:
            journal._replace()
        except OSError as error:
            if error.errno not in FULL:
                journal.close()
                raise StartError(f"the state directory {state_dir} cannot be used: {error}") from error
            journal._errors += 1
            journal._go_on_with_the_old()
            log.journal_not_written(error=Unavailable(f"the journal cannot be written: {error}; the old one is kept"))
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

    @property
    def zxid(self) -> int:
        """The newest that any session has seen, in the present history."""
        return self._content.zxid

    @property
    def history(self) -> int:
        """Counts ZooKeeper's histories, from 1."""
        return self._content.history

    @property
    def former_zxid(self) -> int:
        """The newest zxid seen in any history before this one."""
        return self._content.former_zxid

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
        zxid = max(before.zxid, ticket.last_zxid if ticket is not None else 0)
        content = Content(epoch, ticket, timeout_s, zxid=zxid, history=before.history, former_zxid=before.former_zxid)
        self._content = content
        try:
            self._replace()
        except OSError as error:
            self._errors += 1
            if self._overwrite():
                return
            self._content = replace(content, ticket=None)
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

    def begin_history(self, seen_zxid: int) -> None:
        """No zxid up to this one means anything any more. Written when the next epoch begins."""
        self._content.former_zxid = max(self._content.former_zxid, seen_zxid)
        self._content.history += 1
        self._content.zxid = 0

    def end(self) -> None:
        """The session is over and must never be taken up again. The rows stay until the next epoch begins."""
        if self._content.ticket is not None:
            self._content.ticket = None
            self._append({"over": self._content.epoch})

    def note_zxid(self, zxid: int) -> None:
        """A session has seen this transaction."""
        content = self._content
        if zxid > content.zxid:
            self._append({"zxid": zxid})
            content.zxid = zxid
            if (ticket := content.ticket) is not None:
                content.ticket = Ticket(ticket.session_id, ticket.password, zxid)

    def put_hold(self, row: HoldRow) -> None:
        """Remember a hold, or its new row. To be called before the hold is announced."""
        self._append({"hold": row_of(row)})
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
            set_aside=self._set_aside,
            remade=self._remade,
        )

    def look_after(self) -> None:
        """Make the directory anew if it, or what was in it, is not there any more. Never raises.

        Until then what was written is lost to a successor, which begins a new session: nothing is believed that is not
        so. Another daemon that came first has the directory; this one goes on in memory.
        """
        if self._path is None or self._file < 0:
            return
        if is_at(self._path, self._file) and is_at(self._lock_path, self._lock):
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not is_at(self._lock_path, self._lock):
                made = self._take_lock()
                os.close(self._lock)
                self._lock = made
            self._replace()
        except StartError as error:
            self._errors += 1
            log.journal_given_up(error=error)
            self.close()
        except OSError as error:
            if not self._is_gone:
                self._errors += 1
                self._is_gone = True
                log.journal_not_written(
                    error=Unavailable(f"{self._path} is gone and cannot be made anew: {error}; trying again")
                )
        else:
            self._remade += 1
            self._is_gone = False
            log.journal_made_anew(file=self._path)

    def _take_lock(self) -> int:
        """Raises: StartError, OSError."""
        in_use = f"the state directory {self._lock_path.parent} is in use by another daemon (pid {{pid}}): "
        return lock(self._lock_path, in_use + "stop it, or give this one a directory of its own")

    @property
    def _lock_path(self) -> Path:
        assert self._path is not None
        return self._path.with_name("session.lock")

    def _load(self) -> None:
        assert self._path is not None
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return
        try:
            content = read(text, self._cluster)
        except Damaged as damaged:
            log.journal_set_aside(aside=self._put_aside(), reason=str(damaged))
            self._content = Content(epoch=damaged.epoch)
            return
        if content.bound and content.bound != self._name_of(self._path):
            log.journal_copied(aside=self._put_aside(), bound=content.bound)
            # Of what it says only the numbers are taken, lest they go back.
            content = Content(
                content.epoch, zxid=content.zxid, history=content.history, former_zxid=content.former_zxid
            )
        self._content = content

    def _put_aside(self) -> Path:
        assert self._path is not None
        self._set_aside += 1
        aside = self._path.with_name(f"session.journal.{time.strftime('%Y%m%dT%H%M%S')}")
        os.replace(self._path, aside)
        return aside

    @staticmethod
    def _name_of(path: Path) -> str:
        with open(path, "rb") as file:
            return bound_to(file.fileno())

    def _append(self, entry: dict[str, Any]) -> None:
        if self._path is None:
            return
        line = line_of(entry)
        try:
            if self._file < 0 or self._lines > 2 * (len(self._content.holds) + len(self._content.owned)) + _SPARE_LINES:
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
        new = self._path.with_suffix(".new")
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(file, 0o600)
            lines = whole(self._content, self._cluster, bound_to(file))
            with open(file, "wb", closefd=False) as into:
                into.writelines(lines)
            os.fsync(file)
            os.replace(new, self._path)
            sync(self._path.parent)
        except OSError:
            os.close(file)
            with contextlib.suppress(OSError):
                new.unlink()  # what of it was written takes up room
            raise
        self._take(file, lines)
        self._replaced += 1

    def _overwrite(self) -> bool:
        """As `_replace`, in the old file: for a disk without room for another one. Not whole or not at all, but what is
        there by half is seen to be damaged. False if it cannot be done."""
        if self._path is None or self._file < 0 or not is_at(self._path, self._file):
            return False
        lines = whole(self._content, self._cluster, bound_to(self._file))
        text = b"".join(lines)
        if len(text) > self._size_bytes:
            return False
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.pwrite(file, text, 0)
                os.ftruncate(file, len(text))
                os.fsync(file)
            finally:
                os.close(file)
        except OSError:
            return False
        self._lines, self._size_bytes = len(lines), len(text)
        return True

    def _go_on_with_the_old(self) -> None:
        """Append to the file that was read, if there is one."""
        assert self._path is not None
        with contextlib.suppress(OSError):
            text = self._path.read_bytes()
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            self._size_bytes = text.rfind(b"\n") + 1
            self._lines = text.count(b"\n")
            os.ftruncate(self._file, self._size_bytes)

    def _take(self, file: int, lines: list[bytes]) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = file
        self._lines = len(lines)
        self._size_bytes = sum(map(len, lines))
