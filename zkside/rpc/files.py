"""Files that are read again when they change: certificates, tokens, the policy, the configuration.

They are looked at every second, on the event loop: a stat of each costs a microsecond or two, and needs neither a
thread nor inotify, which sees nothing through the symbolic links by which Kubernetes exchanges the files of a
volume.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from zkside import log
from zkside.errors import StartError
from zkside.supervisor import Permanent, Supervisor, nothing

T = TypeVar("T")

INTERVAL_S = 1.0
MAX_UNREST = 5
"""Looks at files that differ each time after which they are read all the same."""


@dataclass(frozen=True, slots=True)
class KeptStatistics:
    """One thing kept from files."""

    name: str
    paths: tuple[str, ...]
    loaded_unix_s: float
    """When what is in use was read."""
    loads: int
    failures: int
    error: str
    """Why the files as they are now are not in use; '' if they are."""
    expires_unix_s: Mapping[str, float]
    """When certificates in it end, by what they are."""


class Kept(Generic[T]):
    """What some files say, as of the last time when they made sense.

    Invariant: `value` comes from one reading of all files; a reading that fails changes nothing but `error`.
    """

    def __init__(
        self, name: str, paths: Iterable[Path], read: Callable[[], T], expires: Callable[[T], Mapping[str, float]]
    ) -> None:
        """Read for the first time. Raises: what `read` raises."""
        self._expires = expires
        self.name = name
        self.paths = tuple(paths)
        self._read = read
        self._changed: list[Callable[[T], None]] = []
        self._print = self._seen = fingerprints(self.paths)
        self._unrest = 0
        self._loads = 1
        self._failures = 0
        self.error = ""
        self.value: T = read()
        self._loaded_unix_s = time.time()

    def on_change(self, changed: Callable[[T], None]) -> None:
        """Call this with each new value, after it is in `value`. It must not raise."""
        self._changed.append(changed)

    def look(self) -> None:
        """Read again if the files have changed and were at rest since the last look.

        The certificate of one pair with the key of another is so seen seldom, and harms nothing then.
        """
        now = fingerprints(self.paths)
        if now == self._print:
            self._seen, self._unrest = now, 0
        elif now == self._seen or self._unrest >= MAX_UNREST:
            self._print, self._unrest = now, 0
            self.read_now()
        else:
            self._seen = now
            self._unrest += 1

    def read_now(self) -> bool:
        """Read, whether or not anything has changed; whether it made sense. What did not is logged."""
        try:
            value = self._read()
        except (StartError, OSError, ValueError) as error:
            self._failures += 1
            self.error = str(error)
            log.files_refused(source=self.name, error=error)
            return False
        self.value, self.error = value, ""
        self._loads += 1
        self._loaded_unix_s = time.time()
        log.files_loaded(source=self.name)
        for changed in self._changed:
            changed(value)
        return True

    def statistics(self) -> KeptStatistics:
        return KeptStatistics(
            self.name,
            tuple(map(str, self.paths)),
            self._loaded_unix_s,
            self._loads,
            self._failures,
            self.error,
            self._expires(self.value),
        )


class FileWatch:
    """All that a daemon keeps from files, and what else it has to look at; costs nothing while that is nothing."""

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._kept: list[Kept[Any]] = []
        self._looks: list[Callable[[], None]] = []
        self._supervisor: Supervisor | None = None
        self._task: Permanent | None = None

    def also(self, look: Callable[[], None]) -> Callable[[], None]:
        """Look at something else in the same rhythm, which is no content of a file. `look` must not raise.

        Returns the way to stop it.
        """
        self._looks.append(look)
        self._arm()
        return lambda: self._looks.remove(look)

    def keep(
        self,
        name: str,
        paths: Iterable[Path],
        read: Callable[[], T],
        expires: Callable[[T], Mapping[str, float]] = lambda value: {},
    ) -> Kept[T]:
        """Read now, and again whenever one of the files changes, appears or goes.

        `read` says what is wrong by raising StartError, OSError or ValueError, here and now to the caller of
        this. A path may be a directory: then the files directly in it count, but those whose names begin with
        a dot. `expires` tells when certificates in the value end.
        """
        kept = Kept(name, paths, read, expires)
        self._kept.append(kept)
        self._arm()
        return kept

    def forget(self, kept: Kept[Any]) -> None:
        """Look at it no more."""
        self._kept.remove(kept)

    def start(self, supervisor: Supervisor) -> None:
        """Look from now on, on the running loop."""
        self._supervisor = supervisor
        self._arm()

    def stop(self) -> None:
        self._supervisor = None
        if self._task is not None:
            self._task.stop()
            self._task = None

    def look(self) -> None:
        """Look at all of them now."""
        for kept in [*self._kept]:
            kept.look()
        for look in [*self._looks]:
            look()

    def read_now(self) -> tuple[str, ...]:
        """Read all of them, whether or not they have changed; what is wrong with those that make no sense."""
        return tuple(f"{kept.name}: {kept.error}" for kept in [*self._kept] if not kept.read_now())

    def statistics(self) -> tuple[KeptStatistics, ...]:
        return tuple(kept.statistics() for kept in self._kept)

    def _arm(self) -> None:
        if self._supervisor is not None and (self._kept or self._looks) and self._task is None:
            self._task = self._supervisor.start("files", self._run, nothing)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            self.look()


def fingerprints(paths: Iterable[Path]) -> tuple[object, ...]:
    """What changes when a file is written, replaced, made readable or gone, also behind symbolic links."""
    return tuple(_fingerprint(path) for path in paths)


def _fingerprint(path: Path) -> object:
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            names = sorted(name for name in os.listdir(path) if not name.startswith("."))
            return tuple((name, _fingerprint_of_file(path / name)) for name in names)
    except OSError as error:
        return error.errno
    return _identity(status)


def _fingerprint_of_file(path: Path) -> object:
    try:
        return _identity(os.stat(path))
    except OSError as error:
        return error.errno


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
