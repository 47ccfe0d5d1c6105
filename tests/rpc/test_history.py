"""Writes and holds around a ZooKeeper whose history goes back."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from kazoo.client import KazooClient

from tests.parts.eventually import until
from tests.parts.proxy import Proxy
from tests.rpc.host import Fault, Host, Stubs, failure, fault
from tests.rpc.test_hold import update
from tests.rpc.test_lost_replies import answer_lost, start
from zkside.cli.zookeeper import ZooKeeperServer
from zkside.pb.hold_pb2 import HOLD_STATE_HELD, HOLD_STATE_LOST
from zkside.pb.node_pb2 import CreateRequest, GetRequest, HoldEphemeralRequest, ReadOptions, SetRequest

WRITES = 30


class Place:
    """A daemon behind a bad network before a ZooKeeper that can be emptied, and somebody else."""

    def __init__(self, server: ZooKeeperServer, proxy: Proxy, host: Host, client: Stubs) -> None:
        self.server = server
        self.proxy = proxy
        self.host = host
        self.client = client

    async def wipe(self) -> None:
        """All servers lose their data; returns when the daemon has a session again."""
        epoch = self.host.session.epoch
        self.server.kill()
        shutil.rmtree(self.server.directory / "data")
        await asyncio.to_thread(self.server.start)
        await until(lambda: self.host.session.epoch > epoch)


@pytest.fixture
def own_proxy(own_zookeeper: ZooKeeperServer) -> Iterator[Proxy]:
    with Proxy(own_zookeeper.port) as proxy:
        yield proxy


@pytest.fixture
async def place(own_zookeeper: ZooKeeperServer, own_proxy: Proxy, short_path: Path) -> AsyncIterator[Place]:
    async with Host(own_proxy.hosts, short_path) as host, host.stubs() as client:
        for number in range(WRITES):
            await client.node.Create(CreateRequest(path=f"/n{number}"))
        yield Place(own_zookeeper, own_proxy, host, client)


async def outcome(call: asyncio.Future[object]) -> Fault:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return fault(caught.value)


async def test_a_lost_create_is_judged_by_the_zxids_of_its_own_history(place: Place) -> None:
    """V2, N2: it was told NODE_EXISTS for its own node, since all zxids are below those of before."""
    await place.wipe()
    other = KazooClient(place.server.hosts)
    await asyncio.to_thread(other.start)
    async with answer_lost(place.proxy, lambda: other.exists("/mine") is not None):
        stream = place.client.node.HoldEphemeral(HoldEphemeralRequest(path="/mine"))
        reading = start(stream.read())
    held = await reading
    assert held.state == HOLD_STATE_HELD
    assert held.hold.fencing_token == other.exists("/mine").czxid < WRITES
    await asyncio.to_thread(other.stop)
    other.close()


async def test_a_write_that_was_lost_in_the_history_before_has_an_outcome_that_no_zxid_can_settle(
    place: Place,
) -> None:
    """V2, N2."""
    sent = place.proxy.replies.size_bytes
    place.proxy.hold_replies()
    setting = start(place.client.node.Set(SetRequest(path="/n1", data=b"new")))
    await asyncio.to_thread(place.proxy.wait_for, lambda proxy: proxy.replies.size_bytes > sent)
    place.proxy.refuse()
    place.proxy.cut()
    place.proxy.heal()
    place.server.kill()
    shutil.rmtree(place.server.directory / "data")
    await asyncio.to_thread(place.server.start)
    place.proxy.accept()
    told = await outcome(setting)
    assert told.reason == "OUTCOME_UNKNOWN"
    assert told.metadata["history_changed"] == "true"
    assert "zxid_before" not in told.metadata


async def test_holds_end_and_their_tokens_begin_anew(place: Place) -> None:
    """V2, H2, H5: tokens grow within one history only, and the daemon counts these."""
    stream = place.client.node.HoldEphemeral(HoldEphemeralRequest(path="/h"))
    held = await update(stream)
    await place.wipe()
    while (last := await update(stream)).state != HOLD_STATE_LOST:
        continue
    assert last.reason == "SESSION_LOST"
    again = await update(place.client.node.HoldEphemeral(HoldEphemeralRequest(path="/h")))
    assert again.hold.fencing_token < held.hold.fencing_token
    assert place.host.session.statistics().history_changes == 1


async def test_a_read_that_asks_for_a_zxid_of_before_hears_that_its_history_is_over(place: Place) -> None:
    """V2, R2."""
    before = (await place.client.node.Get(GetRequest(path="/n1"))).header.zxid
    await place.wipe()
    await place.client.node.Create(CreateRequest(path="/n1"))
    options = ReadOptions(min_zxid=before)
    told = await failure(place.client.node.Get(GetRequest(path="/n1", options=options)))
    assert (told.code, told.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "HISTORY_CHANGED")
    answer = await place.client.node.Get(GetRequest(path="/n1"))
    assert answer.header.zxid < before
