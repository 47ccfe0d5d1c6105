"""Settings that follow ZooKeeper: read without any call, changed everywhere at once, whole transactions only.

python examples/python/settings.py
"""

import asyncio

from zkside.client import Client, Mirror


def setting(mirror: Mirror, name: str, default: str) -> str:
    """Half a microsecond, and also there while ZooKeeper is not."""
    node = mirror.get(f"/examples/settings/{name}")
    return default if node is None else node.data.decode()


async def main() -> None:
    async with Client() as client, client.mirror("/examples/settings") as mirror:
        print("colour:", setting(mirror, "colour", "grey"))

        changes = mirror.changes()
        await client.create("/examples/settings/colour", b"blue", make_parents=True)
        async for cut in changes:
            print("changed:", ", ".join(f"{change.path} {change.type.name}" for change in cut.changes))
            if "/examples/settings/colour" in mirror:
                break
        print("colour:", setting(mirror, "colour", "grey"), "(stale)" if mirror.stale else "(current)")

        await client.delete("/examples/settings", recursive=True)


asyncio.run(main())
