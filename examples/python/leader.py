"""Lead as long as this process lives and may; say where to find the leader; know who leads.

python examples/python/leader.py &
python examples/python/leader.py
"""

import asyncio
import os

from zkside.client import Client, LeaderChange
from zkside.errors import HoldLost

SECONDS = float(os.environ.get("SECONDS_TO_STAY", "2"))


def show(change: LeaderChange) -> None:
    print("leader:", change.leader.value.decode() if change.leader else "nobody")


async def main() -> None:
    me = f"process {os.getpid()}"
    async with Client() as client, client.observe("/examples/leader", on_change=show):
        try:
            async with client.campaign("/examples/leader", value=me.encode()) as leading:
                print(f"I lead, with fencing token {leading.fencing_token}")
                # The work of a leader. It is cancelled when the leadership is lost.
                await asyncio.sleep(SECONDS)
                print("I resign; still leading:", leading.is_held())
        except HoldLost as lost:
            print("lost:", lost.metadata["reason"])


asyncio.run(main())
