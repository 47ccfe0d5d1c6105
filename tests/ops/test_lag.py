"""The lag of the event loop is what a timer sees."""

from __future__ import annotations

import asyncio
import time

from zkside.ops.lag import BUCKETS_S, INTERVAL_S, LagProbe
from zkside.supervisor import Supervisor


async def test_a_stalled_loop_shows_in_the_histogram() -> None:
    """O4: what would stall the loop is measured, not guessed."""
    probe = LagProbe()
    probe.start(Supervisor())
    await asyncio.sleep(0)  # the probe begins with the next turn
    stall_s = INTERVAL_S + 0.15
    # The wrong thing on purpose: the loop stands still for this long.
    time.sleep(stall_s)  # noqa: ASYNC251
    for _ in range(2):  # one round of the loop finds the timer due, the next runs it
        await asyncio.sleep(0)
    probe.stop()
    seen = probe.statistics()
    assert seen.max_s >= 0.14
    assert sum(seen.counts[BUCKETS_S.index(0.1) + 1 :]) == 1
    assert seen.sum_s >= seen.max_s


async def test_a_stopped_probe_leaves_no_timer_behind() -> None:
    probe = LagProbe()
    probe.start(Supervisor())
    probe.stop()
    before = probe.statistics()
    await asyncio.sleep(2 * INTERVAL_S)
    assert probe.statistics() == before
