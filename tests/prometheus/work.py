"""A little of everything that applications do, so that everything is counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from zkside.client import Client, Consistency, Scope
from zkside.errors import NoNode

PAUSE_S = 0.5


@asynccontextmanager
async def working(client: Client) -> AsyncIterator[None]:
    """Until the end of the body; begins when each thing was done once. Raises: what went wrong."""
    begun = asyncio.Event()

    async def work() -> None:
        async with AsyncExitStack() as throughout:
            await client.create("/work", b"0", make_parents=True)
            watch = await throughout.enter_async_context(client.watch("/work", scope=Scope.SUBTREE))
            await throughout.enter_async_context(client.hold_ephemeral("/work/here"))
            await throughout.enter_async_context(client.join("/members"))
            await throughout.enter_async_context(client.campaign("/leader"))
            number = 0
            while True:
                number += 1
                await _one_round(client, number)
                await anext(watch)
                begun.set()
                await asyncio.sleep(PAUSE_S)

    task = asyncio.create_task(work())
    waiting = asyncio.create_task(begun.wait())
    try:
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            yield
    finally:
        waiting.cancel()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _one_round(client: Client, number: int) -> None:
    await client.set("/work", str(number).encode())
    await client.get("/work", consistency=Consistency.CACHED)
    await client.get("/work", consistency=Consistency.LINEARIZABLE)
    with pytest.raises(NoNode):
        await client.get("/absent")
    async with client.lock("/lock"):
        await client.create("/work/child")
        await client.delete("/work/child")
