"""The real backend on real ZooKeeper, beyond the contract that both backends share (tests/contract)."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.contract.world import WITHIN_S, Peer
from tests.parts.ensemble import Ensemble
from tests.parts.proxy import Proxy
from tests.zk.conftest import Connect
from zkside import errors
from zkside.cli.zookeeper import Installation, ZooKeeperServer, free_port
from zkside.model.operation import (
    Create,
    CreateMode,
    Delete,
    Exists,
    GetChildren,
    GetData,
    ReadMany,
    SetData,
    Sync,
    Transaction,
)
from zkside.zk.port import Ending


async def settled(futures: list[asyncio.Future[Any]]) -> list[BaseException | None]:
    """What each failed with, if it did."""
    await asyncio.wait(futures, timeout=WITHIN_S)
    return [future.exception() for future in futures]


# --- limits


async def test_never_more_than_agreed_is_in_flight(connect: Connect, proxy: Proxy, proxy_hosts: str) -> None:
    peer = await connect(proxy_hosts, max_in_flight=10)
    await asyncio.to_thread(proxy.hold_replies)
    before = proxy.requests.frames
    futures: list[Any] = [peer.call(Sync()) for _ in range(50)]
    await asyncio.to_thread(proxy.wait_for, lambda p: p.requests.frames >= before + 10)
    statistics = peer.connection.statistics()
    assert (statistics.in_flight, statistics.queued) == (10, 40)
    await asyncio.to_thread(proxy.heal)
    assert await settled(futures) == [None] * 50
    assert proxy.requests.frames == before + 50


async def test_cancelled_requests_make_room_for_others(connect: Connect, proxy: Proxy, proxy_hosts: str) -> None:
    """S6: callers that have gone do not fill the queue."""
    peer = await connect(proxy_hosts, max_in_flight=1, max_queued=10)
    await asyncio.to_thread(proxy.hold_replies)
    first: list[Any] = [peer.call(Sync()) for _ in range(11)]
    await asyncio.sleep(0)
    assert peer.connection.statistics().queued == 10
    for future in first[1:]:
        future.cancel()
    late = peer.call(Delete("/nothing"))
    assert peer.connection.statistics().queued == 1
    await asyncio.to_thread(proxy.heal)
    with pytest.raises(errors.NoNode):
        await late


async def test_what_waits_is_bounded_in_bytes_too(connect: Connect, proxy: Proxy, proxy_hosts: str) -> None:
    peer = await connect(proxy_hosts, max_in_flight=1, max_queued_bytes=1_000_000)
    await asyncio.to_thread(proxy.hold_replies)
    futures: list[Any] = [peer.call(Create(f"/n{number}", bytes(200_000))) for number in range(10)]
    await asyncio.sleep(0)
    refused = [future for future in futures if future.done()]
    assert {type(future.exception()) for future in refused} == {errors.Quota}
    assert {future.exception().metadata["limit"] for future in refused} == {"max_queued_size"}
    assert 3 <= len(refused) <= 5
    await asyncio.to_thread(proxy.heal)
    assert set(await settled([future for future in futures if future not in refused])) == {None}


async def test_the_largest_request_that_zookeeper_takes_is_sent(connect: Connect, hosts: str) -> None:
    peer = await connect(hosts)
    await peer.do(Create("/a"))
    chroot_bytes = len(hosts[hosts.index("/") :])
    overhead_bytes = 8 + 4 + len("/a") + chroot_bytes + 4 + 4  # header, path, length of the data, version
    largest = (1 << 20) - 1 - overhead_bytes
    with pytest.raises(errors.TooLarge):
        await peer.do(SetData("/a", bytes(largest + 1)))
    stat = await peer.do(SetData("/a", bytes(largest)))
    assert stat.data_length == largest
    record: bytes = await peer.do(GetData("/a"))
    assert len(record) == largest + 68
    assert not peer.all("suspended")


async def test_a_listing_larger_than_the_limit_fails_alone(connect: Connect, hosts: str) -> None:
    """O1"""
    peer = await connect(hosts, max_reply_bytes=50_000)
    with pytest.raises(errors.OutcomeUnknown):  # done, but what it did cannot be told
        await peer.do(Transaction(tuple(Create(f"/{number:0100}") for number in range(1000))))
    with pytest.raises(errors.TooLarge):
        await peer.do(GetChildren("/"))
    await peer.do(GetData("/"))
    assert not peer.all("suspended")


# --- thousands of nodes


async def test_a_thousand_nodes_are_read_at_once(connect: Connect, hosts: str) -> None:
    peer = await connect(hosts)
    paths = [f"/n{number}" for number in range(1000)]
    await peer.do(Transaction(tuple(Create(path, path.encode()) for path in paths)))
    records = await peer.do(ReadMany(tuple(map(GetData, paths))))
    assert [record[:-68].decode() for record in records if isinstance(record, bytes)] == paths


# --- the life of the session


async def test_a_hung_server_is_noticed_and_the_session_goes_on(
    connect: Connect, own_zookeeper: ZooKeeperServer
) -> None:
    """S3, S7: nothing asked, so only pings tell."""
    peer = await connect(own_zookeeper.hosts, session_timeout_s=1.5)
    own_zookeeper.pause()
    began = time.monotonic()
    await peer.wait_for("suspended")
    assert time.monotonic() - began <= 1.0 + 0.3
    own_zookeeper.resume()
    await peer.wait_for("connected", 2)
    assert peer.all("connected")[1].ticket.session_id == peer.ticket.session_id


async def test_a_stalled_event_loop_is_not_taken_for_a_dead_server(connect: Connect, hosts: str) -> None:
    """The answers lie in the socket; two thirds of the timeout pass before anybody reads them."""
    peer = await connect(hosts, session_timeout_s=1.5)
    future = peer.call(Sync())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    time.sleep(1.1)  # noqa: ASYNC251
    await future
    await peer.do(Sync())
    assert not peer.all("suspended")


async def test_a_restarted_server_gets_its_session_back(connect: Connect, own_zookeeper: ZooKeeperServer) -> None:
    """S7"""
    peer = await connect(own_zookeeper.hosts, session_timeout_s=20.0)
    await peer.do(Create("/e", mode=CreateMode.EPHEMERAL))
    await asyncio.to_thread(own_zookeeper.restart)
    again = await peer.wait_for("connected", 2)
    assert again.resumed
    stat = await peer.do(Exists("/e"))
    assert stat is not None
    assert stat.ephemeral_owner == again.ticket.session_id


async def test_names_are_resolved_again_for_every_attempt(connect: Connect, zookeeper: ZooKeeperServer) -> None:
    """S7: a DNS change, with the server's old address dead."""
    answers = [["127.0.0.2"], [], ["127.0.0.3", "127.0.0.1"]]
    asked: list[str] = []

    def lookup(name: str, port: int) -> list[str]:
        asked.append(name)
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        if not addresses:
            raise OSError("no such host")
        return addresses

    peer = await connect(f"zookeeper.invalid:{zookeeper.port}", lookup=lookup)
    assert asked == ["zookeeper.invalid"] * 3
    assert peer.all("connected")[0].server == f"zookeeper.invalid:{zookeeper.port}"


async def test_servers_that_refuse_are_passed_over(connect: Connect, zookeeper: ZooKeeperServer) -> None:
    dead = ",".join(f"127.0.0.1:{free_port()}" for _ in range(3))
    peer = await connect(f"{dead},{zookeeper.hosts}")
    assert peer.all("connected")[0].server == zookeeper.hosts


async def test_abandoning_or_closing_before_anything_is_connected_is_quiet(connect: Connect) -> None:
    dead = f"127.0.0.1:{free_port()}"
    abandoned = await connect(dead, connected=False)
    abandoned.connection.abandon()
    closed = await connect(dead, connected=False)
    await closed.connection.close(within_s=5)
    assert (abandoned.log, closed.log) == ([], [("ended", Ending.CLOSED)])
    for peer in (abandoned, closed):
        with pytest.raises(errors.SessionLost):
            await peer.do(Sync())


@pytest.mark.slow
async def test_a_rolling_restart_keeps_the_session(ensemble: Ensemble, connect: Connect) -> None:
    """S7: the server that has us is killed three times over."""
    peer = await connect(ensemble.hosts, session_timeout_s=20.0)
    await peer.do(Create("/e", mode=CreateMode.EPHEMERAL))
    for _ in range(3):
        server = peer.all("connected")[-1].server
        count = len(peer.all("connected"))
        victim = next(one for one in ensemble.servers if one.hosts == server)
        victim.kill()
        await peer.wait_for("connected", count + 1)
        await asyncio.to_thread(victim.start)
    stat = await peer.do(Exists("/e"))
    assert stat is not None
    assert stat.ephemeral_owner == peer.ticket.session_id


# --- read-only servers


@pytest.fixture
def lone_member(zookeeper_installation: Installation) -> Any:
    """An ensemble of which one server runs, and serves reads."""
    ensemble = Ensemble(
        2,
        installation=zookeeper_installation,
        tick_ms=200,
        properties={"localSessionsEnabled": "true", "localSessionsUpgradingEnabled": "true"},
        jvm_flags=("-Dreadonlymode.enabled=true",),
    )
    ensemble.servers[0].launch()
    try:
        yield ensemble
    finally:
        ensemble.stop()


@pytest.mark.slow
async def test_a_read_only_server_will_do_until_a_writable_one_is_there(
    connect: Connect, lone_member: Ensemble
) -> None:
    peer = await connect(lone_member.hosts, read_only=True, session_timeout_s=4.0)
    assert peer.all("connected")[0].read_only
    assert await peer.do(Exists("/")) is not None
    with pytest.raises(errors.SessionSuspended):
        await peer.do(Create("/a"))
    assert Create("/a") not in peer.all("acknowledged")  # no proof of the leader's knowledge
    lone_member.servers[1].launch()
    # Its session was made by a server without an ensemble: it ends there.
    assert await peer.wait_for("ended") is Ending.EXPIRED
    again = await connect(lone_member.hosts, session_timeout_s=4.0)
    await again.do(Create("/a"))


@pytest.mark.slow
async def test_a_peer_that_wants_to_write_waits_for_a_writable_server(connect: Connect, lone_member: Ensemble) -> None:
    peer: Peer = await connect(lone_member.hosts, connected=False, session_timeout_s=4.0)
    reader = await connect(lone_member.servers[0].hosts, read_only=True)
    assert reader.all("connected")
    assert not peer.all("connected")
    lone_member.servers[1].launch()
    await peer.wait_for("connected")
    await peer.do(Create("/a"))
