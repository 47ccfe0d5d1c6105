"""A program of a user's: holds what its SDK can hold, and prints what becomes of it, until its input ends.

Run with the SDK of whatever version is in the path, so nothing newer than the oldest of them may be used here.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

from zkside.client import Client


def telling(what: str) -> Callable[[Any], None]:
    def tell(status: Any) -> None:
        told = {"what": what, "state": status.state.name, "reason": status.reason, "token": status.fencing_token}
        print(json.dumps(told | {"path": status.path}), flush=True)

    return tell


async def main(address: str) -> None:
    async with Client(address, timeout_s=60) as client, AsyncExitStack() as stack:
        await client.create("/held", wait_for_ready=True)
        held: list[Any] = [client.hold_ephemeral("/held/node", on_update=telling("node"))]
        if hasattr(client, "lock"):
            held += [
                client.lock("/held/lock", on_update=telling("lock")),
                client.lock("/held/permits", permits=3, on_update=telling("permit")),
                client.campaign("/held/election", on_update=telling("leadership")),
                client.join("/held/group", member_id="me", on_update=telling("membership")),
            ]
        for one in held:
            await stack.enter_async_context(one)
        print(json.dumps({"what": "all", "number": len(held)}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
    print(json.dumps({"what": "end"}), flush=True)


asyncio.run(main(sys.argv[1]))
