"""One Prometheus for all of these tests, and one daemon that is well."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from kazoo.client import KazooClient

from tests.prometheus import monitor
from tests.prometheus.monitor import Notices, Prometheus
from tests.prometheus.stand import Place, Stand
from tests.prometheus.work import working
from zkside.cli.zookeeper import Installation, ZooKeeperServer

WELL = "well"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def notices() -> AsyncIterator[Notices]:
    heard = Notices()
    yield heard
    heard.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def prometheus(notices: Notices, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Prometheus]:
    with monitor.running(tmp_path_factory.mktemp("prometheus"), notices.port) as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stand(prometheus: Prometheus, zookeeper_installation: Installation) -> AsyncIterator[Stand]:
    with ZooKeeperServer(zookeeper_installation, tick_ms=500) as zookeeper:
        others = KazooClient(zookeeper.hosts)
        others.start(timeout=30)
        yield Stand(zookeeper, others, prometheus)
        others.stop()
        others.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def well(stand: Stand) -> AsyncIterator[Place]:
    """A daemon that nothing happens to, with a little work."""
    async with stand.place(WELL, is_secured=True) as place, working(place.client):
        yield place
