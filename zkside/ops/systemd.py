"""Tells the service manager how the daemon is: ready, reloading, stopping, and that its event loop turns.

The protocol of sd_notify(3): datagrams to the socket that $NOTIFY_SOCKET names. Without that variable (no systemd,
or Type=simple) nothing is sent and nothing runs. So small that no package is worth its line in docs/dependencies.md.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping

from zkside.supervisor import Permanent, Supervisor, nothing


class ServiceManager:
    """systemd, if it started this process. All on the event loop."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._watchdog_s = _watchdog_s(environment)
        self._socket: socket.socket | None = None
        self._task: Permanent | None = None
        self._told = ""

    def ready(self) -> None:
        """The daemon serves; also after `reloading`."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """The configuration is being read; `ready` ends it."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def start(self, status: Callable[[], str], supervisor: Supervisor) -> None:
        """Ping the watchdog from the loop as often as is asked for, and tell the status when it has changed.

        A loop that hangs pings no more, and systemd ends the process and starts the next.
        """
        if self._address:
            self._task = supervisor.start("systemd", lambda: self._run(status), nothing)

    def stop(self) -> None:
        if self._task is not None:
            self._task.stop()
            self._task = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _run(self, status: Callable[[], str]) -> None:
        # Twice as often as needed, so that one late timer is no restart.
        interval_s = self._watchdog_s / 2 if self._watchdog_s else STATUS_INTERVAL_S
        while True:
            self._beat(status)
            await asyncio.sleep(min(interval_s, STATUS_INTERVAL_S))

    def _beat(self, status: Callable[[], str]) -> None:
        words = status().replace("\n", " ")
        if words != self._told:
            self._told = words
            self._tell(f"STATUS={words}")
        if self._watchdog_s:
            self._tell("WATCHDOG=1")

    def _tell(self, words: str) -> None:
        if not self._address:
            return
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
        try:
            self._socket.sendto(words.encode(), self._address)
        except OSError:
            # Nobody reads it, or not fast enough: what follows is systemd's to decide, and its timeout runs.
            return


STATUS_INTERVAL_S = 5.0


def _address(text: str) -> str:
    """As the system call takes it: `@name` is an abstract socket. Anything else but a path is not for us."""
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if text.startswith("/") else ""


def _watchdog_s(environment: Mapping[str, str]) -> float:
    """0: no watchdog, or it is meant for another process."""
    for_us = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    microseconds = environment.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if for_us and microseconds.isdecimal() else 0.0
