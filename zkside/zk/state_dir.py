"""The state directory: whose it is, and whether what lies in it is what was written there. Sockets are locked alike."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from functools import cache
from pathlib import Path

from zkside.errors import StartError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of a place that takes no more: what is there can be read all the same."""


def lock(path: Path, in_use: str) -> int:
    """An open file that no other daemon can lock. Raises: StartError if one has; OSError.

    `in_use` is the error then, with `{pid}` where the other process is to be named.
    """
    made = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(made, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(made, 32).decode(errors="replace").strip()
        os.close(made)
        raise StartError(in_use.replace("{pid}", owner or "unknown")) from None
    except BaseException:
        os.close(made)
        raise
    with suppress(OSError):  # the process is named for people; a full disk takes no number, and locks all the same
        os.ftruncate(made, 0)
        os.pwrite(made, f"{os.getpid()}\n".encode(), 0)
    return made


def sync(path: Path) -> None:
    """Have the names in a directory survive the machine's end."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file is still the one at this path."""
    try:
        there, opened = os.stat(path), os.fstat(descriptor)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (opened.st_dev, opened.st_ino)


def bound_to(descriptor: int) -> str:
    """Names an open file so that no copy of it has the same name: the running kernel, the device and the inode.

    A session is for the processes of one host, and lives no longer than its timeout: so nothing is lost with a name
    that a reboot, or a move to another host, changes too.
    """
    found = os.fstat(descriptor)
    return f"{_boot_id()} {found.st_dev}:{found.st_ino}"


@cache
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
