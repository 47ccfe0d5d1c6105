"""doctor."""

from __future__ import annotations

import os
import platform
import socket
import stat
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zkside import __version__
from zkside.cli import exits, output
from zkside.cli.invocation import Invocation, pass_invocation
from zkside.cli.status import last_error_text, lease_text
from zkside.errors import DeadlineExceeded, ZksideError

if TYPE_CHECKING:
    from zkside.client import Client, Session

SLOW_SYNC_S = 0.5
CLOCK_OFF_S = 2.0


class Level(Enum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result; `todo` says what to do about it."""

    check: str
    level: Level
    told: str
    todo: str = ""


@click.command()
@pass_invocation
def doctor(invocation: Invocation) -> None:
    """Check everything between this shell and ZooKeeper; exit with 1 if something fails.

    Reads only, but for a sync. Each line is ok, warn or fail, with what to do.
    """

    async def flow(client: Client) -> int:
        worst = Level.OK
        async for finding in examine(client, named=bool(invocation.address)):
            if invocation.is_json:
                fields = {"check": finding.check, "level": finding.level.value, "told": finding.told}
                output.json_line({**fields, "todo": finding.todo})
            else:
                output.line(f"{finding.level.value:<5} {finding.check:<11} {finding.told}")
                if finding.todo:
                    output.line(f"{'':<17} → {finding.todo}")
            if finding.level is Level.FAIL or (finding.level is Level.WARN and worst is Level.OK):
                worst = finding.level
        return exits.ERROR if worst is Level.FAIL else exits.OK

    invocation.run(flow)


async def examine(client: Client, *, named: bool) -> AsyncIterator[Finding]:
    """All checks in order; those that need what has failed are left out."""
    source = "from --address or ZKSIDE_ADDRESS" if named else "the default; ZKSIDE_ADDRESS is not set"
    yield Finding("address", Level.OK, f"{client.address} ({source})")
    if client.address.startswith("unix:"):
        finding = _socket(Path(client.address.removeprefix("unix:")))
        yield finding
        if finding.level is Level.FAIL:
            return
    yield Finding("versions", Level.OK, _versions())
    try:
        status = await client.admin.status()
    except ZksideError as error:
        yield Finding("daemon", Level.FAIL, str(error), "look at the daemon's log; start it with `zkside serve`")
        return
    yield _daemon(status.version, status.backend, status.uptime_s, status.draining)
    session = status.session
    yield _session(session)
    yield _lease(session)
    if session.state.is_connected:
        yield await _sync(client)
        yield await _clock(client)


def _socket(path: Path) -> Finding:
    check = "socket"
    try:
        found = path.stat()
    except FileNotFoundError:
        todo = "start the daemon with `zkside serve` (or `zkside dev`), or set ZKSIDE_ADDRESS to where it listens"
        return Finding(check, Level.FAIL, f"{path} is not there", todo)
    except OSError as error:
        todo = "the folders above it must be searchable (x) for you; see socket_mode in docs/configuration.md"
        return Finding(check, Level.FAIL, f"{path} cannot be looked at: {error.strerror}", todo)
    if not stat.S_ISSOCK(found.st_mode):
        return Finding(check, Level.FAIL, f"{path} is no socket", "set ZKSIDE_ADDRESS to where the daemon listens")
    rights = f"{stat.filemode(found.st_mode)} owner {found.st_uid} group {found.st_gid}, you are {os.geteuid()}"
    if not os.access(path, os.R_OK | os.W_OK):
        todo = "join its group, or let the daemon give it another group or mode: socket_group, socket_mode"
        return Finding(check, Level.FAIL, f"you may not use {path}: {rights}", todo)
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(path))
        except OSError as error:
            todo = "a daemon that was killed leaves its socket behind: start it again with `zkside serve`"
            return Finding(check, Level.FAIL, f"nobody listens at {path}: {error.strerror or error}", todo)
    return Finding(check, Level.OK, rights)


def _versions() -> str:
    import google.protobuf
    import grpc

    return (
        f"zkside {__version__}, Python {platform.python_version()}, "
        f"grpc {grpc.__version__}, protobuf {google.protobuf.__version__}"
    )


def _daemon(version: str, backend: str, uptime_s: float, draining: bool) -> Finding:
    told = f"zkside {version}, up {uptime_s:.0f} s"
    if draining:
        return Finding("daemon", Level.WARN, f"{told}, draining", "it takes no new streams or holds: restart it")
    if backend == "memory":
        todo = "for development only: nothing lasts, and no other host sees it"
        return Finding("daemon", Level.WARN, f"{told}, on memory instead of ZooKeeper", todo)
    if version != __version__:
        todo = f"this command is {__version__}: they understand each other, but update the older one"
        return Finding("daemon", Level.WARN, told, todo)
    return Finding("daemon", Level.OK, told)


def _session(session: Session) -> Finding:
    name = session.state.name
    reason = f" ({session.reason})" if session.reason and name != "CONNECTED" else ""
    if session.last_error and not session.state.is_connected:
        reason += f"; connecting fails: {last_error_text(session)}"
    told = f"{name} {session.session_id} epoch {session.epoch}, server {session.server or 'none'}{reason}"
    if name == "CONNECTED":
        return Finding("session", Level.OK, f"{told}, timeout {session.timeout_s:g} s")
    if name == "CONNECTED_READ_ONLY":
        todo = "its server is cut off from the quorum: look at the ensemble"
        return Finding("session", Level.WARN, told, todo)
    if name == "AUTH_FAILED":
        return Finding("session", Level.FAIL, told, "check zookeeper.auth and zookeeper.sasl of the configuration")
    if "the chroot " in session.last_error:
        todo = "make it, or set zookeeper.create_chroot; it is looked for every second"
        return Finding("session", Level.FAIL, told, todo)
    todo = "is ZooKeeper up, and are the `hosts` that `zkside config print` shows right and reachable from here?"
    return Finding("session", Level.FAIL, told, todo)


def _lease(session: Session) -> Finding:
    told = lease_text(session)
    left_s = (session.lease_monotonic_ns - time.monotonic_ns()) / 1e9
    if not session.lease_boottime_ns or left_s > 0:
        # A lease that reaches beyond the session timeout means that the clocks are not of one host.
        if session.lease_boottime_ns and left_s > session.timeout_s + CLOCK_OFF_S:
            todo = "the daemon runs on another machine, or in a sandbox with clocks of its own: run it on this host"
            return Finding("lease", Level.FAIL, f"{told}, longer than the session timeout", todo)
        return Finding("lease", Level.OK, told)
    return Finding("lease", Level.WARN, told, "what this host holds is in jeopardy until ZooKeeper answers")


async def _sync(client: Client) -> Finding:
    started_s = time.monotonic()
    try:
        zxid = await client.sync()
    except DeadlineExceeded:
        waited_s = time.monotonic() - started_s
        told = f"no answer to a sync in {waited_s:.0f} s: the daemon is there, and waits for ZooKeeper"
        return Finding("zookeeper", Level.FAIL, told, "is a server stopped, or out of its quorum? look at the ensemble")
    except ZksideError as error:
        return Finding("zookeeper", Level.FAIL, f"no answer to a sync: {error}", "look at the ensemble's leader")
    took_s = time.monotonic() - started_s
    told = f"the leader answered a sync in {took_s * 1000:.1f} ms, at zxid {zxid:#x}"
    if took_s > SLOW_SYNC_S:
        return Finding("zookeeper", Level.WARN, told, "slow: look at the ensemble's disks and network")
    return Finding("zookeeper", Level.OK, told)


async def _clock(client: Client) -> Finding:
    """The host's wall clock against the server's, as far as a node that was just written tells it."""
    boottime = hasattr(time, "CLOCK_BOOTTIME")
    told = "leases are kept on CLOCK_BOOTTIME" if boottime else "no CLOCK_BOOTTIME here: leases use CLOCK_MONOTONIC"
    if not boottime:
        return Finding("clock", Level.WARN, told, "a suspended machine would believe in its lease for too long")
    newest_s = (await client.get("/")).stat.mtime / 1000
    ahead_s = newest_s - time.time()
    if ahead_s > CLOCK_OFF_S:
        todo = "no lease depends on the wall clock, but times in Stats will confuse people: run NTP"
        return Finding("clock", Level.WARN, f"ZooKeeper is at least {ahead_s:.0f} s ahead of this host", todo)
    return Finding("clock", Level.OK, told)
