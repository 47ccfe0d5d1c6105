"""Few holds begin at the same time, callers in turn; and what goes through the turnstile leaves room for calls."""

from __future__ import annotations

import asyncio
import time

import pytest

from zkside.recipes.admission import CALLER, MOST, Admission
from zkside.recipes.turnstile import AT_ONCE, FEW, Turnstile

CROWD = FEW + 1


class Askers:
    """Each asks for a place and keeps it until it is told to go."""

    def __init__(self) -> None:
        self.turnstile = Turnstile()
        self.turnstile.crowd = CROWD
        self.admission = Admission(self.turnstile)
        self.begun: list[str] = []
        self._go = asyncio.Event()

    def ask(self, caller: str) -> asyncio.Task[None]:
        async def flow() -> None:
            CALLER.set(caller)
            async with self.admission.place():
                self.begun.append(caller)
                await self._go.wait()

        return asyncio.ensure_future(flow())

    def go(self) -> None:
        """Whoever has a place gives it back, and whoever comes to one later too."""
        self._go.set()


@pytest.fixture
def askers() -> Askers:
    return Askers()


async def settled() -> None:
    for _ in range(20 * MOST):
        await asyncio.sleep(0)


async def test_so_many_begin_and_the_others_wait(askers: Askers) -> None:
    """O4"""
    tasks = [askers.ask("one") for _ in range(3 * MOST)]
    await settled()
    assert len(askers.begun) == askers.admission.beginning == MOST
    assert askers.admission.waiting == 2 * MOST
    askers.go()
    await asyncio.gather(*tasks)
    assert (askers.admission.beginning, askers.admission.waiting) == (0, 0)


async def test_a_caller_with_one_hold_does_not_wait_behind_all_of_another(askers: Askers) -> None:
    """O4"""
    many = [askers.ask("many") for _ in range(10 * MOST)]
    await settled()
    one = askers.ask("one")
    await settled()
    askers.go()
    await asyncio.gather(one, *many)
    assert askers.begun.index("one") <= MOST + 1


async def test_who_gives_up_leaves_no_place_taken(askers: Askers) -> None:
    """Cancelled in the queue, on the way through the turnstile, and in its place."""
    tasks = [askers.ask("one") for _ in range(3 * MOST)]
    await asyncio.sleep(0)
    # Some have a place by now, but have not come through the turnstile.
    assert len(askers.begun) < MOST
    for task in tasks:
        task.cancel()
    await settled()
    assert (askers.admission.beginning, askers.admission.waiting, askers.turnstile.crowd) == (0, 0, CROWD)
    inside = askers.ask("one")
    await settled()
    inside.cancel()
    await settled()
    assert (askers.admission.beginning, askers.admission.waiting) == (0, 0)


async def test_those_that_wait_for_a_connection_keep_nobody_from_hearing_that_there_is_none(askers: Askers) -> None:
    """S2: their places are free, and whoever waited for one goes on."""
    first = [askers.ask("one") for _ in range(MOST)]
    await settled()
    later = askers.ask("one")
    await settled()
    assert len(askers.begun) == MOST
    askers.admission.vacate()
    await settled()
    assert len(askers.begun) == MOST + 1
    askers.go()
    await asyncio.gather(later, *first)
    assert (askers.admission.beginning, askers.admission.waiting) == (0, 0)


@pytest.mark.parametrize(("is_called", "crowd"), [(True, CROWD), (False, CROWD), (True, 0)])
async def test_after_a_long_turn_there_are_many_short_ones_while_calls_come_in(is_called: bool, crowd: int) -> None:
    """O4: gRPC takes one call in two turns; where nobody calls, or few wait, nothing is given away."""
    turnstile = Turnstile()
    turnstile.crowd = crowd
    turns_between: list[int] = []
    turn, last = 0, 0

    async def work() -> None:
        nonlocal last
        await turnstile.through()
        turns_between.append(turn - last)
        last = turn
        time.sleep(0.003)  # noqa: ASYNC251 - work that keeps the loop

    tasks = [asyncio.ensure_future(work()) for _ in range(3 * AT_ONCE)]
    while not all(task.done() for task in tasks):
        if is_called:
            turnstile.called()
        turn += 1
        await asyncio.sleep(0)
    pauses = [turns for turns in turns_between if turns > 10]
    assert len(pauses) == (2 if is_called and crowd else 0)
    assert turnstile.crowd == crowd


async def test_one_does_not_wait_behind_thousands_that_were_woken_together() -> None:
    """O4: the end of one lock's holder is not late because thousands of readers are granted."""
    loop, turnstile = asyncio.get_running_loop(), Turnstile()
    thousands = [loop.create_future() for _ in range(5000)]
    turnstile.let_through(thousands)
    began = sum(future.done() for future in thousands)
    await turnstile.through()
    assert sum(future.done() for future in thousands) <= began + AT_ONCE
    assert all(future.done() for future in thousands[: began + 1])


async def test_a_piece_of_work_is_followed_by_a_rest_while_calls_come_in() -> None:
    """O4"""
    turnstile = Turnstile()

    async def turns_of(worked_s: float) -> int:
        resting, turns = asyncio.ensure_future(turnstile.rest(worked_s)), 0
        while not resting.done():
            turns += 1
            await asyncio.sleep(0)
        return turns

    assert await turns_of(0.01) < 5
    turnstile.called()
    assert await turns_of(0.01) > 20
    assert await turns_of(0.0001) < 5
