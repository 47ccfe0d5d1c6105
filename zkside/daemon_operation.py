"""What an operator does with a running daemon: reading its configuration again, its log's levels, its state."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from tempfile import gettempdir
from typing import IO, Any, Protocol

from zkside import log
from zkside.config import Config
from zkside.config_keys import KEYS, build, flatten
from zkside.errors import BadConfiguration, StartError
from zkside.hub.hub import Hub
from zkside.model.admin import LoggerLevel, Reloaded, ReloadStatistics
from zkside.model.session import SessionStatus
from zkside.ops.dump import document
from zkside.ops.levels import Levels
from zkside.ops.log_lines import Log
from zkside.ops.view import View
from zkside.recipes.holds import Holds
from zkside.rpc.server import RpcServer
from zkside.rpc.streams import Streams

STACKS_FILE = "stacks.txt"
"""In state_dir."""
DUMP_FILE = "state-dump.json"
"""In state_dir; each dump replaces the one before."""


class Parts(Protocol):
    """What is asked of the daemon."""

    config: Config
    hub: Hub
    holds: Holds
    rpc: RpcServer

    def configure(self, config: Config) -> None:
        """Take the live keys from this configuration; the others are as they were."""

    @property
    def http_address(self) -> str:
        """Of the pages, as host:port; "" if there are none."""

    def view(self) -> View:
        """The whole daemon at this moment."""


class Operation:
    """Serves AdminService (rpc/admin.py) and the daemon's signals. All on the event loop."""

    def __init__(self, parts: Parts, *, read: Callable[[], Config] | None, output: Log, levels: Levels) -> None:
        """`read` reads the configuration from where it came from; None: from nowhere."""
        self._parts = parts
        self._read = read
        self.output = output
        self.levels = levels
        self._reloaded = self._refused = self._needs_restart = 0

    # The configuration

    def reload(self) -> Reloaded:
        """Read the configuration again, and what it names: certificates, tokens, the policy.

        One that cannot be used changes nothing. Reads files on the event loop: they are small and of this host,
        and so no two readings can overtake each other.
        """
        try:
            if self._read is None:
                raise BadConfiguration("this daemon was started without a configuration that could be read again")
            new = self._read()
        except StartError as error:
            problems = error.problems if isinstance(error, BadConfiguration) else (str(error),)
            self._refused += 1
            log.config_refused(problems=problems)
            return Reloaded(problems=problems)
        applied, needs_restart = differences(self._parts.config, new)
        self._parts.configure(merged(self._parts.config, new))
        refused = self._parts.rpc.files.read_now()
        self._reloaded += 1
        self._needs_restart = len(needs_restart)
        log.config_reloaded(applied=applied, needs_restart=needs_restart)
        read_again = tuple(kept.name for kept in self._parts.rpc.files.statistics() if not kept.error)
        return Reloaded(applied, needs_restart, refused, read_again)

    def statistics(self) -> ReloadStatistics:
        return ReloadStatistics(self._reloaded, self._refused, self._needs_restart)

    # The log

    def log_levels(self) -> tuple[LoggerLevel, ...]:
        return self.levels.list()

    def configured_log_level(self) -> str:
        return self.levels.configured

    def set_log_level(self, logger: str, level: str, for_s: float) -> None:
        """Raises: InvalidArgument."""
        self.levels.set(logger, level, for_s)

    def log_lines(self) -> tuple[list[str], int]:
        """The last lines, and how many older ones were dropped."""
        return self.output.ring.lines(), self.output.ring.dropped

    # The state

    def dump(self) -> AsyncIterator[str]:
        """The whole state as one JSON document, in pieces (ops/dump.py)."""
        view, parts = self._parts.view(), self._parts
        head = {
            "pid": os.getpid(),
            "addresses": parts.rpc.addresses,
            "http": parts.http_address,
            "versions": view.versions,
            "backend": view.backend,
            "uptime_s": view.uptime_s,
            "draining": view.draining,
            "configuration": shown(parts.config),
            "reloads": self.statistics(),
            "log_levels": self.levels.list(),
            "files": parts.rpc.files.statistics(),
            "session": {**asdict(view.session), "status": _status(view.session.status)},
            "session_id": view.session.status.session_id_hex,
            "hub": view.hub,
            "holds_counted": {"holds": view.holds.holds, "granted": view.holds.granted, "ended": view.holds.ended},
            "refused": view.refused,
            "event_loop_lag_max_s": view.lag.max_s,
        }
        lists: dict[str, Iterable[object]] = {
            "holds": _holds(parts.holds),
            "watches": _watches(parts.hub),
            "streams": _streams(parts.rpc.streams),
        }
        return document(head, lists)

    async def dump_to_file(self) -> None:
        """The answer to SIGUSR1: into state_dir, or without one into the directory for temporary files; replaces
        the dump before."""
        state_dir = self._parts.config.state_dir
        file = state_dir / DUMP_FILE if state_dir else Path(gettempdir()) / f"zkside-{os.getpid()}-{DUMP_FILE}"
        try:
            text = "".join([piece async for piece in self.dump()]).encode()
            await asyncio.to_thread(_replace, file, text)
        except OSError as error:
            log.daemon_dump_failed(file=file, error=error)
        else:
            log.daemon_dumped(file=file, size_bytes=len(text))

    def open_stacks(self, held: ExitStack) -> IO[str]:
        """Where SIGUSR2 writes the stacks of all threads: a file in state_dir, or standard error without one, or where
        it cannot be made (a full disk is no reason not to start)."""
        state_dir = self._parts.config.state_dir
        if state_dir is None:
            return sys.stderr
        file = state_dir / STACKS_FILE
        try:
            made = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            log.daemon_no_stacks_file(file=file, error=error)
            return sys.stderr
        return held.enter_context(open(made, "w"))


def differences(running: Config, new: Config) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The keys whose values differ: those that can change now, and those that need a restart."""
    before, after = flatten(running), flatten(new)
    changed = [name for name in KEYS if before[name] != after[name]]
    return tuple(name for name in changed if KEYS[name].live), tuple(name for name in changed if not KEYS[name].live)


def merged(running: Config, new: Config) -> Config:
    """What is in force after a reading: the live keys of the new one, the others of the running one."""
    before, after = flatten(running), flatten(new)
    config: Config = build({name: (after if KEYS[name].live else before)[name] for name in KEYS})
    return config


def shown(config: Config) -> dict[str, str]:
    """Every key as TOML; secrets as ***."""
    return {name: KEYS[name].kind.show(value) for name, value in flatten(config).items()}


def _status(status: SessionStatus) -> dict[str, object]:
    return {**asdict(status), "session_id": status.session_id_hex}


def _holds(holds: Holds) -> Iterator[dict[str, Any]]:
    for hold in holds.each():
        row = asdict(hold.update)
        del row["resume_token"]
        yield {**row, "recipe": hold.recipe, "age_s": hold.age_s, "attached": hold.attached}


def _watches(hub: Hub) -> Iterator[dict[str, object]]:
    for watch in [*hub.keeper.watches.all()]:
        yield {
            "path": watch.path,
            "recursive": watch.recursive,
            "subscribers": sum(root.users for root in watch.roots),
            "stale": any(root.stale_since is not None for root in watch.roots),
        }


def _streams(streams: Streams) -> Iterator[dict[str, object]]:
    for stream in streams.each():
        yield {
            "method": stream.method,
            "peer": stream.peer,
            "age_s": stream.age_s(),
            "unread_s": stream.unread_s(),
            "sent": stream.sent,
            "pending": stream.pending(),
        }


def _replace(file: Path, text: bytes) -> None:
    """Whole or not at all, for its owner alone."""
    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as into:
        into.write(text)
    new.replace(file)
