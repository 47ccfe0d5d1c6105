"""A daemon on the real server, and a client of it."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.rpc.host import Host, Stubs


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose name leaves room in a socket's 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="zkside-", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
async def host(hosts: str, short_path: Path) -> AsyncIterator[Host]:
    async with Host(hosts, short_path) as host:
        yield host


@pytest.fixture
async def shaky_host(proxy_hosts: str, short_path: Path) -> AsyncIterator[Host]:
    """A daemon behind the bad network of `proxy`."""
    async with Host(proxy_hosts, short_path) as host:
        yield host


@pytest.fixture
async def client(host: Host) -> AsyncIterator[Stubs]:
    async with host.stubs() as stubs:
        yield stubs


@pytest.fixture
async def shaky_client(shaky_host: Host) -> AsyncIterator[Stubs]:
    """A client of the daemon behind the bad network; its own way to the daemon is good."""
    async with shaky_host.stubs() as stubs:
        yield stubs
