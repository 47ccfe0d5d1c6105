"""The process between zkside and the command that it runs: it ends the command in time, whatever becomes of zkside.

zkside forks it before gRPC is loaded, so it is small and has one thread. It starts the command in a process group of
its own and keeps two deadlines on the host's clock, which zkside moves forward while the hold is good: at the first
the group is told to end (SIGTERM), at the second it is killed. So a zkside that is stopped, hangs or starves ends the
command no later than the lease. When zkside dies the group is killed at once, and the hold is released only then.

What the command started and left behind relied on the hold like itself. So the command counts as ended when all of that
has ended too, in whatever process group or session: it is told to end when the command has ended, and killed later.

Messages are JSON objects, one a line, over a socket pair; its end is the other process's death.

To guard: `{"run": {variables}, "release": {"hold_id", variables}}` (what to release when zkside has died, or null),
`{"tell_ns", "kill_ns"}` (null: as it is), `{"signal": n}`.
From guard: `{"started": pid}`, `{"failed": errno, "why"}`, `{"told": ns}`, `{"killed": ns}`, `{"stopped": true}`,
`{"ended": status}` (as a shell has it: 128 + n for a signal), with `"left"` and `"out_of_reach"`: how many processes
the command left behind, and how many of them belong to another user and go on.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from zkside.cli.deadline import Deadlines, boottime_ns
from zkside.cli.descendants import Descendants, prctl

_PR_SET_PDEATHSIG = 1
_NOT_OURS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGTSTP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
"""What reaches a whole process group is zkside's to act on."""


class Guard:
    """Starts one command after the other, and ends each in time."""

    def __init__(self, line: socket.socket, command: Sequence[str], kill_after_s: float) -> None:
        self._line = line
        self._command = list(command)
        self._kill_after_ns = round(kill_after_s * 1e9)
        self._received = b""
        self._pid = 0
        self._deadlines = Deadlines()
        self._told_ns = 0
        self._killed = False
        self._status: int | None = None
        """How the command has ended; what it left behind may still run."""
        self._left = 0
        self._out_of_reach = 0
        self._descendants = Descendants()
        self._release: Mapping[str, str] | None = None
        self._own_mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
        self._terminal = _terminal()

    def run(self) -> None:
        """Serve until zkside is gone; then nothing runs any more."""
        woken, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        for number in (*_NOT_OURS, signal.SIGCHLD):
            # A handler, for that is undone by exec; what was ignored from the start stays so, also for the command.
            if number == signal.SIGCHLD or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda *_: None)
        poll = select.poll()
        poll.register(self._line, select.POLLIN)
        poll.register(woken, select.POLLIN)
        while True:
            ready = dict(poll.poll(self._wait_ms()))
            if woken in ready:
                os.read(woken, 4096)
            if self._line.fileno() in ready and not self._receive():
                break
            self._reap()
            self._enforce()
            self._finish()
        self._orphaned()

    def _receive(self) -> bool:
        """Act on what zkside says; False if it is gone."""
        try:
            data = self._line.recv(65536)
        except ConnectionError:
            data = b""
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            self._act(json.loads(line))
        return bool(data)

    def _act(self, message: Mapping[str, Any]) -> None:
        if "run" in message:
            self._deadlines, self._told_ns, self._killed = Deadlines(), 0, False
            self._status, self._left, self._out_of_reach = None, 0, 0
        self._deadlines = self._deadlines.moved(message.get("tell_ns"), message.get("kill_ns"))
        if "run" in message:
            self._start(message["run"])
            self._release = message["release"]
        if "signal" in message:
            number = signal.Signals(message["signal"])
            if number == signal.SIGCONT:
                self._take_terminal_for_command()
            self._signal(number)

    def _say(self, **message: object) -> None:
        with suppress(ConnectionError):  # zkside is gone: the next read tells
            self._line.sendall(json.dumps(message).encode() + b"\n")

    # The command

    def _start(self, variables: Mapping[str, str]) -> None:
        if self._deadlines.due(boottime_ns(), 0, 0):
            # The machine slept meanwhile: a hold that is in danger is no ground to begin on.
            self._say(told=boottime_ns())
            self._say(ended=128 + signal.SIGTERM)
            return
        guard, in_foreground = os.getpid(), self._has_terminal()

        def in_child() -> None:
            # This process dies: so does the command, also without anybody to tell it.
            if prctl is not None:
                prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != guard:
                os._exit(128 + signal.SIGKILL)
            if in_foreground:
                os.tcsetpgrp(self._terminal, os.getpid())
            signal.pthread_sigmask(signal.SIG_SETMASK, self._own_mask)

        try:
            process = subprocess.Popen(
                self._command, env={**os.environ, **variables}, process_group=0, preexec_fn=in_child
            )
        except OSError as error:
            self._say(failed=error.errno or errno.ENOENT, why=error.strerror or str(error))
            return
        process.returncode = 0  # waited for here, not by subprocess
        self._pid = process.pid
        self._say(started=process.pid)

    def _signal(self, number: signal.Signals) -> None:
        """To the command's process group; to all that it left behind, once it has ended."""
        if self._status is not None:
            self._descendants.signal(number)
        elif self._pid:
            with suppress(PermissionError):  # another user's, such as sudo's
                os.killpg(self._pid, number)

    def _signal_all(self, number: signal.Signals) -> None:
        """To all that it started as well."""
        self._signal(number)
        if self._status is None:
            self._descendants.signal(number)

    def _reap(self) -> None:
        """Hear how the command ended or that it was stopped, and bury what it left behind."""
        while True:
            try:
                state = os.waitid(os.P_ALL, 0, os.WEXITED | os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if state is None:
                return
            if state.si_code == os.CLD_STOPPED:
                os.waitid(os.P_PID, state.si_pid, os.WSTOPPED | os.WNOHANG)
                if state.si_pid == self._pid and self._take_terminal_back():
                    self._say(stopped=True)
                continue
            if state.si_pid == self._pid and self._status is None:
                self._command_ended(state.si_status if state.si_code == os.CLD_EXITED else 128 + state.si_status)
            os.waitid(os.P_PID, state.si_pid, os.WEXITED)

    def _command_ended(self, status: int) -> None:
        """Its number is not given to another yet, nor that of its group."""
        if not self._descendants.are_kept:
            self._signal(signal.SIGKILL)
        self._take_terminal_back()
        self._status = status
        if self._told_ns or self._killed:
            self._killed = True
            self._descendants.signal(signal.SIGKILL)
            return
        self._told_ns = boottime_ns()
        self._left = sum(self._descendants.signal(signal.SIGTERM))
        self._descendants.signal(signal.SIGCONT)

    def _finish(self) -> None:
        """Say that the command has ended, if nothing of it is left."""
        if self._status is None:
            return
        if self._killed:
            # Again: one may have been on its way into the world when the others were killed.
            reached, self._out_of_reach = self._descendants.signal(signal.SIGKILL)
            if reached or (not self._out_of_reach and _has_children()):
                return
        elif _has_children():
            return
        status, self._status, self._pid, self._release = self._status, None, 0, None
        self._say(ended=status, left=self._left, out_of_reach=self._out_of_reach)

    # Deadlines

    def _wait_ms(self) -> float | None:
        due_ns = self._deadlines.next_ns(self._told_ns, self._kill_after_ns) if self._pid and not self._killed else None
        # Rounded up: a deadline is not looked at before it is there.
        return None if due_ns is None else max(0, (due_ns - boottime_ns()) // 1_000_000 + 1)

    def _enforce(self) -> None:
        if not self._pid or self._killed:
            return
        now_ns = boottime_ns()
        due = self._deadlines.due(now_ns, self._told_ns, self._kill_after_ns)
        if due == signal.SIGTERM:
            self._told_ns = now_ns
            self._say(told=now_ns)
            self._signal_all(signal.SIGTERM)
            self._signal_all(signal.SIGCONT)  # one that is stopped hears it too
        elif due == signal.SIGKILL:
            self._kill(now_ns)

    def _kill(self, now_ns: int) -> None:
        self._killed = True
        self._signal_all(signal.SIGKILL)
        if self._status is None:
            self._say(killed=now_ns)

    def _orphaned(self) -> None:
        """zkside is gone. First the command goes too, then what it held is let go."""
        if not self._pid:
            return
        release = self._release
        self._kill(boottime_ns())
        self._descendants.kill()
        self._take_terminal_back()
        if release is not None:
            _release(release)

    # The terminal

    def _has_terminal(self) -> bool:
        return self._terminal >= 0 and os.tcgetpgrp(self._terminal) == os.getpgrp()

    def _take_terminal_for_command(self) -> None:
        if self._pid and self._has_terminal():
            os.tcsetpgrp(self._terminal, self._pid)

    def _take_terminal_back(self) -> bool:
        """Whether the command had it."""
        try:
            if self._terminal < 0 or os.tcgetpgrp(self._terminal) != self._pid:
                return False
            os.tcsetpgrp(self._terminal, os.getpgrp())
        except OSError:
            return False  # the terminal is gone
        return True


def _terminal() -> int:
    """Standard input, if we are in the foreground of that terminal and write to one; -1 otherwise.

    In a pipeline the terminal is shared with our neighbours, and stays with all."""
    try:
        if os.isatty(0) and os.isatty(1) and os.tcgetpgrp(0) == os.getpgrp():
            return os.dup(0)
    except OSError:
        pass
    return -1


def _release(release: Mapping[str, str]) -> None:
    """The daemon would keep it for the grace time. `release`: the hold_id, and where the daemon is reached."""
    import asyncio

    from zkside.client.link import Link
    from zkside.errors import ZksideError
    from zkside.pb import hold_pb2
    from zkside.pb.hold_pb2_grpc import HoldServiceStub

    async def flow() -> None:
        os.environ.update({name: value for name, value in release.items() if name != "hold_id"})
        link = Link(None, 5.0)
        try:
            request = hold_pb2.ReleaseRequest(hold_id=release["hold_id"])
            await link.call(HoldServiceStub(link.channel).Release, request)
        except ZksideError:
            pass  # the daemon releases it when the grace time is over
        finally:
            await link.close()

    asyncio.run(flow())


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
