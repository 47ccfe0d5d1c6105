"""ZooKeeper in process under a virtual clock: what a fault does, and when."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.contract.world import Peer
from tests.parts.clock import VirtualClock
from zkside import errors
from zkside.model.event import EventType
from zkside.model.operation import (
    AddWatch,
    Create,
    CreateMode,
    Delete,
    Exists,
    GetChildren,
    GetData,
    SetData,
)
from zkside.zk.memory import MemoryNetwork, MemoryZooKeeper, memory_connector
from zkside.zk.port import Ending, Ticket

TIMEOUT_S = 9.0
TICK_S = 2.0


class Lab:
    """A virtual clock, a ZooKeeper and sessions on it."""

    def __init__(self, *, event_zxids: bool = True) -> None:
        self.clock = VirtualClock()
        self.zookeeper = MemoryZooKeeper(clock=self.clock, tick_s=TICK_S, event_zxids=event_zxids)
        self.network = MemoryNetwork(self.clock)

    async def join(self, *, ticket: Ticket | None = None, own_network: bool = False, read_only: bool = False) -> Peer:
        peer = Peer()
        connect = memory_connector(
            self.zookeeper,
            network=self.network if own_network else None,
            timeout_s=TIMEOUT_S,
            read_only=read_only,
        )
        peer.connection = connect(peer, ticket)
        peer.connection.start()
        await self.clock.settle()
        return peer


@pytest.fixture
def lab() -> Lab:
    return Lab()


def kinds(peer: Peer) -> list[str]:
    return [kind for kind, _ in peer.log if kind in ("connected", "suspended", "ended")]


async def test_an_idle_session_lives_for_ever(lab: Lab) -> None:
    peer = await lab.join()
    await lab.clock.advance(3600)
    assert kinds(peer) == ["connected"]
    assert lab.zookeeper.requests["Ping"] >= 3600 / TIMEOUT_S


async def test_an_abandoned_session_expires_between_its_timeout_and_one_tick_later(lab: Lab) -> None:
    peer, other = await lab.join(), await lab.join()
    await peer.do(Create("/e", mode=CreateMode.EPHEMERAL))
    await other.do(AddWatch("/e"))
    peer.connection.abandon()
    await lab.clock.advance(TIMEOUT_S - 0.001)
    assert other.events == []
    await lab.clock.advance(TICK_S + 0.001)
    assert other.events == [(EventType.NODE_DELETED, "/e")]


async def test_half_open_is_noticed_by_the_client_at_two_thirds_and_by_the_server_at_the_timeout(
    lab: Lab,
) -> None:
    peer, other = await lab.join(own_network=True), await lab.join()
    await peer.do(Create("/e", mode=CreateMode.EPHEMERAL))
    lab.network.half_open(True)
    lost = peer.call(GetData("/e"))
    await lab.clock.advance(TIMEOUT_S * 2 / 3 - 0.1)
    assert kinds(peer) == ["connected"]
    await lab.clock.advance(0.1)
    assert kinds(peer) == ["connected", "suspended"]
    assert isinstance(lost.exception(), errors.ConnectionLoss)
    await lab.clock.advance(TIMEOUT_S / 3 + TICK_S)
    assert (await other.do(GetChildren("/")))[0] == ["zookeeper"]
    assert kinds(peer) == ["connected", "suspended"]
    lab.network.half_open(False)
    await lab.clock.advance(1)
    assert peer.all("ended") == [Ending.EXPIRED]


async def test_what_was_sent_while_half_open_arrives_when_it_heals_in_time(lab: Lab) -> None:
    peer = await lab.join(own_network=True)
    lab.network.half_open(True)
    created = peer.call(Create("/a"))
    await lab.clock.advance(3)
    assert not created.done()
    lab.network.half_open(False)
    await lab.clock.settle()
    assert created.result().value.path == "/a"
    assert kinds(peer) == ["connected"]


async def test_a_delay_costs_its_time_both_ways_and_keeps_the_order(lab: Lab) -> None:
    peer = await lab.join(own_network=True)
    lab.network.delay(0.5)
    calls: list[asyncio.Future[Any]] = [peer.call(Create("/a")), peer.call(GetData("/a")), peer.call(Delete("/a"))]
    await lab.clock.advance(0.999)
    assert not any(call.done() for call in calls)
    lab.network.delay(0.0)
    await lab.clock.advance(0.001)
    assert all(call.exception() is None for call in calls)


async def test_refused_connections_are_tried_again_until_there_is_one(lab: Lab) -> None:
    lab.network.refuse_connections(True)
    peer = await lab.join(own_network=True)
    await lab.clock.advance(60)
    assert kinds(peer) == []
    lab.network.refuse_connections(False)
    await lab.clock.advance(0.2)
    assert kinds(peer) == ["connected"]


async def test_only_the_network_that_was_dropped_reconnects(lab: Lab) -> None:
    peer, other = await lab.join(own_network=True), await lab.join()
    lab.network.drop_connections()
    await lab.clock.settle()
    assert kinds(peer) == ["connected", "suspended", "connected"]
    assert kinds(other) == ["connected"]
    lab.zookeeper.network.drop_connections()
    await lab.clock.settle()
    assert kinds(other) == ["connected", "suspended", "connected"]


async def test_an_expired_session_hears_it_at_its_next_attempt(lab: Lab) -> None:
    peer = await lab.join()
    await peer.do(Create("/e", mode=CreateMode.EPHEMERAL))
    lab.zookeeper.expire(peer.ticket.session_id)
    await lab.clock.settle()
    assert kinds(peer) == ["connected", "suspended", "ended"]
    assert peer.all("ended") == [Ending.EXPIRED]
    assert "/e" not in lab.zookeeper.tree.nodes


async def test_wrong_credentials_end_the_connection(lab: Lab) -> None:
    peer = Peer()
    peer.connection = memory_connector(lab.zookeeper, auth=(("unheard-of", "x"),))(peer, None)
    peer.connection.start()
    await lab.clock.settle()
    assert peer.all("ended") == [Ending.AUTH_FAILED]


async def test_a_read_only_server_takes_those_who_asked_for_it_and_no_writes(lab: Lab) -> None:
    writer = await lab.join()
    await writer.do(Create("/e", mode=CreateMode.EPHEMERAL))
    lab.zookeeper.set_read_only(True)
    reader = await lab.join(read_only=True)
    assert reader.all("connected")[0].read_only
    assert await reader.do(Exists("/e")) is not None
    with pytest.raises(errors.SessionSuspended):
        await reader.do(SetData("/e", b""))
    await lab.clock.advance(10 * TIMEOUT_S)
    assert kinds(writer) == ["connected", "suspended"]
    lab.zookeeper.set_read_only(False)
    await lab.clock.advance(1)
    assert kinds(writer) == ["connected", "suspended", "connected"]
    assert kinds(reader) == ["connected", "suspended", "ended"]
    assert await writer.do(Exists("/e")) is not None


async def test_without_event_zxids_events_are_bounded_by_the_reply_before() -> None:
    lab = Lab(event_zxids=False)
    peer = await lab.join()
    await peer.do(AddWatch("/a"))
    zxid = (await peer.ask(Exists("/a"))).zxid
    written = lab.zookeeper.apply(Create("/a")).stat
    await lab.clock.settle()
    (event,) = peer.all("event")
    assert written is not None
    assert (event.zxid, event.since) == (0, zxid + 1)
    assert event.since <= written.czxid


async def test_a_suspended_machine_finds_its_session_gone(lab: Lab) -> None:
    peer = await lab.join()
    lab.clock.jump(3600)
    await lab.clock.advance(1)
    assert kinds(peer) == ["connected", "suspended", "ended"]
