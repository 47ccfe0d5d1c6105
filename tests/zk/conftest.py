"""Servers with other settings than the shared one, and peers on the real backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any, Protocol

import pytest
from kazoo.client import KazooClient

from tests.contract.world import WITHIN_S, Peer
from zkside.cli.zookeeper import Installation, ZooKeeperServer
from zkside.zk.kazoo import KazooSettings, kazoo_connector
from zkside.zk.port import Ticket

NO_PERSISTENT_WATCHES = (
    "-Dzookeeper.watchManagerName=org.apache.zookeeper.server.watch.WatchManagerOptimized",
    "-Dznode.container.checkIntervalMs=1000",
)


class Connect(Protocol):
    """Begins (or takes up) a session on the real backend; the arguments are those of KazooSettings."""

    def __call__(
        self, hosts: str, *, ticket: Ticket | None = None, connected: bool = True, **settings: Any
    ) -> Awaitable[Peer]: ...


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    peers: list[Peer] = []

    async def connect(hosts: str, *, ticket: Ticket | None = None, connected: bool = True, **settings: Any) -> Peer:
        peer = Peer()
        peer.connection = kazoo_connector(KazooSettings(hosts, **settings))(peer, ticket)
        peers.append(peer)
        peer.connection.start()
        if connected:
            await peer.wait_for("connected")
        return peer

    yield connect
    async with asyncio.timeout(WITHIN_S):
        await asyncio.gather(*(peer.connection.close(within_s=0.3) for peer in peers))


@pytest.fixture(scope="module")
def optimized_zookeeper(zookeeper_installation: Installation) -> Iterator[ZooKeeperServer]:
    """A real server that refuses persistent watches (WatchManagerOptimized)."""
    with ZooKeeperServer(zookeeper_installation, tick_ms=200, jvm_flags=NO_PERSISTENT_WATCHES) as server:
        yield server


@pytest.fixture
def optimized_hosts(optimized_zookeeper: ZooKeeperServer, request: pytest.FixtureRequest) -> str:
    """Its connection string, with a fresh chroot."""
    client = KazooClient(optimized_zookeeper.hosts)
    client.start(timeout=30)
    try:
        path: str = client.create("/test-", sequence=True)
    finally:
        client.stop()
        client.close()
    return optimized_zookeeper.hosts + path
