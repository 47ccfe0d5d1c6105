"""The path of a lock lives as long as the library needs it that shares it (H8)."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from kazoo.client import KazooClient
from kazoo.recipe.watchers import DataWatch

from tests.interop.contest import Stage
from tests.interop.zkside_contender import opening, until_held

pytestmark = pytest.mark.interop


async def hold_once(stage: Stage, layout: str, path: str) -> None:
    async with grpc.aio.insecure_channel(stage.daemons[0]) as channel:
        stream = opening(f"lock:{layout}", path, channel)("zkside")
        await until_held(stream)
        stream.cancel()


async def wait_swept(stage: Stage, client: KazooClient, path: str) -> None:
    """Return when ZooKeeper has removed this empty container."""
    loop, gone = asyncio.get_running_loop(), asyncio.Event()

    def seen(data: bytes | None, _: object) -> bool:
        if data is None:
            loop.call_soon_threadsafe(gone.set)
        return data is not None

    await hold_once(stage, "CURATOR", path)
    await asyncio.to_thread(DataWatch, client, path, seen)
    await gone.wait()


async def test_kazoos_lock_goes_on_after_nobody_wanted_it_for_long(stage: Stage, path: str, chroot: str) -> None:
    """H8: kazoo makes sure of the path once for each Lock; a container would be gone by the next time."""
    client = KazooClient(stage.hosts, timeout=4.0)
    client.start(timeout=30)
    try:
        await hold_once(stage, "KAZOO", path)
        lock = client.Lock(path, "kazoo")
        with lock:
            pass
        # A round of the server's sweep that began after the first had ended has looked at every empty container.
        for name in ("first", "second"):
            await wait_swept(stage, client, f"{chroot}/{name}")
        with lock:
            pass
    finally:
        client.stop()
        client.close()
