"""Calls that were opened and whose message has not come yet: they count from their opening on, and wait in bounds.

gRPC's Python server waits for the message of a unary call itself, without a bound, and calls the handler only then:
20,000 calls of headers alone stood in no quota (adr/0018). So a method can be served as one that reads, and this is
where it reads its first message. That costs a unary call some microseconds more, so a few may wait the other way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import grpc
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from zkside.errors import NoMessage, ZksideError
from zkside.rpc.call_task import CallTask

SWEEP_S = 0.25
"""How often it is looked who waits for too long; never while nobody waits."""
MAX_QUICK = 250
"""Unary calls whose message gRPC may wait for; about 10 kB each."""

Context = grpc.aio.ServicerContext[Any, Any]


class Arrivals:
    """The calls that wait for their message."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        """May be replaced while calls wait."""
        self._waiting: dict[asyncio.Task[Any], float] = {}
        """Each with the instant since which it waits, the oldest first."""
        self._quick: dict[asyncio.Task[Any], None] = {}
        """Those for whose message gRPC waits; some may have ended since the last look."""
        self._ending: dict[asyncio.Task[Any], ZksideError] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self.reset = 0
        """Calls that their clients gave up before the message, counted; the caller of `message` counts."""
        self.late = 0
        """Calls whose message did not come in time."""
        self.unknown = 0
        """Calls of methods that there are not; gRPC answers them."""
        self.empty = 0
        """Calls that ended, on the client's side, without a message."""

    def quick(self) -> bool:
        """Whether gRPC may wait for the message of the unary call that the present task serves; `arrived` then tells
        that it has come."""
        if len(self._quick) >= MAX_QUICK:
            self._forget_ended()
            if len(self._quick) >= MAX_QUICK:
                return False
        task = asyncio.current_task()
        assert task is not None
        self._quick[task] = None
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(SWEEP_S, self._look)
        return True

    def arrived(self) -> None:
        """The message of the call that the present task serves is there."""
        self._quick.pop(asyncio.current_task(), None)  # type: ignore[arg-type]

    def _forget_ended(self) -> None:
        for task in [task for task in self._quick if task.done()]:
            del self._quick[task]
            self.reset += 1

    async def message(self, context: Context) -> bytes:
        """The first message of a call that is served by the present task. Raises: NoMessage.

        Cancellation: the client has gone, or has taken the call back.
        """
        task = asyncio.current_task()
        assert task is not None
        self._waiting[task] = time.monotonic()
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(SWEEP_S, self._look)
        try:
            raw = await context.read()
        except asyncio.CancelledError:
            error = self._ending.pop(task, None)
            if error is None:
                raise
            task.uncancel()
            raise error from None
        finally:
            del self._waiting[task]
        if raw is grpc.aio.EOF:
            if isinstance(task, CallTask) and task.client_has_gone:
                raise asyncio.CancelledError
            self.empty += 1
            raise NoMessage("the call ended without a message")
        assert isinstance(raw, bytes)
        return raw

    def end_all(self, error: ZksideError) -> None:
        """End what waits now with this error."""
        for task in [*self._waiting]:
            self._end(task, error)

    def _look(self) -> None:
        self._sweep = None
        until_s = time.monotonic() - self.timeout_s
        for task, since_s in [*self._waiting.items()]:
            if since_s > until_s:
                break
            self.late += 1
            self._end(task, NoMessage(f"the call was opened {self.timeout_s:g} s ago, and no message has come"))
        self._forget_ended()
        if self._waiting or self._quick:
            self._sweep = asyncio.get_running_loop().call_later(SWEEP_S, self._look)

    def _end(self, task: asyncio.Task[Any], error: ZksideError) -> None:
        if task not in self._ending:
            self._ending[task] = error
            task.cancel()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._quick)

    def collect(self) -> Iterator[Metric]:
        """The families `zkside_calls…`."""
        yield GaugeMetricFamily(
            "zkside_calls_without_message", "Calls and streams that were opened and have sent nothing.", value=len(self)
        )
        ended = CounterMetricFamily(
            "zkside_calls_ended_without_message",
            "Calls and streams that ended before their message, by how: reset by the client, late, or empty.",
            labels=("how",),
        )
        for how, count in (("reset", self.reset), ("late", self.late), ("empty", self.empty)):
            ended.add_metric((how,), count)
        yield ended
        yield CounterMetricFamily(
            "zkside_calls_unknown_method", "Calls of methods that there are not.", value=self.unknown
        )
