"""Locks, read-write locks and semaphores, on real ZooKeeper."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from kazoo.client import KazooClient

from tests.parts.proxy import Proxy
from tests.rpc.host import PATIENCE_S, Fault, Host, Stubs, failure
from tests.rpc.test_hold import next_state, update
from tests.zk.scripted import THROTTLED, refusing
from zkside.cli.zookeeper import ZooKeeperServer
from zkside.errors import Denied
from zkside.pb.admin_pb2 import DrainRequest
from zkside.pb.election_pb2 import CampaignRequest
from zkside.pb.hold_pb2 import (
    HOLD_STATE_HELD,
    HOLD_STATE_JEOPARDY,
    HOLD_STATE_LOST,
    HOLD_STATE_RELEASED,
    HOLD_STATE_WAITING,
    HeartbeatRequest,
    HoldUpdate,
    ReleaseRequest,
)
from zkside.pb.lock_pb2 import (
    LOCK_LAYOUT_CURATOR_READ_WRITE,
    LOCK_LAYOUT_KAZOO,
    LOCK_MODE_SEMAPHORE,
    LOCK_MODE_SHARED,
    AcquireRequest,
    GetContendersRequest,
)
from zkside.pb.node_pb2 import Operation, SetRequest, SyncRequest, TransactRequest

SHARED: dict[str, Any] = {"mode": LOCK_MODE_SHARED}
NO_WAIT = Duration()
UNKNOWN: Any = 99


class Seeker:
    """One stream of Acquire, and what it heard last."""

    def __init__(self, client: Stubs, path: str = "/lock", **more: Any) -> None:
        self.client = client
        self.stream = client.lock.Acquire(AcquireRequest(path=path, **more))
        self.heard = HoldUpdate()

    async def until(self, state: int) -> HoldUpdate:
        while self.heard.state != state:
            self.heard = await update(self.stream)
        return self.heard

    async def held(self) -> HoldUpdate:
        return await self.until(HOLD_STATE_HELD)

    async def waiting(self) -> HoldUpdate:
        return await self.until(HOLD_STATE_WAITING)

    async def release(self) -> None:
        await self.client.hold.Release(ReleaseRequest(hold_id=self.heard.hold.hold_id))


async def hears_nothing(seeker: Seeker, *answered: Awaitable[Any]) -> None:
    """Nothing new for the seeker by the time that others were answered."""
    reading = asyncio.ensure_future(seeker.stream.read())
    for each in answered:
        await each
    done, _ = await asyncio.wait([reading], timeout=0.2)
    assert not done or (await reading).state == seeker.heard.state
    seeker.stream.cancel()
    await asyncio.gather(reading, return_exceptions=True)


@pytest.fixture
async def other_host(hosts: str, tmp_path_factory: pytest.TempPathFactory, short_path: Path) -> AsyncIterator[Host]:
    """A daemon of another host."""
    (short_path / "other").mkdir()
    async with Host(hosts, short_path / "other") as host:
        yield host


async def test_a_free_lock_is_held_at_once_and_its_node_is_curators(client: Stubs, stock_client: KazooClient) -> None:
    """H8: the name, the number and the data."""
    held = await Seeker(client, "/locks/a", owner="me").held()
    (name,) = stock_client.get_children("/locks/a")
    assert held.hold.path == f"/locks/a/{name}"
    assert held.reason == "GRANTED"
    assert re.fullmatch("_c_[0-9a-f-]{36}-lock-0000000000", name)
    data, stat = stock_client.get(held.hold.path)
    assert data == b"me"
    assert held.hold.fencing_token == stat.czxid


async def test_who_comes_first_is_served_first(client: Stubs, host: Host, other_host: Host) -> None:
    """H1, H2, H7: over two hosts, with growing tokens and positions that say how many are ahead."""
    async with other_host.stubs() as other:
        seekers = [Seeker(client)]
        await seekers[0].held()
        for number in range(1, 6):
            seekers.append(Seeker(other if number % 2 else client))
            assert (await seekers[-1].waiting()).position == number - 1
        tokens = []
        for ahead, behind in zip(seekers, [*seekers[1:], None], strict=True):
            tokens.append((await ahead.held()).hold.fencing_token)
            if behind is not None:
                assert behind.heard.state == HOLD_STATE_WAITING
            await ahead.release()
        assert tokens == sorted(set(tokens))


async def test_a_waiter_that_goes_wakes_nobody(client: Stubs, host: Host, stock_client: KazooClient) -> None:
    """H6, H7."""
    holder, middle, last = Seeker(client), None, None
    await holder.held()
    middle = Seeker(client)
    await middle.waiting()
    last = Seeker(client)
    assert (await last.waiting()).position == 1
    middle.stream.cancel()
    moved = await update(last.stream)
    assert (moved.state, moved.position) == (HOLD_STATE_WAITING, 0)
    assert len(stock_client.get_children("/lock")) == 2
    await holder.release()
    await last.held()


async def test_readers_share_and_writers_do_not_starve(client: Stubs) -> None:
    """H7: one group of readers is woken by the release of the writer ahead of it."""
    readers = [Seeker(client, **SHARED) for _ in range(3)]
    for reader in readers:
        await reader.held()
    writer = Seeker(client)
    await writer.waiting()
    late = [Seeker(client, **SHARED) for _ in range(3)]
    for reader in late:
        await reader.waiting()
    for reader in readers[:2]:
        await reader.release()
    await readers[2].release()
    await writer.held()
    assert all(reader.heard.state == HOLD_STATE_WAITING for reader in late)
    await writer.release()
    await asyncio.gather(*(reader.held() for reader in late))


async def test_a_semaphore_has_so_many_holders(client: Stubs, host: Host, stock_client: KazooClient) -> None:
    """H1 for semaphores: Curator's nodes, first come, first served."""
    semaphore: dict[str, Any] = {"mode": LOCK_MODE_SEMAPHORE, "permits": 2}
    seekers = [Seeker(client, "/s", **semaphore) for _ in range(2)]
    for seeker in seekers:
        await seeker.held()
    third = Seeker(client, "/s", **semaphore)
    await third.waiting()
    fourth = Seeker(client, "/s", **semaphore)
    await fourth.waiting()
    assert sorted(stock_client.get_children("/s")) == ["leases", "locks"]
    listed = (await client.lock.GetContenders(GetContendersRequest(path="/s", mode=LOCK_MODE_SEMAPHORE))).contenders
    assert [each.is_holder for each in listed] == [True, True, True, False, False]
    await seekers[1].release()
    token = (await third.held()).hold.fencing_token
    assert token > max(each.heard.hold.fencing_token for each in seekers)
    assert fourth.heard.state == HOLD_STATE_WAITING
    await third.release()
    await fourth.held()
    refused = Seeker(client, "/s", **semaphore, wait_timeout=NO_WAIT)
    assert (await refused.until(HOLD_STATE_RELEASED)).reason == "WAIT_TIMEOUT"
    await seekers[0].release()
    tried = Seeker(client, "/s", **semaphore, wait_timeout=NO_WAIT)
    await tried.held()
    for seeker in (fourth, tried):
        await seeker.release()
    await host.session.janitor.drained(PATIENCE_S)
    assert [stock_client.get_children(f"/s/{name}") for name in ("leases", "locks")] == [[], []]


async def test_a_try_gets_a_free_lock_and_leaves_nothing_at_a_taken_one(
    client: Stubs, stock_client: KazooClient
) -> None:
    """H6."""
    holder = Seeker(client, wait_timeout=NO_WAIT)
    await holder.held()
    late = Seeker(client, wait_timeout=NO_WAIT)
    last = await late.until(HOLD_STATE_RELEASED)
    assert last.reason == "WAIT_TIMEOUT"
    assert await late.stream.read() is grpc.aio.EOF
    assert len(stock_client.get_children("/lock")) == 1
    patient = Seeker(client, wait_timeout=Duration(nanos=300_000_000))
    assert (await patient.until(HOLD_STATE_RELEASED)).reason == "WAIT_TIMEOUT"
    assert len(stock_client.get_children("/lock")) == 1


async def test_whatever_the_moment_a_cancelled_seeker_leaves_no_node(
    client: Stubs, host: Host, stock_client: KazooClient
) -> None:
    """H6."""
    holder = Seeker(client)
    await holder.held()
    semaphore: dict[str, Any] = {"mode": LOCK_MODE_SEMAPHORE, "permits": 1}
    for number in range(60):
        seeker = Seeker(client, **(semaphore if number % 2 else {}), path="/s" if number % 2 else "/lock")
        reading = asyncio.ensure_future(seeker.stream.read())
        await asyncio.wait([reading], timeout=number * 0.0003)
        seeker.stream.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    holder.stream.cancel()
    await asyncio.wait_for(host.rpc.streams.wait_ended(infrastructure=False), PATIENCE_S)
    # A last create may still be on its way to ZooKeeper: it goes before this sync.
    await client.node.Sync(SyncRequest())
    assert await host.session.janitor.drained(PATIENCE_S)
    assert len(host.holds) == 0
    assert [children(stock_client, path) for path in ("/lock", "/s/locks", "/s/leases")] == [[], [], []]


def children(stock_client: KazooClient, path: str) -> list[str]:
    found: list[str] = stock_client.get_children(path) if stock_client.exists(path) else []
    return found


async def test_a_waiter_whose_node_somebody_deletes_is_told_so_when_its_turn_comes(
    client: Stubs, stock_client: KazooClient
) -> None:
    """H1: it is not granted what it has no node for."""
    holder = Seeker(client)
    await holder.held()
    waiter = Seeker(client)
    await waiter.waiting()
    (node,) = {f"/lock/{name}" for name in stock_client.get_children("/lock")} - {holder.heard.hold.path}
    stock_client.delete(node)
    await holder.release()
    last = await waiter.until(HOLD_STATE_LOST)
    assert last.reason == "NODE_DELETED"


async def test_a_waiter_goes_on_through_a_lost_connection(
    shaky_client: Stubs, shaky_host: Host, proxy: Proxy, stock_client: KazooClient
) -> None:
    """H5: the holder hears JEOPARDY and HELD again, the waiter keeps its place."""
    holder = Seeker(shaky_client)
    await holder.held()
    waiter = Seeker(shaky_client)
    await waiter.waiting()
    before = sorted(stock_client.get_children("/lock"))
    proxy.cut()
    await holder.until(HOLD_STATE_JEOPARDY)
    await holder.held()
    assert sorted(stock_client.get_children("/lock")) == before
    await holder.release()
    await waiter.held()


async def test_a_waiter_queues_again_in_a_new_session(
    shaky_client: Stubs, shaky_host: Host, proxy: Proxy, other_host: Host
) -> None:
    """S4: the holder has lost, the waiter waits on, behind whoever came meanwhile."""
    async with other_host.stubs() as other:
        holder = Seeker(shaky_client)
        first = (await holder.held()).hold
        waiter = Seeker(shaky_client)
        await waiter.waiting()
        proxy.refuse()
        proxy.cut()
        assert (await holder.until(HOLD_STATE_LOST)).reason == "SESSION_LOST"
        meanwhile = Seeker(other)
        await meanwhile.held()
        proxy.accept()
        await shaky_host.session.wait_connected()
        await meanwhile.release()
        again = (await waiter.held()).hold
        assert again.epoch > first.epoch
        assert again.fencing_token > meanwhile.heard.hold.fencing_token > first.fencing_token


async def test_a_transaction_is_guarded_by_a_lock(client: Stubs, stock_client: KazooClient) -> None:
    """H3."""
    stock_client.create("/data", b"")
    holder = Seeker(client)
    held = await holder.held()
    guarded = TransactRequest(
        operations=[Operation(set=SetRequest(path="/data", data=b"mine"))], guard_hold_id=held.hold.hold_id
    )
    assert (await client.node.Transact(guarded)).committed
    stock_client.delete(held.hold.path)
    refused = await failure(client.node.Transact(guarded))
    assert refused.reason == "HOLD_LOST"


async def test_a_revocable_lock_tells_its_holder(client: Stubs, stock_client: KazooClient) -> None:
    """H8: as Curator's Revoker asks."""
    holder, stubborn = Seeker(client, "/r", revocable=True), Seeker(client, "/s")
    held = await holder.held()
    stock_client.set((await stubborn.held()).hold.path, b"__REVOKE__")
    stock_client.set(held.hold.path, b"__REVOKE__")
    asked = await update(holder.stream)
    while asked.reason == "GRANTED":
        asked = await update(holder.stream)
    assert (asked.state, asked.reason) == (HOLD_STATE_HELD, "REVOKE_REQUESTED")
    assert stubborn.heard.reason == "GRANTED"


async def test_a_missed_heartbeat_ends_the_lease_before_it_ends_the_lock(client: Stubs) -> None:
    """H1, H4: nobody believes longer than the heartbeat allows."""
    beating: dict[str, Any] = {"heartbeat_timeout": Duration(nanos=600_000_000)}
    holder = Seeker(client, **beating)
    held = await holder.held()
    waiter = Seeker(client, **beating)
    await waiter.waiting()
    answer = await client.hold.Heartbeat(HeartbeatRequest(hold_id=held.hold.hold_id))
    assert answer.due_in.ToTimedelta().total_seconds() == pytest.approx(0.6)
    moved = await update(holder.stream)
    assert moved.hold.lease_boottime_ns > held.hold.lease_boottime_ns
    leases = [moved.hold.lease_boottime_ns]
    while (heard := await update(holder.stream)).state == HOLD_STATE_HELD:
        leases.append(heard.hold.lease_boottime_ns)
    assert (heard.state, heard.reason) == (HOLD_STATE_LOST, "HEARTBEAT_MISSED")
    granted = await waiter.held()
    # The waiter's own first heartbeat is due 0.6 s after its grant: it was granted no earlier than the lease ended.
    assert granted.hold.lease_boottime_ns - 600_000_000 >= max(leases)


async def test_a_drain_asks_for_exclusive_holds_back_before_it_takes_them(client: Stubs, other_host: Host) -> None:
    """H1: the owner hears that its lease is over before anybody else can be granted."""
    async with other_host.stubs() as other:
        holder = Seeker(client)
        held = await holder.held()
        waiter = Seeker(other)
        await waiter.waiting()
        draining = asyncio.ensure_future(client.admin.Drain(DrainRequest()))
        asked = await next_state(holder.stream, HOLD_STATE_HELD)
        assert (asked.state, asked.reason, asked.hold.lease_boottime_ns) == (HOLD_STATE_JEOPARDY, "DRAINED", 0)
        assert waiter.heard.state == HOLD_STATE_WAITING
        await client.hold.Release(ReleaseRequest(hold_id=held.hold.hold_id))
        await waiter.held()
        last = await next_state(holder.stream, HOLD_STATE_JEOPARDY)
        assert (last.state, last.reason) == (HOLD_STATE_RELEASED, "RELEASED")
        await draining


async def test_contenders_are_listed_in_order_with_their_owners(client: Stubs, host: Host) -> None:
    absent = await client.lock.GetContenders(GetContendersRequest(path="/lock"))
    assert list(absent.contenders) == []
    holder = Seeker(client, owner="a")
    await holder.held()
    waiter = Seeker(client, value=b"b", **SHARED)
    await waiter.waiting()
    listed = (await client.lock.GetContenders(GetContendersRequest(path="/lock"))).contenders
    assert [(each.value, each.is_holder, each.is_shared) for each in listed] == [
        (b"a", True, False),
        (b"b", False, True),
    ]
    assert listed[0].fencing_token == holder.heard.hold.fencing_token
    assert listed[0].session_id == f"{host.session.status.session_id:#x}"


async def test_a_path_in_use_with_another_layout_is_refused(
    client: Stubs, host: Host, stock_client: KazooClient
) -> None:
    """H8: what cannot wait for each other is not mixed."""
    await Seeker(client, "/a").held()
    for layout in (LOCK_LAYOUT_KAZOO, LOCK_LAYOUT_CURATOR_READ_WRITE):
        refused = await failure(Seeker(client, "/a", layout=layout).stream)
        assert (refused.reason, refused.fields) == ("INVALID_ARGUMENT", ("layout",))
    assert await host.session.janitor.drained(PATIENCE_S)
    assert len(stock_client.get_children("/a")) == 1


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (AcquireRequest(path="lock"), "path"),
        (AcquireRequest(path="/l", mode=UNKNOWN), "mode"),
        (AcquireRequest(path="/l", layout=UNKNOWN), "layout"),
        (AcquireRequest(path="/l", permits=2), "permits"),
        (AcquireRequest(path="/l", mode=LOCK_MODE_SEMAPHORE), "permits"),
        (AcquireRequest(path="/l", mode=LOCK_MODE_SEMAPHORE, permits=1, layout=LOCK_LAYOUT_KAZOO), "mode"),
        (AcquireRequest(path="/l", mode=LOCK_MODE_SEMAPHORE, permits=1, revocable=True), "revocable"),
        (AcquireRequest(path="/l", wait_timeout=Duration(seconds=-1)), "wait_timeout"),
        (AcquireRequest(path="/l", heartbeat_timeout=NO_WAIT), "heartbeat_timeout"),
    ],
)
async def test_a_request_that_makes_no_sense_names_its_field(
    client: Stubs, request_: AcquireRequest, field: str
) -> None:
    """O1."""
    refused: Fault = await failure(client.lock.Acquire(request_))
    assert refused.fields == (field,)


async def test_a_token_of_another_recipe_takes_nothing_up(client: Stubs) -> None:
    held = await Seeker(client, reconnect_grace=Duration(seconds=5)).held()
    token = held.hold.resume_token
    refused = await failure(client.election.Campaign(CampaignRequest(path="/lock", resume_token=token)))
    assert refused.reason == "HOLD_LOST"
    again = Seeker(client, resume_token=token)
    assert (await again.held()).hold.fencing_token == held.hold.fencing_token


async def test_a_stream_that_the_daemon_ends_does_not_hand_on_what_its_owner_may_believe_in(
    client: Stubs, host: Host, other_host: Host
) -> None:
    """H1: its owner may hear of the end late, and until then goes by the lease that it was told."""
    holder = Seeker(client)
    told = await holder.held()
    async with other_host.stubs() as other:
        waiter = Seeker(other)
        await waiter.waiting()
        host.rpc.streams.end_all(Denied("not any more"), infrastructure=False)
        assert (await failure(holder.stream)).reason == "POLICY_DENIED"
        await waiter.held()
        assert time.clock_gettime_ns(time.CLOCK_BOOTTIME) >= told.hold.lease_boottime_ns


async def test_who_waits_outlasts_a_zookeeper_that_throttles(
    zookeeper: ZooKeeperServer, chroot: str, short_path: Path
) -> None:
    """V1: its listing and its looks are made again, and it keeps its place."""
    exists, get_children = 3, 12
    left: dict[int, int] = {}
    async with (
        refusing(zookeeper.port, left, THROTTLED) as through,
        Host(through + chroot, short_path) as host,
        host.stubs() as one,
        host.stubs() as other,
    ):
        first = Seeker(one)
        await first.held()
        left |= {exists: 2, get_children: 2}
        second = Seeker(other)
        await second.waiting()
        left |= {exists: 2, get_children: 2}
        await first.release()
        await second.held()
        second.stream.cancel()
