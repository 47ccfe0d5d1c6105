"""Thousands of schedules of bids and faults, in virtual time, judged by what the clients believed.

A failure says how to play its schedule again.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.holds.belief import BOUND_S
from tests.holds.clients import Manners, Wish
from tests.holds.detector import unfair
from tests.holds.hosts import MAX_SOCKET_DELAY_S
from tests.holds.schedule import Plan, run
from zkside.core.queueing import Kind
from zkside.recipes.hold import Hold
from zkside.recipes.queueing import Bid, Queueing

SCHEDULES = 1_000
PART = 100
MUTANT_SCHEDULES = 200
"""In so many a wrong client or daemon must have been caught."""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, SCHEDULES, PART))
def test_nobody_believes_in_what_another_has_whatever_fails(first: int) -> None:
    """H1, H2, H5, H6, S4, S5: over all hosts and clients, at every instant of every schedule; and when nothing
    fails any more, everybody has had its turn and nothing is left."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.holds.schedule", str(first), str(first + PART)],
        env=os.environ | {"PYTHONHASHSEED": "0"},
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    (believed,) = re.findall(r"(\d+) grants believed in", ran.stdout)
    assert int(believed) > 5 * PART


@pytest.mark.parametrize("seed", range(20))
def test_undisturbed_all_have_their_turn_in_the_order_of_asking(seed: int) -> None:
    """H7: over three hosts, for each recipe."""
    outcome = run(seed, Plan(calm_s=0.0, manners=Manners(is_steady=True, hold_s=0.8, rest_s=3.0)))
    assert not outcome.wrong, outcome.verdict()
    assert len(outcome.grants) > 30
    # Of two who ask within the time of one message, either may come to ZooKeeper first.
    assert unfair(outcome.grants, within_s=MAX_SOCKET_DELAY_S) == []


async def barge(queueing: Queueing, hold: Hold, bid: Bid, permits: int) -> None:
    """A daemon that does not wait for those ahead."""
    seat = await queueing.take_seat(hold, bid.path, bid)
    hold.grant(seat.path, seat.czxid, queueing.session.epoch)


def contended(*, silence_s: float = BOUND_S, believes_longer_s: float = 0.0) -> Manners:
    """All want the same, and keep it for long."""
    wishes = (Wish("/lock", Kind.LOCK),)
    return Manners(wishes, hold_s=12.0, rest_s=0.3, silence_s=silence_s, believes_longer_s=believes_longer_s)


@pytest.mark.parametrize(
    "plan",
    [
        pytest.param(
            Plan(lasts_s=40.0, manners=contended(believes_longer_s=5.0)),
            id="clients that believe five seconds longer than told",
        ),
        pytest.param(
            Plan(lasts_s=40.0, manners=contended(silence_s=60.0)),
            id="clients that believe in a lease without being answered",
        ),
        pytest.param(Plan(flow=barge, calm_s=0.0), id="a daemon that does not wait for those ahead"),
    ],
)
def test_what_breaks_the_rule_is_caught(plan: Plan) -> None:
    """The detector itself."""
    for seed in range(MUTANT_SCHEDULES):
        outcome = run(seed, plan)
        if any(" at " in wrong for wrong in outcome.wrong):
            return
    pytest.fail("no schedule showed it")
