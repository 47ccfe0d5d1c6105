"""A process that holds a lock: to be stopped, killed and watched from outside.

python -m tests.client.parts.holder ADDRESS PATH            holds, and prints what it believes
python -m tests.client.parts.holder ADDRESS PATH FILE TURNS takes turns, and makes the FILE while it holds
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from pathlib import Path

from zkside.client import Client, Held
from zkside.client.clock import now_ns
from zkside.errors import HoldLost

ROOT = Path(__file__).parents[3]


class HolderProcess:
    """The first kind, as its test sees it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, address: str, *arguments: object) -> HolderProcess:
        return cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.client.parts.holder", address, *map(str, arguments)),
                cwd=ROOT,
                stdout=asyncio.subprocess.PIPE,
            )
        )

    async def wait_for(self, word: str) -> list[str]:
        """The first line from here on that begins with this word, split: what it says, and when (boottime, ns)."""
        assert self._process.stdout is not None
        async with asyncio.timeout(30):
            while line := (await self._process.stdout.readline()).decode():
                if line.startswith(f"{word} "):
                    return line.split()
        raise AssertionError(f"ended without {word!r}")

    async def lines(self) -> list[list[str]]:
        """All that is left, to its end."""
        assert self._process.stdout is not None
        async with asyncio.timeout(30):
            return [line.split() for line in (await self._process.stdout.read()).decode().splitlines()]

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def wait_ended(self) -> int:
        async with asyncio.timeout(60):
            return await self._process.wait()

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


def say(*words: object) -> None:
    print(*words, flush=True)


def watch(held: Held) -> None:
    """Print every change of what is believed, and when: from a thread, that is from outside the loop."""
    before = None
    while True:
        at_ns, now = now_ns(), held.is_held()
        if now is not before:
            say("believes" if now else "doubts", at_ns, held.fencing_token)
            before = now
        time.sleep(0.002)


async def hold(address: str, path: str) -> int:
    async with Client(address) as client:
        try:
            async with client.lock(path, wait_for_ready=True) as held:
                threading.Thread(target=watch, args=(held,), daemon=True).start()
                await asyncio.Event().wait()
        except HoldLost as lost:
            say("lost", now_ns(), lost.metadata["reason"])
    return 0


async def take_turns(address: str, path: str, mark: str, turns: int) -> int:
    async with Client(address) as client:
        for _ in range(turns):
            async with client.lock(path, wait_for_ready=True) as held:
                # Fails if anybody else is inside.
                os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
                await asyncio.sleep(0)
                os.unlink(mark)
                say("token", held.fencing_token)
    return 0


if __name__ == "__main__":
    address, path, *more = sys.argv[1:]
    sys.exit(asyncio.run(take_turns(address, path, more[0], int(more[1])) if more else hold(address, path)))
