"""A client process in the middle of streams, to be killed: `python -m tests.rpc.vanishing ADDRESS PATH`."""

from __future__ import annotations

import asyncio
import sys

from tests.rpc.host import Stubs
from zkside.pb import watch_pb2

STREAMS = 5


async def follow(address: str, path: str) -> None:
    """Says "watching" when each of its streams has begun, and reads no more."""
    async with Stubs(address) as client:
        request = watch_pb2.WatchRequest(targets=[watch_pb2.WatchTarget(path=path, with_data=True)])
        streams = [client.watch.Watch(request) for _ in range(STREAMS)]
        for stream in streams:
            await stream.read()
        print("watching", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(follow(sys.argv[1], sys.argv[2]))
