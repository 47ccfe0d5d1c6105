"""The loop in virtual time does what it says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from tests.parts.virtual_loop import Process, ProcessClock, VirtualLoop


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    loop = VirtualLoop()
    yield loop
    loop.shut_down()


def ticking(loop: VirtualLoop, process: Process) -> list[float]:
    """When a task of the process ticked, which it does every second."""
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            ticks.append(loop.time())
            await asyncio.sleep(1.0)

    process.post(0.0, lambda: loop.create_task(tick()))
    return ticks


def test_an_hour_costs_nothing_and_every_timer_has_its_instant(loop: VirtualLoop) -> None:
    started_s, began_s = time.monotonic(), loop.time()
    clock, rang = ProcessClock(loop), list[int]()
    due_ns = clock.boottime_ns() + 123_456_789_012
    clock.call_at(due_ns, lambda: rang.append(clock.boottime_ns()))
    loop.run_until_complete(asyncio.sleep(3600.0))
    assert loop.time() - began_s == pytest.approx(3600.0)
    assert rang == [due_ns]
    assert time.monotonic() - started_s < 60.0


def test_a_stopped_process_makes_up_for_what_it_missed_and_the_others_go_on(loop: VirtualLoop) -> None:
    one, other = Process(loop), Process(loop)
    ticks, its_ticks = ticking(loop, one), ticking(loop, other)
    loop.run_until_complete(asyncio.sleep(2.5))
    one.stop()
    loop.run_until_complete(asyncio.sleep(10.0))
    assert (len(ticks), len(its_ticks)) == (3, 13)
    one.go_on(lambda: ticks.append(0.0))
    loop.run_until_complete(asyncio.sleep(0.1))
    assert ticks[3:] == [0.0, pytest.approx(ticks[0] + 12.5)]


def test_not_a_line_of_a_killed_process_runs(loop: VirtualLoop) -> None:
    process, ended = Process(loop), list[str]()

    async def work() -> None:
        try:
            await asyncio.sleep(1.0)
        finally:
            ended.append("ended")

    process.post(0.0, lambda: loop.create_task(work()))
    loop.run_until_complete(asyncio.sleep(0.5))
    process.kill()
    loop.run_until_complete(asyncio.sleep(10.0))
    assert ended == []


def test_a_loop_on_which_nothing_can_happen_any_more_says_so(loop: VirtualLoop) -> None:
    with pytest.raises(RuntimeError, match="everybody waits"):
        loop.run_until_complete(loop.create_future())
