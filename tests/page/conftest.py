"""A browser, and daemons with something to show."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from playwright.async_api import Browser

from tests.ops.process import DaemonProcess
from tests.page.onlooker import chromium
from zkside.cli.zookeeper import Installation, ZooKeeperServer
from zkside.client import Client

NAMED = ("unshare", "--uts", "sh", "-c", 'hostname web-7c9f && exec "$@"', "sh") if os.geteuid() == 0 else ()
"""A host has a name in the pictures that is not this machine's."""

PACE = {"ZOOKEEPER_SESSION_TIMEOUT": "8s", "LEASE_TICK": "500ms"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.page)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest.fixture
def slow_zookeeper(zookeeper_installation: Installation) -> Iterator[ZooKeeperServer]:
    """One of the test's own, to stop, which grants sessions of several seconds."""
    with ZooKeeperServer(zookeeper_installation, tick_ms=500) as server:
        yield server


@pytest.fixture
def daemon(tmp_path: Path, hosts: str) -> Iterator[DaemonProcess]:
    """A daemon of the test's own under its own chroot."""
    with DaemonProcess(tmp_path, launcher=NAMED, ZOOKEEPER_HOSTS=hosts) as process:
        yield process


class Work:
    """What the processes of a host do, in one: it holds, waits and watches until the block ends."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._stack = AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def at(cls, daemon: DaemonProcess) -> AsyncIterator[Self]:
        async with Client(daemon.address, timeout_s=20) as client:
            await client.get("/", wait_for_ready=True)
            work = cls(client)
            try:
                yield work
            finally:
                for task in work._tasks:
                    task.cancel()
                await asyncio.gather(*work._tasks, return_exceptions=True)

    async def hold(self, held: Any) -> None:
        """Have it until the end; returns when it is held."""
        got = asyncio.Event()

        async def holding() -> None:
            async with held:
                got.set()
                await asyncio.Event().wait()

        self._own(holding())
        async with asyncio.timeout(20):
            await got.wait()

    def wait_for(self, held: Any) -> None:
        """Queue for it until the end."""

        async def waiting() -> None:
            async with held:
                await asyncio.Event().wait()

        self._own(waiting())

    async def watch(self, watch: Any) -> None:
        """Subscribe until the end, and read all."""
        first = asyncio.Event()

        async def reading() -> None:
            async for _ in watch:
                first.set()

        self._own(reading())
        async with asyncio.timeout(20):
            await first.wait()

    def _own(self, flow: Any) -> None:
        self._tasks.add(asyncio.get_running_loop().create_task(flow))
