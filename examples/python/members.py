"""Be a member as long as this process lives, and see the others come and go.

python examples/python/members.py &
python examples/python/members.py
"""

import asyncio
import os

from zkside.client import Changes, Client, Scope, Snapshot

SECONDS = float(os.environ.get("SECONDS_TO_STAY", "2"))


async def watch_members(client: Client) -> None:
    async with client.watch("/examples/members", scope=Scope.CHILDREN) as watch:
        async for event in watch:
            match event:
                case Snapshot(nodes=nodes):
                    print("members:", *[node.data.decode() for node in nodes.values() if node.data])
                case Changes(changes=changes):
                    for change in changes:
                        if change.path != "/examples/members":
                            print(change.type.name.lower(), change.path)


async def main() -> None:
    async with (
        Client() as client,
        client.hold_ephemeral(
            "/examples/members/member-", f"process {os.getpid()}".encode(), sequential=True, make_parents=True
        ) as held,
    ):
        print(f"I am {held.path}; my fencing token is {held.fencing_token}")
        watching = asyncio.create_task(watch_members(client))
        try:
            async with asyncio.timeout(SECONDS):
                print("lost:", await held.lost)
        except TimeoutError:
            print("I leave; still held:", held.is_held())
        watching.cancel()


asyncio.run(main())
