"""A contender that is killed while it is inside: the others go on, whoever programmed it (H8)."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace

import pytest

from tests.interop.contest import Crew, Stage, curator, kazoo, running, wait_ended, zkside
from tests.interop.referee import Referee
from tests.interop.score import Death

pytestmark = pytest.mark.interop

SESSION_TIMEOUT_S = 4.0
"""Of Curator and kazoo here (Main.java, kazoo_contender.py)."""


CASES: list[tuple[Crew, tuple[Crew, ...]]] = [
    (curator("mutex", 1), (zkside("lock:CURATOR", 2), curator("mutex", 1))),
    (zkside("lock:CURATOR", 1), (curator("mutex", 2), zkside("lock:CURATOR", 2, host=2))),
    (curator("latch", 1), (zkside("election:LATCH", 2), curator("latch", 1))),
    (zkside("election:LATCH", 1), (curator("latch", 2), zkside("election:LATCH", 2, host=2))),
    (kazoo("lock", 1), (zkside("lock:KAZOO", 2), kazoo("lock", 1))),
    (zkside("lock:KAZOO", 1), (kazoo("lock", 2), zkside("lock:KAZOO", 2, host=2))),
]


@pytest.mark.parametrize(("victim", "others"), CASES, ids=[f"{crew.library} {crew.recipe}" for crew, _ in CASES])
async def test_the_others_go_on_after_a_holder_is_killed(
    stage: Stage, path: str, deaths: list[Death], victim: Crew, others: tuple[Crew, ...]
) -> None:
    """H1, H4, H8: nobody enters before, all do after; where zkside's client dies nobody waits for a session timeout."""
    victim = replace(victim, mark="victim")
    [name] = victim.names
    size = 1 + sum(crew.size for crew in others)
    async with (
        Referee(contenders=size, grants=500, detained={name}) as referee,
        contextlib.AsyncExitStack() as stack,
        running(str(victim), stage.command(victim, path, referee.port)) as dying,
    ):
        started = [
            await stack.enter_async_context(running(str(crew), stage.command(crew, path, referee.port)))
            for crew in others
        ]
        await referee.wait_inside(name)
        so_far = referee.ledger.grants.total()
        # No other report is heard between these two lines: dead is who cannot report any more.
        dying.process.kill()
        referee.ledger.leave(name)
        died = time.monotonic()
        await referee.wait_grants(so_far + 1)
        passed_s = time.monotonic() - died
        deaths.append(Death(f"{victim.library} {victim.recipe}", passed_s))
        assert passed_s < (SESSION_TIMEOUT_S / 2 if victim.library == "zkside" else 2 * SESSION_TIMEOUT_S)
        await wait_ended(referee, started, within_s=60.0)
    assert referee.ledger.overlaps == []
    assert referee.ledger.disorders == []
