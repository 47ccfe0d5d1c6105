"""Reads and watches a node, holds a lock and stands for election, until the node says "stop".

    python main.py unix:/run/zkside/zkside.sock my-name

The node is /clients/config, the lock /clients/lock, the election /clients/election. The same program as in examples/go,
java, node and rust; here with the SDK.
"""

import asyncio
import sys

from zkside.client import Changes, Client, Scope, Snapshot


async def main(address: str, name: str) -> None:
    async with Client(address) as client:
        print("read", (await client.get("/clients/config")).data.decode(), flush=True)
        async with client.lock("/clients/lock", owner=name) as lock:
            print("lock", lock.fencing_token, flush=True)
            async with client.campaign("/clients/election", candidate_id=name) as leadership:
                print("leader", leadership.fencing_token, flush=True)
                async with client.watch("/clients/config", scope=Scope.NODE) as watch:
                    async for event in watch:
                        match event:
                            case Snapshot(nodes=nodes):
                                texts = [node.data.decode() for node in nodes.values()]
                            case Changes(changes=changes):
                                texts = [change.node.data.decode() for change in changes if change.node]
                            case _:
                                texts = []
                        for text in texts:
                            print("watch", text, flush=True)
                        if "stop" in texts:
                            break
        print("released", flush=True)


asyncio.run(main(*sys.argv[1:]))
