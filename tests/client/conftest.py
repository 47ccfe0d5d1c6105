"""What the tests of the SDK and of the command line share: a scripted server, and real daemons."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.client.parts.mortal import MortalDaemon
from tests.client.parts.scripted import ScriptedDaemon
from tests.ops.process import DaemonProcess
from zkside.cli.zookeeper import ZooKeeperServer
from zkside.client import Client


@pytest.fixture
async def scripted(tmp_path: Path) -> AsyncIterator[ScriptedDaemon]:
    daemon = ScriptedDaemon(tmp_path)
    await daemon.start()
    yield daemon
    await daemon.stop()


@pytest.fixture
async def scripted_client(scripted: ScriptedDaemon) -> AsyncIterator[Client]:
    async with Client(scripted.address, timeout_s=10) as client:
        yield client


@pytest.fixture(scope="session")
def daemon(zookeeper: ZooKeeperServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A real daemon on real ZooKeeper, shared by a run: never stop, kill or drain it."""
    with DaemonProcess(tmp_path_factory.mktemp("daemon"), ZOOKEEPER_HOSTS=zookeeper.hosts) as process:
        yield process


@pytest.fixture
async def client(daemon: DaemonProcess) -> AsyncIterator[Client]:
    async with Client(daemon.address, timeout_s=20) as client:
        await client.get("/", wait_for_ready=True)
        yield client


@pytest.fixture
def root(chroot: str) -> str:
    """An empty node of the test's own, as the shared daemon sees it."""
    return chroot


@pytest.fixture
async def mortal(hosts: str, tmp_path: Path) -> AsyncIterator[MortalDaemon]:
    """A daemon of the test's own, under the chroot of the test; to be killed."""
    daemon = MortalDaemon(tmp_path, hosts)
    await daemon.start()
    yield daemon
    await daemon.close()


@pytest.fixture
async def mortal_client(mortal: MortalDaemon) -> AsyncIterator[Client]:
    async with Client(mortal.address, timeout_s=20) as client:
        await client.get("/", wait_for_ready=True)
        yield client
