"""Holds: what a process owns through its stream, on real ZooKeeper."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from kazoo.client import KazooClient

from tests.parts.proxy import Proxy
from tests.rpc.host import PATIENCE_S, TIMEOUT_S, Host, Stubs, failure
from zkside.errors import HoldLost
from zkside.model.operation import SetData
from zkside.pb import admin_pb2, hold_pb2, node_pb2
from zkside.pb.hold_pb2 import (
    HOLD_STATE_HELD,
    HOLD_STATE_JEOPARDY,
    HOLD_STATE_LOST,
    HOLD_STATE_RELEASED,
    HeartbeatRequest,
    HoldUpdate,
    ReleaseRequest,
)
from zkside.pb.node_pb2 import HoldEphemeralRequest, Operation, SetRequest, TransactRequest
from zkside.recipes.holds import LEASE_STEP, HoldSettings
from zkside.recipes.node import Writes
from zkside.rpc.streams import QuotaSettings
from zkside.zk.journal import Journal

GRACE = Duration(seconds=10)


async def update(stream: Any) -> HoldUpdate:
    """The next one that says something new (not only that the lease moved)."""
    async with asyncio.timeout(PATIENCE_S):
        heard: HoldUpdate = await stream.read()
        return heard


async def next_state(stream: Any, before: int) -> HoldUpdate:
    while (heard := await update(stream)).state == before:
        pass
    return heard


@asynccontextmanager
async def gone(client: KazooClient, path: str) -> AsyncIterator[None]:
    """The body ends with this node gone from ZooKeeper, told by its watch."""
    loop, seen = asyncio.get_running_loop(), asyncio.Event()
    there = client.exists(path, watch=lambda event: loop.call_soon_threadsafe(seen.set))
    assert there is not None
    yield
    await asyncio.wait_for(seen.wait(), PATIENCE_S)
    assert client.exists(path) is None


async def test_a_hold_begins_with_held_and_ends_with_released(
    client: Stubs, host: Host, stock_client: KazooClient
) -> None:
    """H2, H5."""
    stream = client.node.HoldEphemeral(HoldEphemeralRequest(path="/h", data=b"me"))
    held = await update(stream)
    stat = stock_client.get("/h")[1]
    assert (held.state, held.reason, held.hold.path) == (HOLD_STATE_HELD, "CREATED", "/h")
    assert held.hold.fencing_token == stat.czxid
    assert stat.ephemeralOwner == host.session.status.session_id
    now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert now_ns < held.hold.lease_boottime_ns < now_ns + TIMEOUT_S * 1e9
    assert abs((held.hold.lease_monotonic_ns - time.monotonic_ns()) - (held.hold.lease_boottime_ns - now_ns)) < 1e9
    answer = await client.hold.Release(ReleaseRequest(hold_id=held.hold.hold_id))
    assert answer.released
    assert stock_client.exists("/h") is None
    last = await next_state(stream, HOLD_STATE_HELD)
    assert (last.state, last.reason) == (HOLD_STATE_RELEASED, "RELEASED")
    assert await stream.read() is grpc.aio.EOF
    assert not (await client.hold.Release(ReleaseRequest(hold_id=held.hold.hold_id))).released


async def test_a_cancelled_stream_lets_go_at_once(client: Stubs, stock_client: KazooClient) -> None:
    """H6."""
    stream = client.node.HoldEphemeral(HoldEphemeralRequest(path="/h"))
    await update(stream)
    async with gone(stock_client, "/h"):
        stream.cancel()


async def test_a_stream_that_is_cancelled_while_its_node_is_made_leaves_none(
    client: Stubs, host: Host, stock_client: KazooClient
) -> None:
    """H6: whatever the moment."""
    for number in range(40):
        stream = client.node.HoldEphemeral(HoldEphemeralRequest(path=f"/h{number}"))
        reading = asyncio.ensure_future(stream.read())
        await asyncio.wait([reading], timeout=number * 0.0002)
        stream.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    await asyncio.wait_for(host.rpc.streams.wait_ended(infrastructure=False), PATIENCE_S)
    # A last create may still be on its way to ZooKeeper: it goes before this sync.
    await client.node.Sync(node_pb2.SyncRequest())
    assert await host.session.janitor.drained(PATIENCE_S)
    assert stock_client.get_children("/") == []
    assert len(host.holds) == 0


CLIENT_PROGRAM = """
import sys, grpc
from zkside.pb import node_pb2, node_pb2_grpc
channel = grpc.insecure_channel(sys.argv[1])
for update in node_pb2_grpc.NodeServiceStub(channel).HoldEphemeral(
    node_pb2.HoldEphemeralRequest(path=sys.argv[2])
):
    print(update.state, flush=True)
"""


@asynccontextmanager
async def holding_process(address: str, path: str) -> AsyncIterator[subprocess.Popen[str]]:
    """Another process that holds a node."""
    process = subprocess.Popen([sys.executable, "-c", CLIENT_PROGRAM, address, path], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert int(await asyncio.to_thread(process.stdout.readline)) == HOLD_STATE_HELD
        yield process
    finally:
        process.kill()
        process.wait()


async def test_a_killed_process_loses_its_hold_in_milliseconds(
    host: Host, stock_client: KazooClient, record_property: Any
) -> None:
    """H4."""
    took_s = []
    for number in range(10):
        async with holding_process(host.address, f"/k{number}") as process, gone(stock_client, f"/k{number}"):
            process.kill()
            began = time.perf_counter()
        took_s.append(time.perf_counter() - began)
    record_property("killed_to_gone_ms", [round(each * 1000, 1) for each in sorted(took_s)])
    assert sorted(took_s)[5] < 0.2


async def test_a_stopped_process_is_found_by_pings_and_loses_its_hold(host: Host, stock_client: KazooClient) -> None:
    """H4: SERVER_OPTIONS say 2 s of silence and 2 s for the answer."""
    async with holding_process(host.address, "/stopped") as process:
        began = time.perf_counter()
        async with gone(stock_client, "/stopped"):
            os.kill(process.pid, signal.SIGSTOP)
        assert time.perf_counter() - began < 10


async def test_jeopardy_and_held_again_are_pushed(shaky_client: Stubs, proxy: Proxy, stock_client: KazooClient) -> None:
    """H5, S2."""
    stream = shaky_client.node.HoldEphemeral(HoldEphemeralRequest(path="/h"))
    held = await update(stream)
    proxy.refuse()
    proxy.cut()
    jeopardy = await next_state(stream, HOLD_STATE_HELD)
    assert (jeopardy.state, jeopardy.reason) == (HOLD_STATE_JEOPARDY, "CONNECTION_LOST")
    assert jeopardy.hold.lease_boottime_ns > time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    proxy.accept()
    again = await next_state(stream, HOLD_STATE_JEOPARDY)
    assert (again.state, again.reason) == (HOLD_STATE_HELD, "RESUMED")
    assert again.hold.fencing_token == held.hold.fencing_token == stock_client.exists("/h").czxid


async def test_lost_is_pushed_by_the_local_clock_while_zookeeper_cannot_be_reached(
    shaky_client: Stubs, proxy: Proxy
) -> None:
    """H5, S3."""
    stream = shaky_client.node.HoldEphemeral(HoldEphemeralRequest(path="/h"))
    await update(stream)
    proxy.refuse()
    proxy.cut()
    jeopardy = await next_state(stream, HOLD_STATE_HELD)
    lost = await next_state(stream, HOLD_STATE_JEOPARDY)
    late_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - jeopardy.hold.lease_boottime_ns
    assert (lost.state, lost.reason) == (HOLD_STATE_LOST, "SESSION_LOST")
    assert late_ns < 0.5e9
    assert await stream.read() is grpc.aio.EOF
    fault = await failure(shaky_client.hold.GetHold(hold_pb2.GetHoldRequest(hold_id=lost.hold.hold_id)))
    assert (fault.code, fault.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "HOLD_LOST")


async def test_a_hold_is_made_again_in_the_next_epoch_if_asked(
    shaky_client: Stubs, proxy: Proxy, stock_client: KazooClient
) -> None:
    """S4, H2."""
    stream = shaky_client.node.HoldEphemeral(HoldEphemeralRequest(path="/h", recreate=True))
    held = await update(stream)
    proxy.refuse()
    proxy.cut()
    jeopardy = await next_state(stream, HOLD_STATE_HELD)
    lost = await next_state(stream, jeopardy.state)
    assert (lost.state, lost.reason) == (HOLD_STATE_LOST, "SESSION_LOST")
    proxy.accept()
    again = await update(stream)
    assert (again.state, again.reason) == (HOLD_STATE_HELD, "CREATED")
    assert again.hold.hold_id != held.hold.hold_id
    assert again.hold.epoch == held.hold.epoch + 1
    assert again.hold.fencing_token > held.hold.fencing_token
    assert stock_client.exists("/h").czxid == again.hold.fencing_token


async def test_a_node_that_somebody_else_deletes_is_a_lost_hold(client: Stubs, stock_client: KazooClient) -> None:
    """H5."""
    stream = client.node.HoldEphemeral(HoldEphemeralRequest(path="/h"))
    await update(stream)
    stock_client.delete("/h")
    lost = await next_state(stream, HOLD_STATE_HELD)
    assert (lost.state, lost.reason) == (HOLD_STATE_LOST, "NODE_DELETED")
    assert await stream.read() is grpc.aio.EOF


async def test_a_hold_survives_its_stream_and_is_taken_up_with_its_token(
    host: Host, client: Stubs, stock_client: KazooClient
) -> None:
    request = HoldEphemeralRequest(path="/h-", sequential=True, reconnect_grace=GRACE)
    async with host.stubs() as first:
        held = await update(first.node.HoldEphemeral(request))
    while (await client.admin.ListHolds(admin_pb2.ListHoldsRequest())).holds[0].attached:
        pass
    request.resume_token = held.hold.resume_token
    stream = client.node.HoldEphemeral(request)
    again = await update(stream)
    assert (again.state, again.reason) == (HOLD_STATE_HELD, "RESUMED")
    assert (again.hold.path, again.hold.hold_id) == (held.hold.path, held.hold.hold_id)
    assert stock_client.exists(again.hold.path).czxid == held.hold.fencing_token
    # A third stream takes it from the second, which hears so.
    third = client.node.HoldEphemeral(request)
    assert (await update(third)).state == HOLD_STATE_HELD
    taken = await next_state(stream, HOLD_STATE_HELD)
    assert (taken.state, taken.reason) == (HOLD_STATE_LOST, "TAKEN_OVER")
    assert stock_client.exists(again.hold.path) is not None
    wrong = HoldEphemeralRequest(path="/other", resume_token=held.hold.resume_token)
    fault = await failure(client.node.HoldEphemeral(wrong))
    assert (fault.code, fault.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "HOLD_LOST")


async def test_a_hold_goes_when_its_grace_has_passed(host: Host, stock_client: KazooClient) -> None:
    request = HoldEphemeralRequest(path="/h", reconnect_grace=Duration(nanos=300_000_000))
    client = host.stubs()
    await update(client.node.HoldEphemeral(request))
    async with gone(stock_client, "/h"):
        began = time.perf_counter()
        await client.channel.close()
    assert time.perf_counter() - began > 0.25


async def test_release_lets_go_at_once_in_spite_of_the_grace(client: Stubs, stock_client: KazooClient) -> None:
    stream = client.node.HoldEphemeral(HoldEphemeralRequest(path="/h", reconnect_grace=GRACE))
    held = await update(stream)
    await client.hold.Release(ReleaseRequest(hold_id=held.hold.hold_id))
    assert stock_client.exists("/h") is None


async def test_an_application_that_stops_its_heartbeats_loses_its_hold(
    client: Stubs, stock_client: KazooClient
) -> None:
    """H4: its runtime still answers pings."""
    request = HoldEphemeralRequest(path="/h", heartbeat_timeout=Duration(nanos=400_000_000))
    stream = client.node.HoldEphemeral(request)
    held = await update(stream)
    began = time.perf_counter()
    for _ in range(10):
        answer = await client.hold.Heartbeat(HeartbeatRequest(hold_id=held.hold.hold_id))
        assert answer.due_in.ToMilliseconds() == 400
        await asyncio.sleep(0.1)  # the application's own pace
    async with gone(stock_client, "/h"):
        lost = await next_state(stream, HOLD_STATE_HELD)
    assert (lost.state, lost.reason) == (HOLD_STATE_LOST, "HEARTBEAT_MISSED")
    assert time.perf_counter() - began > 1.2
    fault = await failure(client.hold.Heartbeat(HeartbeatRequest(hold_id=held.hold.hold_id)))
    assert fault.reason == "HOLD_LOST"


async def test_the_lease_moves_forward_on_the_stream_at_a_modest_rate(client: Stubs) -> None:
    stream = client.node.HoldEphemeral(HoldEphemeralRequest(path="/h"))
    leases = [(await update(stream)).hold.lease_boottime_ns for _ in range(4)]
    steps = [later - earlier for earlier, later in itertools.pairwise(leases)]
    step_ns = TIMEOUT_S * 1e9 / LEASE_STEP
    assert all(step >= 0.75 * step_ns for step in steps)
    # The first may come within a round; from then on they are a step apart.
    assert sum(steps) >= (0.75 + 0.9 + 0.9) * step_ns


async def test_a_guarded_transaction_commits_only_while_the_hold_is_there(
    client: Stubs, stock_client: KazooClient
) -> None:
    """H3."""
    stock_client.create("/guarded", b"0")
    stream = client.node.HoldEphemeral(HoldEphemeralRequest(path="/h"))
    held = await update(stream)
    request = TransactRequest(
        operations=[Operation(set=SetRequest(path="/guarded", data=b"1"))], guard_hold_id=held.hold.hold_id
    )
    answer = await client.node.Transact(request)
    assert (answer.committed, len(answer.results)) == (True, 1)
    # Refused by ZooKeeper itself, however soon after the deletion.
    request.operations[0].set.data = b"2"
    stock_client.delete("/h")
    fault = await failure(client.node.Transact(request))
    assert (fault.code, fault.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "HOLD_LOST")
    assert stock_client.get("/guarded")[0] == b"1"


async def test_a_guard_that_somebody_made_anew_is_found_out(host: Host, stock_client: KazooClient) -> None:
    """H3: the case that ZooKeeper's check cannot refuse is at least never silent."""
    stock_client.create("/guarded", b"0")
    stock_client.create("/h", b"not the hold's")
    ours = stock_client.exists("/h").czxid - 1
    with pytest.raises(HoldLost) as caught:
        await Writes(host.session).transact_guarded("/h", ours, [SetData("/guarded", b"1")])
    assert caught.value.metadata["committed"] == "true"


async def test_a_guard_that_is_unknown_is_refused(client: Stubs) -> None:
    """H3."""
    request = TransactRequest(operations=[Operation(set=SetRequest(path="/"))], guard_hold_id="none")
    assert (await failure(client.node.Transact(request))).reason == "HOLD_LOST"


async def test_too_many_holds_are_refused(hosts: str, short_path: Path) -> None:
    async with Host(hosts, short_path, hold_settings=HoldSettings(max_holds=2)) as host, host.stubs() as client:
        streams = [client.node.HoldEphemeral(HoldEphemeralRequest(path=f"/h{n}")) for n in range(2)]
        for stream in streams:
            await update(stream)
        fault = await failure(client.node.HoldEphemeral(HoldEphemeralRequest(path="/one-more")))
        assert (fault.code, fault.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA")


async def test_a_node_that_is_there_is_not_held(client: Stubs, host: Host, stock_client: KazooClient) -> None:
    stock_client.create("/h")
    fault = await failure(client.node.HoldEphemeral(HoldEphemeralRequest(path="/h")))
    assert (fault.code, fault.reason) == (grpc.StatusCode.ALREADY_EXISTS, "NODE_EXISTS")
    assert len(host.holds) == 0


async def test_a_hold_survives_a_restart_of_the_daemon(hosts: str, short_path: Path, stock_client: KazooClient) -> None:
    """S5."""
    request = HoldEphemeralRequest(path="/h", reconnect_grace=GRACE)
    state_dir = short_path / "state"
    before = Host(hosts, short_path, journal=Journal.open(state_dir, hosts))
    await before.start()
    async with before.stubs() as client:
        stream = client.node.HoldEphemeral(request)
        held = await update(stream)
        owned = node_pb2.CreateRequest(path="/own", mode=node_pb2.CREATE_MODE_EPHEMERAL, daemon_lifetime=True)
        await client.node.Create(owned)
        await before.stop(keep=True)
        fault = await failure(stream)
        assert (fault.code, fault.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    async with Host(hosts, short_path, journal=Journal.open(state_dir, hosts)) as after, after.stubs() as client:
        listed = (await client.admin.ListHolds(admin_pb2.ListHoldsRequest())).holds
        assert [(each.hold.hold_id, each.attached) for each in listed] == [(held.hold.hold_id, False)]
        request.resume_token = held.hold.resume_token
        stream = client.node.HoldEphemeral(request)
        again = await update(stream)
        assert (again.state, again.hold.epoch) == (HOLD_STATE_HELD, held.hold.epoch)
        assert stock_client.exists("/h").czxid == again.hold.fencing_token == held.hold.fencing_token
        assert stock_client.exists("/own") is not None


async def test_a_hold_is_taken_up_with_a_lease_or_not_at_all(
    proxy: Proxy, proxy_hosts: str, short_path: Path, stock_client: KazooClient
) -> None:
    """S5: the owner comes back before the successor has reached ZooKeeper, and is not told to let go."""
    request = HoldEphemeralRequest(path="/h")
    state_dir = short_path / "state"
    before = Host(proxy_hosts, short_path, journal=Journal.open(state_dir, proxy_hosts))
    await before.start()
    async with before.stubs() as client:
        request.resume_token = (await update(client.node.HoldEphemeral(request))).hold.resume_token
        await before.stop(keep=True)
    proxy.refuse()
    after = Host(proxy_hosts, short_path, journal=Journal.open(state_dir, proxy_hosts), connect=False)
    async with after, after.stubs() as client:
        stream = client.node.HoldEphemeral(request)
        while not [hold for hold in after.holds.list() if hold.attached]:
            await client.admin.ListHolds(admin_pb2.ListHoldsRequest())
        proxy.accept()
        again = await update(stream)
        assert (again.state, again.reason) == (HOLD_STATE_HELD, "RESUMED")
        assert again.hold.lease_boottime_ns > time.clock_gettime_ns(time.CLOCK_BOOTTIME)


async def test_a_hold_that_nobody_reclaims_goes(hosts: str, short_path: Path, stock_client: KazooClient) -> None:
    """S5."""
    state_dir = short_path / "state"
    before = Host(hosts, short_path, journal=Journal.open(state_dir, hosts))
    await before.start()
    async with before.stubs() as client:
        await update(client.node.HoldEphemeral(HoldEphemeralRequest(path="/h")))
        await before.stop(keep=True)
    settings = HoldSettings(reclaim_grace_s=0.3)
    async with gone(stock_client, "/h"):
        after = Host(hosts, short_path, journal=Journal.open(state_dir, hosts), hold_settings=settings)
        await after.start()
    await after.stop()


async def test_quotas_of_streams_hold(hosts: str, short_path: Path) -> None:
    async with Host(hosts, short_path, quotas=QuotaSettings(max_streams=1)) as host, host.stubs() as client:
        stream = client.node.HoldEphemeral(HoldEphemeralRequest(path="/h"))
        await update(stream)
        fault = await failure(client.node.HoldEphemeral(HoldEphemeralRequest(path="/i")))
        assert (fault.code, fault.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA")
        assert fault.metadata["limit"] == "max_streams"
