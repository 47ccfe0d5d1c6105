"""Keeps the daemon's permanent tasks alive, and says so when one dies (GUARANTEES V1, adr/0015).

A permanent task lives from its owner's `start` to its owner's `stop`. If it ends otherwise, by an exception or because
somebody else cancelled it, that is a death: it is counted and logged, its owner is told at once (`on_death`, which
makes stale what the task kept current and puts its state right), and it is started again. One that dies again within
WINDOW_S is not helped by being started again: then `gave_up` is done, and the daemon ends for its successor's sake.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from zkside import log

WINDOW_S = 60.0
"""A task that has lived for so long after its death has done all that it does at least once: a keeper reads a million
nodes anew in some seconds. Two deaths further apart are two accidents; two within it are one defect that stays."""
AGAIN_S = 1.0
"""The pause before a task is started again that died within the window: by then the daemon is on its way out, or
nobody listens, and a task that dies at once must not keep the loop busy."""

Flow = Callable[[], Coroutine[Any, Any, None]]


def nothing() -> None:
    """For tasks on which nothing depends that could be stale."""


class Permanent:
    """One permanent task. Made by `Supervisor.start`."""

    def __init__(self, supervisor: Supervisor, name: str, flow: Flow, on_death: Callable[[], None]) -> None:
        self.name = name
        self._supervisor = supervisor
        self._flow = flow
        self._on_death = on_death
        self._died_s: float | None = None
        self._again: asyncio.TimerHandle | None = None
        self._stopped = False
        self.task = self._begin()

    @property
    def is_alive(self) -> bool:
        """Whether it runs: not between a death and the next start, nor after its end."""
        return not self.task.done()

    @property
    def is_over(self) -> bool:
        """It was stopped, or its work is done."""
        return self._stopped

    def stop(self) -> None:
        """The owner's way to end it. Its task is done a moment later: see `wait`."""
        self._stopped = True
        if self._again is not None:
            self._again.cancel()
            self._supervisor.forget(self)
        self.task.cancel()

    async def wait(self) -> None:
        """Until the present task is done. Call `stop` first, unless its work ends by itself."""
        await asyncio.wait([self.task])

    def _begin(self) -> asyncio.Task[None]:
        self._again = None
        self.task = asyncio.get_running_loop().create_task(self._flow(), name=f"zkside-{self.name}")
        self.task.add_done_callback(self._ended)
        return self.task

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = asyncio.CancelledError("cancelled by somebody") if task.cancelled() else task.exception()
        if error is None or (self._stopped and task.cancelled()):
            self._stopped = True
            self._supervisor.forget(self)
            return
        now_s = time.monotonic()
        is_again = self._died_s is not None and now_s - self._died_s < WINDOW_S
        self._died_s = now_s
        self._supervisor.died(self, error, is_again=is_again)
        try:
            self._on_death()
        except Exception as also:
            # What depends on the task could not be told: nobody may go on believing in it.
            self._supervisor.died(self, also, is_again=True)
        if self._stopped:
            self._supervisor.forget(self)
        elif is_again:
            self._again = asyncio.get_running_loop().call_later(AGAIN_S, self._begin)
        else:
            self._begin()


class Supervisor:
    """All permanent tasks of a daemon. Everything on the event loop."""

    def __init__(self) -> None:
        self.deaths: Counter[str] = Counter()
        """By the task's name; a name is there, as 0, from its first start on."""
        self._running: dict[Permanent, None] = {}
        self._reason = ""
        self._gave_up = asyncio.Event()

    def start(self, name: str, flow: Flow, on_death: Callable[[], None]) -> Permanent:
        """Run the flow now, and again after each death. One that returns has done its work, and is over.

        `on_death` is called at the death, before the next start; it must not wait.
        """
        self.deaths.setdefault(name, 0)
        permanent = Permanent(self, name, flow, on_death)
        self._running[permanent] = None
        return permanent

    def running(self) -> list[Permanent]:
        """Those that are neither stopped nor done."""
        return list(self._running)

    @property
    def reason(self) -> str:
        """Why a task is not helped by being started again; '' while there is none."""
        return self._reason

    async def gave_up(self) -> str:
        """Return, with the reason, once a task has died a second time within the window."""
        await self._gave_up.wait()
        return self._reason

    # From Permanent

    def died(self, permanent: Permanent, error: BaseException, *, is_again: bool) -> None:
        self.deaths[permanent.name] += 1
        log.task_died(task=permanent.name, error=error)
        if is_again and not self._reason:
            self._reason = f"{permanent.name} died again within {WINDOW_S:g} s: {error!r}"
            log.task_gave_up(task=permanent.name, error=error)
            self._gave_up.set()

    def forget(self, permanent: Permanent) -> None:
        self._running.pop(permanent, None)


class Work:
    """One task for one purpose. Made by `Works.run`."""

    def __init__(self, works: Works, name: str, flow: Flow, on_failed: Callable[[Exception], None]) -> None:
        self.name = name
        self._works = works
        self._flow = flow
        self._on_failed = on_failed
        self._has_died = self._is_cancelled = False
        self.is_over = False
        """It has done its work, or failed for good, or was cancelled."""
        self.task = self._begin()

    def cancel(self) -> None:
        """The owner needs it no more: nobody is told."""
        self._is_cancelled = True
        self.task.cancel()

    def _begin(self) -> asyncio.Task[None]:
        self.task = asyncio.get_running_loop().create_task(self._flow(), name=f"zkside-{self.name}")
        self.task.add_done_callback(self._ended)
        return self.task

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = asyncio.CancelledError("cancelled by somebody") if task.cancelled() else task.exception()
        if error is None or (self._is_cancelled and task.cancelled()):
            self._works.forget(self)
            return
        self._works.supervisor.deaths[self.name] += 1
        log.task_work_died(task=self.name, error=error)
        if not self._has_died and not self._is_cancelled:
            self._has_died = True
            self._begin()
            return
        self._works.forget(self)
        if not self._is_cancelled:
            self._on_failed(error if isinstance(error, Exception) else RuntimeError(str(error)))


class Works:
    """The tasks of one owner that each serve one purpose, such as the load of a root.

    One that dies is begun again, once: its flow has to bear that. If it dies again, whoever it works for hears why.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self._running: dict[Work, None] = {}

    def run(self, name: str, flow: Flow, on_failed: Callable[[Exception], None]) -> Work:
        self.supervisor.deaths.setdefault(name, 0)
        work = Work(self, name, flow, on_failed)
        self._running[work] = None
        return work

    def running(self) -> list[Work]:
        return list(self._running)

    async def close(self) -> None:
        """Cancel all of them, and wait for their ends."""
        running = self.running()
        for work in running:
            work.cancel()
        await asyncio.gather(*(work.task for work in running), return_exceptions=True)

    def forget(self, work: Work) -> None:
        work.is_over = True
        self._running.pop(work, None)
