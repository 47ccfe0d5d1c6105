"""The container is replaced and its state volume kept: who led goes on leading."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from kazoo.client import KazooClient

from tests.image.container import Container, volumes
from zkside.client import Client, HoldStatus

pytestmark = pytest.mark.image

LEADERS = 100
KEYS = {"SHUTDOWN_SESSION": "keep_session", "ZOOKEEPER_SESSION_TIMEOUT": "30s"}
PATIENCE_S = 60.0


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 0), (signal.SIGKILL, 137)])
async def test_a_hundred_leaders_stay_leaders_when_their_container_is_replaced(
    image: str, place: Path, hosts: str, stock_client: KazooClient, signum: signal.Signals, status: int
) -> None:
    """S5, H1, H2, H6: with the same nodes and tokens, and nobody on another host leads meanwhile."""
    paths = [f"/leaders/{number:03}" for number in range(LEADERS)]
    resumed: asyncio.Queue[HoldStatus] = asyncio.Queue()

    def updated(heard: HoldStatus) -> None:
        if heard.reason == "RESUMED":
            resumed.put_nowait(heard)

    async with AsyncExitStack() as stack:
        elsewhere = stack.enter_context(volumes())
        rival_container = stack.enter_context(Container(image, elsewhere, hosts))
        first = stack.enter_context(Container(image, place, hosts, keys=KEYS))
        rival_container.wait_connected()
        first.wait_connected()
        client = await stack.enter_async_context(Client(first.address, timeout_s=PATIENCE_S))
        leading = [
            await stack.enter_async_context(client.campaign(path, reconnect_grace_s=PATIENCE_S, on_update=updated))
            for path in paths
        ]
        before = {each.hold_id: (each.path, each.fencing_token) for each in leading}
        session = owner(stock_client, leading[0].path)

        rivals = await stack.enter_async_context(Client(rival_container.address, timeout_s=PATIENCE_S))
        queued = [asyncio.Event() for _ in paths]
        elected = [asyncio.Event() for _ in paths]
        async with asyncio.TaskGroup() as standing:
            for path, is_queued, is_elected in zip(paths, queued, elected, strict=True):
                standing.create_task(stand(rivals, path, is_queued, is_elected))
            await asyncio.gather(*(each.wait() for each in queued))

            await asyncio.to_thread(first.signal, signum)
            assert await asyncio.to_thread(first.wait_ended) == status
            second = stack.enter_context(Container(image, place, hosts, keys=KEYS))
            await asyncio.to_thread(second.wait_connected)
            async with asyncio.timeout(PATIENCE_S):
                after = [await resumed.get() for _ in paths]

            assert {each.hold_id: (each.path, each.fencing_token) for each in after} == before
            assert all(each.is_held() and not each.lost.is_set() for each in leading)
            assert {owner(stock_client, each.path) for each in leading} == {session}
            # Whoever was elected meanwhile has been told of it before an answer that was asked for now.
            await rivals.sync("/")
            assert not any(each.is_set() for each in elected)

            for each in leading:
                await each.__aexit__(None, None, None)
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(*(each.wait() for each in elected))


async def stand(rivals: Client, path: str, queued: asyncio.Event, elected: asyncio.Event) -> None:
    """Somebody on another host, who leads for a moment when it is their turn."""
    async with rivals.campaign(path, on_update=lambda heard: queued.set()):
        elected.set()


def owner(client: KazooClient, path: str) -> int:
    """The session whose node this is."""
    stat = client.exists(path)
    assert stat is not None, path
    return int(stat.ephemeralOwner)
