"""A client process that gives up all it asks for: `python -m tests.rpc.cancelling ADDRESS NUMBER`."""

from __future__ import annotations

import asyncio
import random
import sys
from typing import Any

import grpc

from tests.rpc.host import Stubs
from zkside.pb import node_pb2, session_pb2

BATCH = 100


async def cancel(address: str, number: int) -> None:
    """A quarter each of reads, writes, streams and holds, cancelled sooner or later."""
    source = random.Random(number)
    async with Stubs(address) as client:
        for _ in range(number // BATCH):
            calls: list[Any] = []
            for _ in range(BATCH // 4):
                calls += [
                    client.node.Get(node_pb2.GetRequest(path="/")),
                    client.node.Set(node_pb2.SetRequest(path="/absent", data=bytes(500))),
                    client.session.WatchSession(session_pb2.WatchSessionRequest()),
                    client.node.HoldEphemeral(node_pb2.HoldEphemeralRequest(path="/h-", sequential=True)),
                ]
            await asyncio.sleep(source.random() * 0.08)
            for call in calls:
                call.cancel()
        while True:
            try:
                await client.node.Sync(node_pb2.SyncRequest())
            except grpc.aio.AioRpcError as error:
                # REFUSED_STREAM: what was cancelled counts there longer than this client believes.
                if "RST_STREAM" not in str(error.details()):
                    raise
                await asyncio.sleep(0.05)
            else:
                return


if __name__ == "__main__":
    asyncio.run(cancel(sys.argv[1], int(sys.argv[2])))
