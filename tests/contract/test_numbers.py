"""Where the numbers of sequential nodes end, ZooKeeper in process goes on as a real one does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.world import MemoryWorld, Peer, RealWorld, World
from tests.parts.proxy import Proxy
from tests.parts.snapshot import write_snapshot
from zkside.cli.zookeeper import Installation, ZooKeeperServer
from zkside.errors import ZksideError
from zkside.model.operation import Create, Created, CreateMode, Delete, Exists, Operation, Transaction
from zkside.model.stat import LAST_NUMBER, Stat

CREATES = {"/full": LAST_NUMBER - 2, "/many": LAST_NUMBER - 2, "/half": 2**30}
SEQUENTIAL = CreateMode.PERSISTENT_SEQUENTIAL

SCRIPT: list[Operation[Any]] = [
    *[Create("/half/a", mode=SEQUENTIAL)] * 2,
    *[Create("/full/a", mode=SEQUENTIAL)] * 3,
    *[Create("/full/b", mode=SEQUENTIAL)] * 2,
    Create("/full/plain"),
    Delete("/full/plain"),
    Create("/full/c", mode=SEQUENTIAL),
    Transaction((*[Create("/many/a", mode=SEQUENTIAL)] * 5, Create("/many/plain"))),
    Create("/many/a", mode=SEQUENTIAL),
    Transaction((Create("/many/b", mode=SEQUENTIAL), Create("/many/plain"))),
    Create("/many/b", mode=SEQUENTIAL),
    Transaction((Create("/many/x"), Create("/many/x/y", mode=SEQUENTIAL), Delete("/many/x/y0000000000"))),
]


@pytest.fixture
def counted_out(zookeeper_installation: Installation, tmp_path: Path) -> Iterator[ZooKeeperServer]:
    """A real server whose counters are nearly at their end."""
    write_snapshot(tmp_path / "data", CREATES)
    with ZooKeeperServer(zookeeper_installation, tick_ms=200, directory=tmp_path) as server:
        yield server


async def run(world: World) -> list[Any]:
    peer = Peer()
    peer.connection = world.connector()(peer, None)
    peer.connection.start()
    await peer.wait_for("connected")
    told: list[Any] = []
    pzxids: dict[str, int] = {}
    try:
        for operation in SCRIPT:
            try:
                value = (await peer.ask(operation)).value
                told.append([_plain(each) for each in value.results] if hasattr(value, "results") else _plain(value))
            except ZksideError as error:
                told.append(type(error))
            for path in CREATES:
                stat = await peer.do(Exists(path))
                assert isinstance(stat, Stat)
                moved = pzxids.get(path) != stat.pzxid
                pzxids[path] = stat.pzxid
                told.append((path, stat.cversion, stat.num_children, stat.creates, moved))
    finally:
        await peer.connection.close(within_s=10)
    return told


def _plain(value: object) -> object:
    if isinstance(value, Created):
        return value.path
    return type(value) if isinstance(value, ZksideError) else value


async def test_the_last_number_comes_again_and_again(counted_out: ZooKeeperServer) -> None:
    """H1: what the tests without a server count on; and that a Stat tells the creates up to the end."""
    memory = MemoryWorld()
    for path, creates in CREATES.items():
        memory.zookeeper.apply(Create(memory.chroot + path))
        memory.zookeeper.tree.nodes[memory.chroot + path].creates = creates
    with Proxy(counted_out.port) as proxy:
        real = await run(RealWorld(counted_out.hosts, "", proxy))
    assert await run(memory) == real
    assert f"/full/a{LAST_NUMBER}" in real
    assert f"/full/b{LAST_NUMBER}" in real
    assert ("/half", -(2**31) + 2, 2, 2**30 + 2, True) in real
