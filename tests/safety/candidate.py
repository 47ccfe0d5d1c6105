"""A program that wants to lead, with zkside: `python -m tests.safety.candidate RULE ADDRESS PATH`.

Says what it believes, a line for every change: `RULE true|false NANOSECONDS-OF-CLOCK_BOOTTIME`. It asks
`is_held` every millisecond, as a program does before each step of its work. Ends with its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time

from zkside.client import Client


def say(rule: str, *, believes: bool) -> None:
    print(rule, str(believes).lower(), time.clock_gettime_ns(time.CLOCK_BOOTTIME), flush=True)


async def lead(rule: str, address: str, path: str) -> None:
    async with Client(address) as client, client.campaign(path, wait_for_ready=True, cancel_on_loss=False) as held:
        believes = False
        while True:
            if believes != held.is_held():
                believes = not believes
                say(rule, believes=believes)
            await asyncio.sleep(0.001)


async def main(rule: str, address: str, path: str) -> None:
    leading = asyncio.create_task(lead(rule, address, path))
    # Nothing is ever written there: it becomes readable when it ends.
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), leading.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await leading


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
