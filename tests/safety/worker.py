"""A program that works under a lock and under an election, again and again:
`python -m tests.safety.worker SEED ADDRESS PATH LOG`.

It writes down what it believes each time it looks, a line each: `RECIPE AT UNTIL TOKEN`, in ns of CLOCK_BOOTTIME.
It looks every few ms, whenever the daemon tells it something, and last of all before it lets go. Ends with its
standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import time
from collections.abc import Callable

from zkside.client import Client
from zkside.client.hold import Held
from zkside.client.value import HoldStatus
from zkside.errors import ZksideError

LOOK_S = 0.004


class Log:
    """A file that has every line as soon as it was written: this process will be killed."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def look(self, recipe: str, held: Held, *, lets_go: bool = False) -> None:
        # The clock first: what is believed must be true at an instant that lies before the answer.
        at_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        until_ns = 0 if lets_go else at_ns + round(held.lease_left_s() * 1e9)
        os.write(self._file, f"{recipe} {at_ns} {until_ns} {held.fencing_token}\n".encode())


class Worker:
    def __init__(self, client: Client, path: str, log: Log, chance: random.Random) -> None:
        self._client = client
        self._path = path
        self._log = log
        self._chance = chance

    async def run(self) -> None:
        async with asyncio.TaskGroup() as recipes:
            recipes.create_task(self._again_and_again("lock", self._lock, 0.3))
            recipes.create_task(self._again_and_again("election", self._campaign, 2.0))

    def _lock(self, tell: Callable[[HoldStatus], None]) -> Held:
        return self._client.lock(
            f"{self._path}/lock", wait_for_ready=True, cancel_on_loss=False, on_update=tell, timeout_s=30
        )

    def _campaign(self, tell: Callable[[HoldStatus], None]) -> Held:
        return self._client.campaign(
            f"{self._path}/election", wait_for_ready=True, cancel_on_loss=False, on_update=tell, timeout_s=30
        )

    async def _again_and_again(
        self, recipe: str, ask: Callable[[Callable[[HoldStatus], None]], Held], typical_s: float
    ) -> None:
        while True:
            try:
                await self._once(recipe, ask, self._chance.uniform(0.0, 2 * typical_s))
            except ZksideError as error:
                print(recipe, type(error).__name__, error, file=sys.stderr, flush=True)
                # What a program does that wants it all the same.
                await asyncio.sleep(self._chance.uniform(0.0, 0.2))

    async def _once(self, recipe: str, ask: Callable[[Callable[[HoldStatus], None]], Held], stay_s: float) -> None:
        inside: list[Held] = []
        async with ask(lambda _: self._look(recipe, inside)) as held:
            inside.append(held)
            until_s = time.monotonic() + stay_s
            try:
                while not held.lost.is_set() and time.monotonic() < until_s:
                    self._log.look(recipe, held)
                    await asyncio.sleep(LOOK_S)
            finally:
                inside.clear()
                self._log.look(recipe, held, lets_go=True)

    def _look(self, recipe: str, inside: list[Held]) -> None:
        for held in inside:
            self._log.look(recipe, held)


async def main(seed: str, address: str, path: str, log: str) -> None:
    async with Client(address) as client:
        working = asyncio.create_task(Worker(client, path, Log(log), random.Random(seed)).run())
        # Nothing is ever written there: it becomes readable when it ends.
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), working.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await working


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
