"""Why a lease alone is not enough: a write that was sent in time may arrive too late.

python examples/python/fencing.py
"""

import asyncio

from zkside.client import Client


class Store:
    """What the lock protects: a disk, a bucket, a table. It keeps the largest token that it has seen."""

    def __init__(self, *, fenced: bool) -> None:
        self.fenced = fenced
        self.content = ""
        self.newest_token = 0

    def write(self, content: str, fencing_token: int) -> None:
        if self.fenced and fencing_token < self.newest_token:
            print(f"  refused: {content!r} comes from a holder of the past")
            return
        self.newest_token = fencing_token
        self.content = content


async def first_writer(client: Client, stores: list[Store], let_go: asyncio.Event) -> None:
    async with client.lock("/examples/fencing", owner="first") as held:
        token = held.fencing_token
        # It looks, and it holds the lock. The write leaves at once ...
        assert held.is_held()
    # ... and something holds it up on its way, for longer than the lock is held: a slow network, a full queue, a
    # pause of the machine between the look and the deed. No lease and no clock can help here.
    await let_go.wait()
    for store in stores:
        store.write("of the first", token)


async def second_writer(client: Client, stores: list[Store]) -> None:
    async with client.lock("/examples/fencing", owner="second") as held:
        for store in stores:
            store.write("of the second", held.fencing_token)


async def main() -> None:
    bare, fenced = Store(fenced=False), Store(fenced=True)
    async with Client() as client:
        let_go = asyncio.Event()
        first = asyncio.create_task(first_writer(client, [bare, fenced], let_go))
        # The next grant comes when the first has let go of the lock, or has lost it: the order is ZooKeeper's.
        while not (await client.exists("/examples/fencing")):
            pass
        await second_writer(client, [bare, fenced])
        let_go.set()
        await first
    print(f"without fencing tokens: {bare.content!r}; the second's write is lost")
    print(f"with fencing tokens: {fenced.content!r}")


asyncio.run(main())
