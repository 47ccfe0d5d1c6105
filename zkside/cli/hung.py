"""What can be told of a daemon that does not answer: by the kernel, and by the process itself at a signal."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from zkside.errors import ZksideError

STACKS_FILE = "stacks.txt"
"""In the daemon's state_dir, where it writes them at SIGUSR2 (zkside/daemon_signals.py)."""
WRITING_S = 3.0
LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Process:
    """The process behind a Unix socket; blocks, so it is for a thread."""

    pid: int
    unknown: str
    """Why it is not known; then all else raises a ZksideError that says so."""

    @classmethod
    def behind(cls, address: str) -> Process:
        """By the lock file that a daemon keeps beside its socket."""
        lock = Path(f"{address.removeprefix('unix:')}.lock")
        if not address.startswith("unix:"):
            return cls(0, f"a process is only known behind a Unix socket, not at {address}")
        try:
            pid = int(lock.read_text())
        except (OSError, ValueError) as error:
            return cls(0, f"{lock} does not tell the process: {error}")
        if not _command(pid):
            return cls(0, f"the daemon is gone: there is no process {pid}, which {lock} names")
        return cls(pid, "")

    def described(self) -> bytes:
        """Its command line and what /proc has of its memory, limits, threads and files."""
        folder = self._folder()
        parts = [f"pid: {self.pid}", f"command: {_command(self.pid)}", f"open files: {_count(folder / 'fd')}"]
        for name in ("wchan", "status", "limits", "io", "cgroup"):
            parts += ["", f"== {name}", _text(folder / name)]
        for task in sorted((folder / "task").iterdir(), key=lambda task: int(task.name)):
            parts += ["", f"== thread {task.name}: {_text(task / 'comm').strip()}, waits in {_text(task / 'wchan')}"]
        return "\n".join([*parts, ""]).encode(errors="replace")

    def stacks(self, state_dir: str) -> bytes:
        """Let it write the stacks of its threads, which it does even when its event loop hangs.

        The signal is sent only to a process that catches it. `state_dir`: as configured; "" if there is none.
        """
        about = dict(line.split(":", 1) for line in _text(self._folder() / "status").splitlines() if ":" in line)
        if about.get("State", "").split()[:1] == ["T"]:
            raise ZksideError("the process is stopped (SIGSTOP): it can write nothing until it goes on (SIGCONT)")
        if not int(about.get("SigCgt", "0"), 16) >> (signal.SIGUSR2 - 1) & 1:
            raise ZksideError(f"process {self.pid} does not catch SIGUSR2: it is no zkside daemon, or still starting")
        file = Path(state_dir) / STACKS_FILE
        before = _size(file) if state_dir else 0
        os.kill(self.pid, signal.SIGUSR2)
        if not state_dir:
            raise ZksideError("it has no state_dir: it wrote them to its standard error, where its log is")
        until_s = time.monotonic() + WRITING_S
        while _size(file) == before and time.monotonic() < until_s:
            time.sleep(LOOK_S)
        if _size(file) == before:
            raise ZksideError(f"it wrote nothing to {file} in {WRITING_S:g} s")
        time.sleep(LOOK_S)
        return file.read_bytes()[before:]

    def _folder(self) -> Path:
        if self.unknown:
            raise ZksideError(self.unknown)
        return Path(f"/proc/{self.pid}")


def _command(pid: int) -> str:
    return _text(Path(f"/proc/{pid}/cmdline")).replace("\0", " ").strip()


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError as error:
        return f"({error.strerror})" if file.parent.exists() else ""


def _count(folder: Path) -> str:
    try:
        return str(sum(1 for _ in folder.iterdir()))
    except OSError as error:
        return f"({error.strerror})"


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
