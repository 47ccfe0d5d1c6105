"""A daemon with many holds, each with a task that waits for it, whose state is dumped: how long that keeps the loop.

python -m tests.ops.dumping FOLDER
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from tests.ops.test_reload import running
from zkside.daemon import settle_memory
from zkside.model.hold import Terms

MANY = 5_000


async def longest_gap(until: asyncio.Event) -> float:
    """The longest turn of the loop, by the CPU: what other processes take does not count."""
    longest_s, last_s = 0.0, time.thread_time()
    while not until.is_set():
        await asyncio.sleep(0)
        now_s = time.thread_time()
        longest_s, last_s = max(longest_s, now_s - last_s), now_s
    return longest_s


async def main(folder: Path) -> None:
    async with running(folder) as stand:
        settle_memory()  # the garbage collector looks as it does in a daemon
        holds = [stand.daemon.holds.open(Terms("lock", f"/locks/{number}")) for number in range(MANY)]

        async def wait(number: int) -> None:
            await holds[number].ended

        waiting = [asyncio.create_task(wait(number), name=f"waits {number}") for number in range(MANY)]
        await asyncio.sleep(0)
        over = asyncio.Event()
        watched = asyncio.create_task(longest_gap(over))
        begun_s = time.perf_counter()
        await stand.daemon.operation.dump_to_file()
        took_s = time.perf_counter() - begun_s
        over.set()
        print(json.dumps({"holds": MANY, "took_s": took_s, "longest_s": await watched}))
        for hold in holds:
            hold.lose(hold.reason)
        await asyncio.gather(*waiting)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
