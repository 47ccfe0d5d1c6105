"""From a thread into the event loop and back: what is asked there, at once or in turns.

What takes longer than a moment is a generator: it gets a millisecond of the loop's time, then everybody else
has a turn of as long, until it returns. The loop is never late by more than one such slice.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Generic, TypeVar

LOOP_TIMEOUT_S = 5.0
"""An event loop that does not answer for so long is dead: /healthz says so."""
TURNS_TIMEOUT_S = 60.0
SLICE_S = 0.001
LEAST_AGE_S = 0.9
"""What was gathered is good for so long."""
SHARE = 20
"""What takes one second of the loop's time is good for so many."""

T = TypeVar("T")


class LoopHangs(Exception):
    """The event loop did not answer in time."""


def asker(loop: asyncio.AbstractEventLoop, gather: Callable[[], T]) -> Callable[[], T]:
    """A function for other threads that has `gather` called on the loop. It raises LoopHangs."""

    def ask() -> T:
        answer: Future[T] = Future()

        def fill() -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                answer.set_result(gather())
            except BaseException as error:
                answer.set_exception(error)

        return _await(loop, answer, fill, LOOP_TIMEOUT_S)

    return ask


class InTurns(Generic[T]):
    """A function for other threads that has a generator run on the loop, a slice at a time.

    One runs at a time, however many ask; the others wait for what it finds. What was found is good for a while,
    the longer the more it cost: looking takes a twentieth of the loop's time at most, however often one asks.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, gather: Callable[[], Generator[None, None, T]]) -> None:
        self._loop = loop
        self._gather = gather
        self._lock = threading.Lock()
        self._found: tuple[float, T] | None = None
        self._good_until_s = 0.0
        self.cost_s = 0.0
        """Of the loop's processor time, the last time."""
        self.longest_s = 0.0
        """The longest slice of it."""

    def ask(self) -> tuple[T, float]:
        """What was found, and its age in seconds. Raises: LoopHangs."""
        with self._lock:
            if self._found is None or time.monotonic() >= self._good_until_s:
                answer: Future[T] = Future()
                found = _await(self._loop, answer, lambda: self._begin(answer), TURNS_TIMEOUT_S)
                now_s = time.monotonic()
                self._found = now_s, found
                self._good_until_s = now_s + max(LEAST_AGE_S, SHARE * self.cost_s)
            gathered_s, found = self._found
        return found, time.monotonic() - gathered_s

    def _begin(self, answer: Future[T]) -> None:
        if answer.set_running_or_notify_cancel():
            self.cost_s = self.longest_s = 0.0
            self._step(self._gather(), answer)

    def _step(self, gathering: Generator[None, None, T], answer: Future[T]) -> None:
        # The thread's own time: that somebody else has the processor is no work of ours.
        begun_s = time.thread_time()
        until_s = time.perf_counter() + SLICE_S
        try:
            while time.perf_counter() < until_s:
                next(gathering)
        except StopIteration as returned:
            self._spent(begun_s)
            answer.set_result(returned.value)
        except BaseException as error:
            answer.set_exception(error)
        else:
            self._spent(begun_s)
            self._loop.call_later(SLICE_S, self._step, gathering, answer)

    def _spent(self, begun_s: float) -> None:
        slice_s = time.thread_time() - begun_s
        self.cost_s += slice_s
        self.longest_s = max(self.longest_s, slice_s)


def _await(loop: asyncio.AbstractEventLoop, answer: Future[T], begin: Callable[[], None], timeout_s: float) -> T:
    try:
        loop.call_soon_threadsafe(begin)
        return answer.result(timeout_s)
    except (TimeoutError, RuntimeError) as error:
        answer.cancel()
        raise LoopHangs(f"the event loop did not answer for {timeout_s:g} s") from error
