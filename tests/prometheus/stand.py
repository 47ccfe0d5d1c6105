"""What scenes are made of: daemons that Prometheus scrapes, each with a network and a place in ZooKeeper of its own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from kazoo.client import KazooClient

from tests.ops.process import DaemonProcess
from tests.ops.secured import secured
from tests.parts.proxy import Proxy
from tests.prometheus.monitor import Prometheus
from zkside.cli.zookeeper import ZooKeeperServer
from zkside.client import Client, SessionState


class Place:
    """One daemon and what it stands on."""

    def __init__(self, directory: Path, proxy: Proxy, keys: Mapping[str, str]) -> None:
        self.directory = directory
        """Its own; what a key calls {directory}."""
        self.proxy = proxy
        self._keys = {name: value.format(directory=directory) for name, value in keys.items()}
        self.daemon = DaemonProcess(directory, **self._keys)
        self.client = Client(self.daemon.address)

    async def wait_serving(self) -> None:
        await asyncio.to_thread(self.daemon.wait_serving)

    async def start_again(self) -> None:
        """Another daemon of the same configuration, in the place of one that has ended."""
        await self.end()
        self.daemon = DaemonProcess(self.directory, **self._keys)
        await self.wait_serving()

    async def end(self) -> None:
        await asyncio.to_thread(self.daemon.__exit__, None, None, None)

    async def metric(self, name: str) -> float:
        """The present value of a metric without labels. Raises: AssertionError if it has none."""
        _, text = await asyncio.to_thread(self.daemon.get, "/metrics")
        found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        assert found, f"{name} has no value"
        return float(found[1])

    async def wait_session(self, *states: SessionState) -> None:
        """Return once the session was in these states, one after the other."""
        async with self.session_passes(*states):
            pass

    @asynccontextmanager
    async def session_passes(self, *states: SessionState) -> AsyncIterator[None]:
        """The body begins when the session is heard of; wait behind it until the session was in these states, one
        after the other, since then."""
        heard = asyncio.Event()

        async def follow() -> None:
            wanted = list(states)
            async for session in self.client.watch_session():
                if session.state is wanted[0]:
                    wanted.pop(0)
                heard.set()
                if not wanted:
                    return
            raise AssertionError("the stream ended")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(follow())
            await heard.wait()
            yield


class Stand:
    """Gives places."""

    def __init__(self, zookeeper: ZooKeeperServer, others: KazooClient, prometheus: Prometheus) -> None:
        self._zookeeper = zookeeper
        self._others = others
        self.prometheus = prometheus
        self._starting = asyncio.Semaphore(2)

    @asynccontextmanager
    async def place(self, name: str, *, is_secured: bool = False, **keys: str) -> AsyncIterator[Place]:
        """A daemon configured with these keys, connected, and scraped under this name.

        `is_secured`: with a certificate, tokens, a policy and an audit log (tests/ops/secured.py) in its directory.
        """
        with TemporaryDirectory() as directory, Proxy(self._zookeeper.port) as proxy:
            path = f"/{name}"
            await asyncio.to_thread(self._others.ensure_path, path)
            defaults = {
                "ZOOKEEPER_HOSTS": proxy.hosts + path,
                "ZOOKEEPER_SESSION_TIMEOUT": "10s",
                "LEASE_TICK": f"{self._zookeeper.tick_ms}ms",
            }
            if is_secured:
                defaults |= secured(Path(directory))
            async with self._starting:
                place = Place(Path(directory), proxy, defaults | keys)
                try:
                    await place.wait_serving()
                except BaseException:
                    await place.end()
                    raise
            try:
                async with place.client:
                    await place.wait_session(SessionState.CONNECTED)
                    self.prometheus.add(name, place.daemon.http_port, namespace="tests")
                    await self.prometheus.wait_scraped(name)
                    yield place
            finally:
                self.prometheus.remove(name)
                await place.end()
