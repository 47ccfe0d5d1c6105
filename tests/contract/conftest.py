"""Both backends for every test of the contract."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import pytest

from tests.contract.world import WITHIN_S, MemoryWorld, Peer, RealWorld, World
from zkside.zk.port import Ticket


class Join(Protocol):
    """Begins (or takes up) a session and returns when it is connected; the arguments are World.connector's."""

    def __call__(
        self, *, ticket: Ticket | None = None, connected: bool = True, **arguments: Any
    ) -> Awaitable[Peer]: ...


@pytest.fixture(params=["memory", "memory without event zxids", "real"])
def world(request: pytest.FixtureRequest) -> World:
    if request.param != "real":
        return MemoryWorld(event_zxids=request.param == "memory")
    zookeeper, chroot, proxy = map(request.getfixturevalue, ("zookeeper", "chroot", "proxy"))
    return RealWorld(zookeeper.hosts, chroot, proxy)


@pytest.fixture
async def join(world: World) -> AsyncIterator[Join]:
    peers: list[Peer] = []

    async def join(*, ticket: Ticket | None = None, connected: bool = True, **arguments: Any) -> Peer:
        peer = Peer()
        peer.connection = world.connector(**arguments)(peer, ticket)
        peers.append(peer)
        peer.connection.start()
        if connected:
            await peer.wait_for("connected")
        return peer

    yield join
    async with asyncio.timeout(WITHIN_S):
        await asyncio.gather(*(peer.connection.close(within_s=2.0) for peer in peers))


@pytest.fixture
async def peer(join: Callable[..., Awaitable[Peer]]) -> Peer:
    """A session of its own."""
    return await join()


@pytest.fixture
async def other(join: Callable[..., Awaitable[Peer]]) -> Peer:
    """Another session."""
    return await join()
