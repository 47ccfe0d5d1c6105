"""The dump of the state: whole, and in turns with everything else."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ops.test_reload import running
from zkside.model.hold import Terms
from zkside.ops import dump

MANY = 5_000
LONGEST_S = 0.03
"""That the loop may be kept from others; a slice takes one or two milliseconds."""


async def longest_gap(until: asyncio.Event) -> float:
    """The longest turn of the loop, by the CPU: what other processes take does not count."""
    longest_s, last_s = 0.0, time.thread_time()
    while not until.is_set():
        await asyncio.sleep(0)
        now_s = time.thread_time()
        longest_s, last_s = max(longest_s, now_s - last_s), now_s
    return longest_s


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """A daemon has put aside what it is made of (daemon.py); what this process has of earlier tests is many times
    that, and one look at it takes longer than all that is measured here."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def test_five_thousand_holds_and_tasks_are_dumped_without_a_stall(tmp_path: Path) -> None:
    """O4: as many holds, each with a task that waits for it, as a large host has."""
    async with running(tmp_path) as stand:
        holds = [stand.daemon.holds.open(Terms("lock", f"/locks/{number}")) for number in range(MANY)]

        async def wait(number: int) -> None:
            await holds[number].ended

        waiting = [asyncio.create_task(wait(number), name=f"waits {number}") for number in range(MANY)]
        await asyncio.sleep(0)
        over = asyncio.Event()
        with no_garbage_collection():
            watched = asyncio.create_task(longest_gap(over))
            begun_s = time.perf_counter()
            await stand.daemon.operation.dump_to_file()
            took_s = time.perf_counter() - begun_s
            over.set()
            longest_s = await watched
        document = json.loads((stand.state_dir / "state-dump.json").read_text())
        assert len(document["holds"]) == MANY
        assert [row["count"] for row in document["tasks"] if row["stack"][0].endswith("wait")] == [MANY]
        assert longest_s < LONGEST_S, f"the loop stood still for {longest_s * 1000:.1f} ms of {took_s:.2f} s"
        print(f"dump of {MANY} holds: {took_s * 1000:.0f} ms, longest turn {longest_s * 1000:.1f} ms")
        for hold in holds:
            hold.lose(hold.reason)
        await asyncio.gather(*waiting)


async def test_a_list_without_an_end_is_cut_and_says_so() -> None:
    """O4, O1: bounded, never silent."""
    more = dump.MOST_ITEMS + 7
    text = "".join([piece async for piece in dump.document({}, {"many": range(more)})])
    document = json.loads(text)
    assert len(document["many"]) == dump.MOST_ITEMS
    assert document["many_left_out"] == 7
