"""The command that runs under a hold, as zkside sees it; zkside/cli/guard.py is the process that runs it."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from zkside.cli import exits
from zkside.cli.deadline import Deadlines
from zkside.cli.descendants import Descendants


@dataclass(frozen=True, slots=True)
class Ended:
    """How the command ended."""

    status: int
    """As a shell has it: 128 + n for a signal; 126 and 127 if it could not be started."""
    why: str = ""
    """If it could not be started."""
    was_told: bool = False
    """Whether it was told to end, or killed, for the sake of the hold."""
    left: int = 0
    """How many processes it left behind; they were told to end, and have ended."""
    out_of_reach: int = 0
    """How many of these belong to another user, and go on."""


class Child:
    """A command that can be run again and again, once at a time, and that never outlives this process.

    To be made before there is any other thread, so before gRPC is loaded. Used from one event loop, inside `with`.
    """

    def __init__(self, command: Sequence[str], kill_after_s: float) -> None:
        self.pid = 0
        self.is_guarded = True
        """False once the guard has died: nothing can be run any more."""
        self.command = tuple(command)
        self._line, guards = socket.socketpair()
        self._guard = os.fork()
        if self._guard == 0:
            self._line.close()
            _guard(guards, command, kill_after_s)
        guards.close()
        # What the command started comes here when the guard has died.
        self._descendants = Descendants()
        self._line.setblocking(False)
        self._received = b""
        self._ended: asyncio.Future[Ended] | None = None
        self.told = asyncio.Event()
        """Set when the command was told to end, or killed, for the sake of the hold."""
        self.killed = asyncio.Event()
        """Set when it was killed for that; first or after it was told."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Kill what still runs, and wait for its end."""
        self._line.close()
        with suppress(ChildProcessError):  # it had died before
            os.waitpid(self._guard, 0)

    async def run(
        self, variables: dict[str, str], deadlines: Deadlines, release: dict[str, str] | None = None
    ) -> Ended:
        """Start it with these variables added to the environment, and wait for its end.

        `release`: the address and the hold_id of what is let go, once the command is dead, if this process dies.
        Cancellation: it is killed, and dead."""
        loop = asyncio.get_running_loop()
        ended = self._ended = loop.create_future()
        self.told.clear()
        self.killed.clear()
        loop.add_reader(self._line, self._read)
        try:
            self._say(run=variables, release=release, tell_ns=deadlines.tell_ns, kill_ns=deadlines.kill_ns)
            try:
                return await asyncio.shield(ended)
            except asyncio.CancelledError:
                self.keep(Deadlines(kill_ns=0))
                await ended
                raise
        finally:
            loop.remove_reader(self._line)
            self.pid = 0

    def keep(self, deadlines: Deadlines) -> None:
        """Move its deadlines; None leaves one as it is."""
        self._say(tell_ns=deadlines.tell_ns, kill_ns=deadlines.kill_ns)

    def signal(self, number: signal.Signals) -> None:
        """Send its process group a signal; nothing happens if it does not run."""
        self._say(signal=number)

    def _say(self, **message: Any) -> None:
        try:
            self._line.sendall(json.dumps(message).encode() + b"\n")
        except BlockingIOError:
            # It has not read for minutes, and so protects nothing: the kernel kills the command with it.
            os.kill(self._guard, signal.SIGKILL)
        except ConnectionError:
            pass  # the next read tells

    def _read(self) -> None:
        try:
            data = self._line.recv(65536)
        except ConnectionError:
            data = b""
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            self._hear(json.loads(line))
        if not data:
            self._guard_died()

    def _hear(self, message: dict[str, Any]) -> None:
        if "started" in message:
            self.pid = message["started"]
        elif "failed" in message:
            missing = message["failed"] in (errno.ENOENT, errno.ENOTDIR)
            self._end(Ended(exits.NO_COMMAND if missing else exits.CANNOT_RUN, message["why"]))
        elif "told" in message or "killed" in message:
            if "killed" in message:
                self.killed.set()
            self.told.set()
        elif "stopped" in message:
            # As its shell expects of the job. It goes on with us, or is killed meanwhile at its deadline.
            os.kill(os.getpid(), signal.SIGSTOP)
            self.signal(signal.SIGCONT)
        elif "ended" in message:
            self._end(
                Ended(
                    message["ended"],
                    was_told=self.told.is_set(),
                    left=message.get("left", 0),
                    out_of_reach=message.get("out_of_reach", 0),
                )
            )

    def _end(self, ended: Ended) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(ended)

    def _guard_died(self) -> None:
        asyncio.get_running_loop().remove_reader(self._line)
        if self.pid:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)  # all of it; the command itself is dead already
        self._descendants.kill()
        self.is_guarded = False
        self.told.set()
        self._end(Ended(128 + signal.SIGKILL, was_told=True))


def _guard(line: socket.socket, command: Sequence[str], kill_after_s: float) -> None:
    """The forked process. It never comes back into the caller."""
    status = 1
    try:
        from zkside.cli.guard import Guard

        Guard(line, command, kill_after_s).run()
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)
