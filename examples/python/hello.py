"""Create a node, read it, change it under its version, delete it.

zkside dev                            # in another terminal; then, with its ZKSIDE_ADDRESS if it prints one:
python examples/python/hello.py
"""

import asyncio

from zkside.client import Client
from zkside.errors import BadVersion, NodeExists


async def main() -> None:
    async with Client() as client:
        try:
            made = await client.create("/examples/hello", b"hello", make_parents=True)
            print(f"created {made.path} at {made.zxid:#x}")
        except NodeExists:
            print("somebody created it before")

        node = await client.get("/examples/hello")
        print(f"read {node.data!r}, version {node.stat.version}")

        await client.set("/examples/hello", b"hello again", version=node.stat.version)
        try:
            await client.set("/examples/hello", b"too late", version=node.stat.version)
        except BadVersion as error:
            print(f"not set: it has version {error.metadata['actual']} by now")

        await client.delete("/examples/hello")


asyncio.run(main())
