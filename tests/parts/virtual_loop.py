"""An event loop whose time costs nothing, with processes on it that can be stopped, set going and killed.

Everything that waits, waits on this loop: when nobody has anything to do at this instant, it is the instant of the
next timer. So asyncio's own timeouts and sleeps are virtual too, and a schedule of a minute is over in milliseconds.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

T = TypeVar("T")

_START_NS = 1_000_000_000_000
# Less than a nanosecond, more than what is lost in turning one into seconds.
_RESOLUTION_S = 1e-10

_PROCESS: ContextVar[Process | None] = ContextVar("_PROCESS", default=None)


class Process:
    """What was begun in `context` belongs to it: callbacks, tasks, timers, and all that they begin.

    While it is stopped nothing of it runs, and it makes up for everything when it goes on, as after SIGSTOP and
    SIGCONT. When it is killed it ends between two callbacks, and not a line of it runs any more until the loop is
    shut down.
    """

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.is_alive = True
        self.is_stopped = False
        self.missed: list[asyncio.Handle] = []
        self.context = copy_context()
        self.context.run(_PROCESS.set, self)
        loop.processes.append(self)

    def post(self, delay_s: float, callback: Callable[..., object], *arguments: object) -> asyncio.TimerHandle:
        """Call it inside the process, from anywhere."""
        return self._loop.call_later(delay_s, callback, *arguments, context=self.context)

    def stop(self) -> None:
        self.is_stopped = True

    def go_on(self, first: Callable[[], object] | None = None) -> None:
        """`first` is what it does before it makes up for what it missed."""
        self.is_stopped = False
        if first is not None:
            self.missed.insert(0, asyncio.Handle(first, (), self._loop, self.context))
        self._loop.make_up_for(self.missed)
        self.missed = []

    def kill(self) -> None:
        self.is_alive = False


class ProcessClock:
    """zkside.zk.clock.Clock: the loop's time, with timers that belong to one process, whoever sets them."""

    def __init__(self, loop: VirtualLoop, process: Process | None = None) -> None:
        self._loop = loop
        self._context = process.context if process is not None else copy_context()

    def boottime_ns(self) -> int:
        return self._loop.now_ns

    def call_at(self, boottime_ns: int, callback: Callable[[], object]) -> asyncio.TimerHandle:
        return self._loop.call_at(boottime_ns / 1e9, callback, context=self._context)


class VirtualLoop(asyncio.BaseEventLoop):
    """asyncio's loop without a selector."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = _START_NS
        self.processes: list[Process] = []
        self._tasks: list[asyncio.Task[object]] = []
        """All there ever were: those of a killed process would run their last lines if they were collected."""
        self.set_task_factory(self._make_task)  # type: ignore[arg-type]

    def time(self) -> float:
        return self.now_ns / 1e9

    def make_up_for(self, missed: list[asyncio.Handle]) -> None:
        """Run what a stopped process has missed."""
        self._ready.extend(missed)  # type: ignore[attr-defined]

    def shut_down(self) -> None:
        """Cancel whatever is left, of the dead too, and close."""
        for process in self.processes:
            process.is_alive = True
            process.go_on()
        while left := [task for task in self._tasks if not task.done()]:
            for task in left:
                task.cancel()
            self.run_until_complete(asyncio.wait(left))
        self.close()

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T], **more: Any
    ) -> asyncio.Task[T]:
        task = asyncio.Task(coroutine, loop=loop, **more)
        self._tasks.append(task)
        return task

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0].cancelled():
            heapq.heappop(scheduled)
        if not ready and not self._stopping:  # type: ignore[attr-defined]
            if not scheduled:
                raise RuntimeError("everybody waits, and there is nothing to wait for")
            ahead_ns = scheduled[0].when() * 1e9 - self.now_ns
            self.now_ns += max(0, math.ceil(ahead_ns - 1e-3))
        due_s = self.time() + _RESOLUTION_S
        while scheduled and scheduled[0].when() < due_s:
            ready.append(heapq.heappop(scheduled))
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle.cancelled():
                continue
            process = handle._context.get(_PROCESS)
            if process is None or (process.is_alive and not process.is_stopped):
                handle._run()
            else:
                process.missed.append(handle)
