"""The pulse of a process that holds something: it proves to itself that its daemon hears it (ADR 7)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from zkside.client.clock import now_ns

INTERVAL_S = 0.4
DEADLINE_S = 1.2
BOUND_NS = 1_500_000_000
"""How long after it was sent an answered call is believed in: less than the silence (2 s) after which a daemon
may find this process gone and release what it held."""


class Pulse:
    """One light call every INTERVAL_S, for as long as something is held; one for all holds of a client.

    `ask` makes the call: True if it was answered inside DEADLINE_S. Task: owned by the link, which closes it.
    """

    def __init__(self, ask: Callable[[], Awaitable[bool]]) -> None:
        self._ask = ask
        self._holders = 0
        self._answered_ns = 0
        self._start: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._beat: asyncio.Future[None] | None = None
        self._wanted = asyncio.Event()
        self.proof_ns = 0
        """When the newest call that counts was sent, by the host's clock; 0: never yet."""

    def join(self) -> None:
        """Something is going to be held. A hold that lasts less than INTERVAL_S costs no call."""
        self._holders += 1
        if self._holders == 1:
            self._start = asyncio.get_running_loop().call_later(INTERVAL_S, self.begin)

    def leave(self) -> None:
        """The counterpart of `join`."""
        self._holders -= 1
        if self._holders == 0:
            self._stop()

    def begin(self) -> None:
        """Not only after INTERVAL_S: a proof will be wanted soon."""
        if self._start is not None:
            self._start.cancel()
            self._start = None
        if self._task is None and self._holders:
            self._task = asyncio.create_task(self._run(), name="zkside pulse")

    def hurry(self) -> None:
        """A proof is wanted now."""
        self._wanted.set()
        self.begin()

    async def wait_beat(self) -> None:
        """Until the next proof."""
        self.hurry()
        if self._beat is None:
            self._beat = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._beat)

    async def close(self) -> None:
        """End the calls; nothing is proved any more."""
        self._holders = 0
        task = self._task
        self._stop()
        if task is not None:
            await asyncio.wait([task])

    def _stop(self) -> None:
        if self._start is not None:
            self._start.cancel()
            self._start = None
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        while True:
            self._wanted.clear()
            sent_ns = now_ns()
            answered = await self._ask()
            if answered and not self._count(sent_ns):
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.001, INTERVAL_S - (now_ns() - sent_ns) / 1e9)):
                    await self._wanted.wait()

    def _count(self, sent_ns: int) -> bool:
        """Take in an answered call; whether it proves anything.

        After a gap the first answer does not: this process may have been stopped, its connection closed by the
        daemon meanwhile, and the answer have come over a new one before the streams of the old one have heard
        of its end. By the second answer they have.
        """
        counts = sent_ns - self._answered_ns <= BOUND_NS
        self._answered_ns = sent_ns
        if counts:
            self.proof_ns = sent_ns
            beat, self._beat = self._beat, None
            if beat is not None:
                beat.set_result(None)
        return counts
