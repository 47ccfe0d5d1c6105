"""Real worker processes, started together and ended by their process ids.

A piece of work is a module-level function `work(link, *arguments)` that runs in a fresh interpreter (spawned,
because gRPC does not survive a fork). It talks with the bench over its `Link`; a start barrier is "all have
said that they are ready, then all are told to go".
"""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

_spawn = multiprocessing.get_context("spawn")
_PR_SET_PDEATHSIG = 1


class WorkFailed(Exception):
    """A worker raised, died or kept silent; the message has its traceback, if it left one."""


class Link:
    """A worker's end of the pipe to the bench."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def say(self, message: object) -> None:
        self._pipe.send(("said", message))

    def hear(self) -> Any:
        """Wait for the bench's next message."""
        return self._pipe.recv()

    async def heard(self) -> Any:
        """Wait for the bench's next message while the event loop goes on."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._pipe.fileno(), readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self._pipe.fileno())
        return self._pipe.recv()

    def fail(self) -> None:
        self._pipe.send(("failed", traceback.format_exc()))


def _work(work: Callable[..., None], pipe: Connection, arguments: tuple[Any, ...]) -> None:
    # Whatever becomes of the bench, nothing of it is left running.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    raise_limit_of_open_files()
    link = Link(pipe)
    try:
        work(link, *arguments)
    except BaseException:
        link.fail()  # the bench shows it, and only once
        raise SystemExit(1) from None


class Worker:
    """The bench's end: one worker process."""

    def __init__(self, work: Callable[..., None], *arguments: Any) -> None:
        self._pipe, theirs = _spawn.Pipe()
        self._name = work.__name__
        self._process = _spawn.Process(target=_work, args=(work, theirs, arguments), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def tell(self, message: object) -> None:
        self._pipe.send(message)

    def hear(self, timeout_s: float) -> Any:
        """The worker's next message. Raises WorkFailed when there is none in time."""
        if not self._pipe.poll(timeout_s):
            raise WorkFailed(f"{self._name} (pid {self.pid}) said nothing for {timeout_s:g} s")
        try:
            kind, message = self._pipe.recv()
        except EOFError:
            self._process.join(5)
            raise WorkFailed(f"{self._name} died, exit code {self._process.exitcode}") from None
        if kind == "failed":
            raise WorkFailed(f"{self._name}: {message}")
        return message

    def kill(self) -> None:
        """End the process at once, and wait until it is gone."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


class Crew:
    """Workers that stand and fall together; leaving the `with` ends them all."""

    def __init__(self) -> None:
        self._workers: list[Worker] = []

    def hire(self, work: Callable[..., None], *arguments: Any) -> Worker:
        worker = Worker(work, *arguments)
        self._workers.append(worker)
        return worker

    def hear(self, timeout_s: float = 60) -> list[Any]:
        """One message of each worker, in the order of hiring."""
        return [worker.hear(timeout_s) for worker in self._workers]

    def tell(self, message: object) -> None:
        for worker in self._workers:
            worker.tell(message)

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.kill()


def shares(total: int, parts: int) -> list[int]:
    """Split a number as evenly as possible, without empty parts."""
    return [total // parts + (part < total % parts) for part in range(min(total, parts))]


def raise_limit_of_open_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def resident_bytes(pid: int) -> int:
    """What a process occupies in memory, by the kernel's count."""
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def settled_bytes(pid: int) -> int:
    """What it occupies when that has stopped to change, or after some seconds."""
    before = -1
    for _ in range(30):
        now = resident_bytes(pid)
        if now == before:
            break
        before = now
        time.sleep(0.3)
    return before


def cpu_s(pid: int) -> float:
    """Processor time that a process has used so far, in seconds."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
