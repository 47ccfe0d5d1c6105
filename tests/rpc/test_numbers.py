"""Where ZooKeeper has no more sequence numbers, on a real server whose counters are nearly at their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from kazoo.client import KazooClient

from tests.parts.snapshot import write_snapshot
from tests.rpc.host import Host, Stubs, failure
from tests.rpc.test_carry import Carrier
from tests.rpc.test_lock import Seeker
from zkside.cli.zookeeper import Installation, ZooKeeperServer
from zkside.model.stat import LAST_NUMBER
from zkside.pb.carry_pb2 import CarryStep
from zkside.pb.election_pb2 import CampaignRequest
from zkside.pb.lock_pb2 import LOCK_LAYOUT_CURATOR_READ_WRITE, LOCK_LAYOUT_KAZOO, LOCK_MODE_SHARED
from zkside.pb.node_pb2 import (
    CREATE_MODE_EPHEMERAL_SEQUENTIAL,
    CREATE_MODE_PERSISTENT_SEQUENTIAL,
    CreateRequest,
    HoldEphemeralRequest,
)
from zkside.recipes.numbers import WARN_BELOW

LAYOUTS: tuple[dict[str, Any], ...] = (
    {},
    {"mode": LOCK_MODE_SHARED},
    {"layout": LOCK_LAYOUT_CURATOR_READ_WRITE},
    {"layout": LOCK_LAYOUT_KAZOO},
)


@pytest.fixture(scope="module")
def counted_out(
    zookeeper_installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ZooKeeperServer]:
    directory = tmp_path_factory.mktemp("counted-out")
    paths = {f"/full{number}": LAST_NUMBER - 1 for number in range(10)}
    write_snapshot(directory / "data", {**paths, "/soon": LAST_NUMBER - WARN_BELOW + 1})
    with ZooKeeperServer(zookeeper_installation, tick_ms=200, directory=directory) as server:
        yield server


@pytest.fixture
async def host(counted_out: ZooKeeperServer, short_path: Path) -> AsyncIterator[Host]:
    async with Host(counted_out.hosts, short_path) as host:
        yield host


@pytest.fixture
def stock_client(counted_out: ZooKeeperServer) -> Iterator[KazooClient]:
    client = KazooClient(counted_out.hosts)
    client.start(timeout=30)
    yield client
    client.stop()
    client.close()


@pytest.mark.parametrize(("number", "more"), list(enumerate(LAYOUTS)))
async def test_a_lock_with_the_last_number_is_refused_and_its_node_goes(
    client: Stubs, host: Host, stock_client: KazooClient, number: int, more: dict[str, Any]
) -> None:
    """H1, H6: the one before it is the last that is granted; who comes later cannot be told from others."""
    path = f"/full{number}"
    holder = Seeker(client, path, **more)
    held = await holder.held()
    assert held.hold.path.endswith(f"{LAST_NUMBER - 1}")
    for _ in range(3):
        refused = await failure(Seeker(client, path, **more).stream)
        assert (refused.reason, refused.metadata) == ("SEQUENCE_OVERFLOW", {"path": path, "number": f"{LAST_NUMBER}"})
    carrier = Carrier(client)
    await carrier.acquire(1, path, **more)
    assert (await carrier.ended(1)).failure.reason == "SEQUENCE_OVERFLOW"
    assert await host.session.janitor.drained(10)
    assert stock_client.get_children(path) == [held.hold.path.rpartition("/")[2]]
    await holder.release()
    assert await host.session.janitor.drained(10)
    # Not silently usable again either, but for who makes the parent anew.
    assert (await failure(Seeker(client, path, **more).stream)).reason == "SEQUENCE_OVERFLOW"
    assert await host.session.janitor.drained(10)
    stock_client.delete(path)
    assert (await Seeker(client, path, **more).held()).hold.path.endswith("0000000000")


async def test_two_hosts_that_ask_at_once_never_both_hold(
    client: Stubs, counted_out: ZooKeeperServer, short_path: Path
) -> None:
    """H1"""
    (short_path / "other").mkdir()
    async with Host(counted_out.hosts, short_path / "other") as other_host, other_host.stubs() as other:
        await Seeker(client, "/full4").held()
        for _ in range(6):
            asked = [Seeker(client, "/full4"), Seeker(other, "/full4")]
            refused = await asyncio.gather(*(failure(each.stream) for each in asked))
            assert {each.reason for each in refused} == {"SEQUENCE_OVERFLOW"}


async def test_other_sequential_nodes_are_refused_too(client: Stubs, host: Host, stock_client: KazooClient) -> None:
    """N2: also those that nobody could tell from others by their names alone."""
    stock_client.create("/full5/a", sequence=True)
    for more in (
        {"mode": CREATE_MODE_PERSISTENT_SEQUENTIAL},
        {"mode": CREATE_MODE_PERSISTENT_SEQUENTIAL, "protected": True},
        {"mode": CREATE_MODE_EPHEMERAL_SEQUENTIAL, "daemon_lifetime": True},
    ):
        refused = await failure(client.node.Create(CreateRequest(path="/full5/x", **more)))
        assert refused.reason == "SEQUENCE_OVERFLOW"
        # Without a prefix ZooKeeper itself refuses the next one for as long as that node is there: NODE_EXISTS.
        assert await host.session.janitor.drained(10)
    sequential = HoldEphemeralRequest(path="/full5/x", sequential=True)
    assert (await failure(client.node.HoldEphemeral(sequential))).reason == "SEQUENCE_OVERFLOW"
    assert await host.session.janitor.drained(10)
    candidate = CampaignRequest(path="/full5", candidate_id="me")
    assert (await failure(client.election.Campaign(candidate))).reason == "SEQUENCE_OVERFLOW"
    carrier = Carrier(client)
    await carrier.ask(CarryStep(tag=1, hold_ephemeral=sequential))
    assert (await carrier.ended(1)).failure.reason == "SEQUENCE_OVERFLOW"
    assert await host.session.janitor.drained(10)
    assert len(stock_client.get_children("/full5")) == 1
    assert metric(host, "zkside_sequence_overflows_total") == 6


async def test_it_is_told_long_before(client: Stubs, host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """O1: in the log once, until half of them are gone, and as a metric."""
    assert metric(host, "zkside_sequence_numbers_left") == LAST_NUMBER
    await Seeker(client, "/soon").held()
    await Seeker(client, "/soon").waiting()
    assert metric(host, "zkside_sequence_numbers_left") == WARN_BELOW - 2
    told = "sequence numbers are left for the children of /soon"
    assert sum(told in record.message for record in caplog.records) == 1


def metric(host: Host, name: str) -> float:
    (value,) = (sample.value for family in host.rpc.collect() for sample in family.samples if sample.name == name)
    return value
