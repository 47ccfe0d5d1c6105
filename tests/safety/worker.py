"""A program that works under a lock, or under an election, again and again:
`python -m tests.safety.worker RECIPE SEED ADDRESS PATH LOG`.

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

from zkside.client import Client
from zkside.client.hold import Held
from zkside.client.value import HoldStatus
from zkside.errors import ZksideError

LOOK_S = 0.004
STAY_S = {
    "lock": (0.0, 0.6),
    # As a rule longer than a session lives: who gives up before never learns what a partition does.
    "election": (4.0, 12.0),
}


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

    async def run(self, recipe: str) -> None:
        while True:
            try:
                await self._once(recipe, self._chance.uniform(*STAY_S[recipe]))
            except ZksideError as error:
                print(recipe, type(error).__name__, error, file=sys.stderr, flush=True)
                # What a program does that wants it all the same.
                await asyncio.sleep(self._chance.uniform(0.0, 0.2))

    def _ask(self, recipe: str, inside: list[Held]) -> Held:
        def tell(_: HoldStatus) -> None:
            for held in inside:
                self._log.look(recipe, held)

        path = f"{self._path}/{recipe}"
        if recipe == "lock":
            return self._client.lock(path, wait_for_ready=True, cancel_on_loss=False, on_update=tell, timeout_s=30)
        return self._client.campaign(path, wait_for_ready=True, cancel_on_loss=False, on_update=tell, timeout_s=30)

    async def _once(self, recipe: str, stay_s: float) -> None:
        inside: list[Held] = []
        async with self._ask(recipe, inside) as held:
            inside.append(held)
            until_s = time.monotonic() + stay_s
            try:
                while not held.lost.is_set() and time.monotonic() < until_s:
                    self._log.look(recipe, held)
                    await asyncio.sleep(LOOK_S)
            finally:
                inside.clear()
                self._log.look(recipe, held, lets_go=True)


async def main(recipe: str, seed: str, address: str, path: str, log: str) -> None:
    async with Client(address) as client:
        working = asyncio.create_task(Worker(client, path, Log(log), random.Random(seed)).run(recipe))
        # Nothing is ever written there: it becomes readable when it ends.
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), working.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await working


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
