"""What every test may ask for: a real ZooKeeper, a place of its own in it, a bad network in front of it.

`ZOOKEEPER=3.9 pytest` runs everything on that release instead of the installed one (zkside/cli/zookeeper.py).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import uvloop
from kazoo.client import KazooClient

from tests.parts.clock import VirtualClock
from tests.parts.ensemble import Ensemble
from tests.parts.proxy import Proxy
from zkside.cli.zookeeper import Installation, ZooKeeperServer, find
from zkside.errors import StartError

# Tests start processes while they have channels open. gRPC's handlers of fork() are for children that go on using
# gRPC, which none does, and crash at times.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

# Who is started in the background by a shell begins with SIGINT ignored, and so would every process of a test.
signal.signal(signal.SIGINT, signal.default_int_handler)

CONTAINER_CHECK_FLAGS = ("-Dznode.container.checkIntervalMs=1000",)
"""Containers and TTL nodes go after one second, not one minute."""

_numbers = itertools.count(1)


def pytest_asyncio_loop_factories(item: pytest.Function) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the event loop that the daemon runs on.

    But those of the SDK run on the one that most of its users have, and a VirtualClock knows that one alone.
    """
    if item.path.is_relative_to(Path(__file__).parent / "client") or hasattr(item.module, VirtualClock.__name__):
        return {"asyncio": asyncio.new_event_loop}
    return {"uvloop": uvloop.new_event_loop}


def pytest_report_header(config: pytest.Config) -> str:
    try:
        return f"ZooKeeper: {_find().version}"
    except StartError as error:
        return f"ZooKeeper: none ({error})"


def _find() -> Installation:
    return find(os.environ.get("ZOOKEEPER") or None)


@pytest.fixture(scope="session")
def zookeeper_installation() -> Installation:
    """The release under test."""
    return _find()


@pytest.fixture(scope="session")
def zookeeper(zookeeper_installation: Installation) -> Iterator[ZooKeeperServer]:
    """The real server shared by all tests of a run: never stop, pause or restart it."""
    with ZooKeeperServer(zookeeper_installation, tick_ms=200, jvm_flags=CONTAINER_CHECK_FLAGS) as server:
        yield server


@pytest.fixture
def own_zookeeper(zookeeper_installation: Installation) -> Iterator[ZooKeeperServer]:
    """A real server of the test's own, to kill, pause and restart."""
    with ZooKeeperServer(zookeeper_installation, tick_ms=200, jvm_flags=CONTAINER_CHECK_FLAGS) as server:
        yield server


@pytest.fixture
def ensemble(zookeeper_installation: Installation) -> Iterator[Ensemble]:
    """Three real servers of the test's own."""
    with Ensemble(3, installation=zookeeper_installation, jvm_flags=CONTAINER_CHECK_FLAGS) as servers:
        yield servers


@pytest.fixture(scope="session")
def _stock_client(zookeeper: ZooKeeperServer) -> Iterator[KazooClient]:
    client = KazooClient(zookeeper.hosts)
    client.start(timeout=30)
    yield client
    client.stop()
    client.close()


@pytest.fixture
def chroot(_stock_client: KazooClient) -> str:
    """A fresh, empty node of the shared server."""
    path = f"/test-{next(_numbers)}"
    _stock_client.create(path)
    return path


@pytest.fixture
def hosts(zookeeper: ZooKeeperServer, chroot: str) -> str:
    """The connection string of the shared server, ending in a chroot of the test's own."""
    return zookeeper.hosts + chroot


@pytest.fixture
def stock_client(hosts: str) -> Iterator[KazooClient]:
    """Somebody else: kazoo's own client in a session of its own, under the same chroot as the test."""
    client = KazooClient(hosts)
    client.start(timeout=30)
    yield client
    client.stop()
    client.close()


@pytest.fixture
def proxy(zookeeper: ZooKeeperServer) -> Iterator[Proxy]:
    """A bad network in front of the shared server; the hosts through it are `proxy_hosts`."""
    with Proxy(zookeeper.port) as proxy:
        yield proxy


@pytest.fixture
def proxy_hosts(proxy: Proxy, chroot: str) -> str:
    """As `hosts`, through the proxy."""
    return proxy.hosts + chroot
