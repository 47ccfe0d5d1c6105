"""Many holds over one stream, on real ZooKeeper."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from kazoo.client import KazooClient
from kazoo.security import make_acl

from tests.parts.eventually import until
from tests.parts.proxy import Proxy
from tests.rpc.host import PATIENCE_S, Host, Stubs, failure
from tests.rpc.test_hold import gone, next_state
from tests.rpc.test_lock import Seeker
from zkside.client import Client
from zkside.errors import Denied, NotSupported
from zkside.pb.admin_pb2 import DrainRequest
from zkside.pb.carry_pb2 import CarriedUpdate, CarryRelease, CarryRequest, CarryResponse, CarryStep
from zkside.pb.election_pb2 import CampaignRequest
from zkside.pb.group_pb2 import JoinRequest
from zkside.pb.hold_pb2 import (
    HOLD_STATE_HELD,
    HOLD_STATE_JEOPARDY,
    HOLD_STATE_LOST,
    HOLD_STATE_RELEASED,
    HOLD_STATE_WAITING,
    ReleaseRequest,
)
from zkside.pb.lock_pb2 import AcquireRequest
from zkside.pb.node_pb2 import HoldEphemeralRequest
from zkside.recipes.holds import HoldSettings
from zkside.rpc import carry
from zkside.rpc.carry import MAX_UNHEARD, MAX_UNTAKEN

GRACE = Duration(seconds=10)
RELEASE = CarryRelease()


class Carrier:
    """One stream of Carry; what it has heard waits by tag."""

    def __init__(self, client: Stubs) -> None:
        self.stream = client.carry.Carry()
        self._heard: dict[int, list[CarriedUpdate]] = {}

    async def ask(self, *steps: CarryStep) -> None:
        await self.stream.write(CarryRequest(steps=steps))

    async def acquire(self, tag: int, path: str = "/lock", **more: Any) -> None:
        await self.ask(CarryStep(tag=tag, acquire=AcquireRequest(path=path, **more)))

    async def release(self, tag: int) -> None:
        await self.ask(CarryStep(tag=tag, release=RELEASE))

    async def next(self, tag: int) -> CarriedUpdate:
        """The next one under this tag."""
        async with asyncio.timeout(PATIENCE_S):
            while not self._heard.get(tag):
                response = await self.stream.read()
                assert response is not grpc.aio.EOF
                assert response.header.epoch
                for told in response.updates:
                    self._heard.setdefault(told.tag, []).append(told)
        return self._heard[tag].pop(0)

    async def until(self, tag: int, state: int) -> CarriedUpdate:
        while (told := await self.next(tag)).update.state != state:
            assert not told.ended, told
        return told

    async def ended(self, tag: int) -> CarriedUpdate:
        while not (told := await self.next(tag)).ended:
            pass
        return told


async def test_every_kind_of_hold_begins_and_is_released_on_one_stream(
    client: Stubs, host: Host, stock_client: KazooClient
) -> None:
    """H2, H5: with the states and reasons that a stream of its own would tell."""
    carrier = Carrier(client)
    await carrier.ask(
        CarryStep(tag=1, acquire=AcquireRequest(path="/lock")),
        CarryStep(tag=2, campaign=CampaignRequest(path="/election", candidate_id="me")),
        CarryStep(tag=3, join=JoinRequest(path="/group", member_id="me")),
        CarryStep(tag=4, hold_ephemeral=HoldEphemeralRequest(path="/node")),
    )
    held = [await carrier.until(tag, HOLD_STATE_HELD) for tag in (1, 2, 3, 4)]
    assert [told.update.reason for told in held] == ["GRANTED", "GRANTED", "CREATED", "CREATED"]
    for told in held:
        stat = stock_client.exists(told.update.hold.path)
        assert told.update.hold.fencing_token == stat.czxid
        assert stat.ephemeralOwner == host.session.status.session_id
        assert told.update.hold.lease_boottime_ns
        assert told.update.hold.resume_token
        await carrier.release(told.tag)
        last = await carrier.ended(told.tag)
        assert (last.update.state, last.update.reason) == (HOLD_STATE_RELEASED, "RELEASED")
        assert stock_client.exists(told.update.hold.path) is None
    assert len(host.rpc.streams) == 1
    assert len(host.holds) == 0


async def test_a_tag_is_free_again_after_its_end(client: Stubs) -> None:
    """H2"""
    carrier = Carrier(client)
    tokens = []
    for _ in range(5):
        await carrier.acquire(1)
        tokens.append((await carrier.until(1, HOLD_STATE_HELD)).update.hold.fencing_token)
        await carrier.release(1)
        await carrier.ended(1)
    assert tokens == sorted(set(tokens))


async def test_holds_of_one_stream_wait_for_each_other_as_for_any(client: Stubs) -> None:
    """H7: first come, first served, whatever the stream."""
    carrier, other = Carrier(client), Seeker(client)
    await other.held()
    await carrier.ask(*(CarryStep(tag=tag, acquire=AcquireRequest(path="/lock")) for tag in (1, 2)))
    assert (await carrier.next(1)).update.state == HOLD_STATE_WAITING
    assert (await carrier.next(2)).update.position == 1
    await other.release()
    await carrier.until(1, HOLD_STATE_HELD)
    await carrier.release(1)
    await carrier.until(2, HOLD_STATE_HELD)


async def test_who_waits_can_let_go(client: Stubs, host: Host, stock_client: KazooClient) -> None:
    """H6"""
    carrier, holder = Carrier(client), Seeker(client)
    await holder.held()
    await carrier.acquire(1)
    await carrier.until(1, HOLD_STATE_WAITING)
    await carrier.release(1)
    assert (await carrier.ended(1)).update.state == HOLD_STATE_RELEASED
    assert await host.session.janitor.drained(PATIENCE_S)
    assert len(stock_client.get_children("/lock")) == 1


async def test_what_is_let_go_before_it_began_leaves_nothing(
    client: Stubs, host: Host, stock_client: KazooClient
) -> None:
    """H6: whatever the moment."""
    carrier = Carrier(client)
    for tag in range(1, 41):
        await carrier.acquire(tag, f"/lock{tag % 3}")
        await asyncio.sleep(tag * 0.0002)  # of all moments
        await carrier.release(tag)
    for tag in range(1, 41):
        assert (await carrier.ended(tag)).update.state == HOLD_STATE_RELEASED
    assert len(host.holds) == 0
    assert await host.session.janitor.drained(PATIENCE_S)
    assert [stock_client.get_children(f"/lock{number}") for number in range(3)] == [[], [], []]


async def test_an_error_ends_its_own_hold_only(client: Stubs, stock_client: KazooClient) -> None:
    stock_client.create("/there")
    carrier = Carrier(client)
    await carrier.ask(
        CarryStep(tag=1, acquire=AcquireRequest(path="/lock")),
        CarryStep(tag=2, hold_ephemeral=HoldEphemeralRequest(path="/there")),
        CarryStep(tag=3, acquire=AcquireRequest(path="no path")),
        CarryStep(tag=4, acquire=AcquireRequest(path="/lock", permits=2)),
        CarryStep(tag=5, join=JoinRequest(path="/group", resume_token="unknown")),
    )
    refused = {tag: await carrier.ended(tag) for tag in (2, 3, 4, 5)}
    assert [told.failure.reason for told in refused.values()] == [
        "NODE_EXISTS",
        "INVALID_PATH",
        "INVALID_ARGUMENT",
        "HOLD_LOST",
    ]
    assert refused[2].failure.metadata["path"] == "/there"
    assert refused[3].failure.field == "steps[2].acquire.path"
    assert refused[4].failure.field == "steps[3].acquire.permits"
    await carrier.until(1, HOLD_STATE_HELD)


async def test_a_step_without_sense_is_refused_alone(client: Stubs) -> None:
    """O1: the holds of the stream go on, also the one whose tag was asked for twice."""
    carrier = Carrier(client)
    await carrier.acquire(7)
    await carrier.until(7, HOLD_STATE_HELD)
    await carrier.ask(CarryStep(tag=1), CarryStep(tag=7, acquire=AcquireRequest(path="/other")), CarryStep(tag=7))
    nothing = await carrier.ended(1)
    assert (nothing.failure.reason, nothing.failure.field) == ("INVALID_ARGUMENT", "steps[0].step")
    refused = [await carrier.next(7), await carrier.next(7)]
    assert [(each.failure.field, each.ended) for each in refused] == [
        ("steps[1].tag", False),
        ("steps[2].step", False),
    ]
    await carrier.release(7)
    assert (await carrier.ended(7)).update.state == HOLD_STATE_RELEASED


async def test_more_steps_than_a_message_may_have_are_refused_alone(
    client: Stubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """O1"""
    monkeypatch.setattr(carry, "MAX_STEPS", 3)
    carrier = Carrier(client)
    await carrier.ask(*(CarryStep(tag=tag, acquire=AcquireRequest(path=f"/lock{tag}")) for tag in range(5)))
    for tag in (3, 4):
        refused = await carrier.ended(tag)
        assert (refused.failure.reason, refused.failure.metadata["limit"]) == ("QUOTA", "max_steps")
    for tag in range(3):
        await carrier.until(tag, HOLD_STATE_HELD)


async def test_holds_that_are_asked_for_count_before_they_are_opened(
    hosts: str, proxy: Proxy, proxy_hosts: str, short_path: Path
) -> None:
    """O1: those that wait for the session too, of all streams together, and all are free again with the stream."""
    async with (
        Host(proxy_hosts, short_path, hold_settings=HoldSettings(max_holds=5)) as host,
        host.stubs() as client,
    ):
        proxy.refuse()
        proxy.cut()
        while host.session.status.state.is_connected:  # noqa: ASYNC110
            await asyncio.sleep(0)
        carrier, other = Carrier(client), Carrier(client)
        steps = [
            CarryStep(tag=tag, wait_for_ready=True, acquire=AcquireRequest(path=f"/lock{tag}")) for tag in range(4)
        ]
        await carrier.ask(*steps[:3])
        await until(lambda: sum(task.get_name().startswith("carry acquire") for task in asyncio.all_tasks()) == 3)
        await other.ask(*steps[:3])
        refused = await other.ended(2)
        assert (refused.failure.reason, refused.failure.metadata["limit"]) == ("QUOTA", "max_holds")
        carrier.stream.cancel()
        while len(host.rpc.streams) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        proxy.accept()
        await other.ask(*steps[2:])
        for tag in range(4):
            await other.until(tag, HOLD_STATE_HELD)
        assert host.holds.statistics().refused == 1


async def test_refusals_wait_for_who_does_not_read_and_no_more_is_begun(client: Stubs, host: Host) -> None:
    """O1, W8: not one of them costs anything before the ones ahead of it were heard."""
    deaf = client.carry.Carry()
    for _ in range(20):
        await deaf.write(CarryRequest(steps=[CarryStep(tag=2**63)] * 5000))
    pending = 0
    async with asyncio.timeout(PATIENCE_S):
        while pending < MAX_UNTAKEN:
            await asyncio.sleep(0.01)
            (pending,) = (each.pending for each in host.rpc.streams.list() if each.method.endswith("Carry"))
    for _ in range(50):
        await asyncio.sleep(0)
        assert max(each.pending for each in host.rpc.streams.list()) <= MAX_UNHEARD
    heard = 0
    async with asyncio.timeout(PATIENCE_S):
        while heard < 100_000:
            heard += len((await deaf.read()).updates)
    deaf.cancel()


async def test_a_release_of_what_has_ended_means_nothing(client: Stubs) -> None:
    carrier = Carrier(client)
    await carrier.release(3)
    await carrier.acquire(3)
    await carrier.until(3, HOLD_STATE_HELD)
    await carrier.ask(CarryStep(tag=3, release=RELEASE), CarryStep(tag=3, release=RELEASE))
    await carrier.ended(3)
    await carrier.release(3)
    await carrier.acquire(3)
    await carrier.until(3, HOLD_STATE_HELD)


async def test_a_broken_stream_is_broken_for_each_of_its_holds(host: Host, stock_client: KazooClient) -> None:
    """H4: released at once, or kept for those that asked for a grace, and taken up by a stream of either kind."""
    async with host.stubs() as first, host.stubs() as second:
        carrier = Carrier(first)
        await carrier.acquire(1, "/short")
        await carrier.acquire(2, "/kept", reconnect_grace=GRACE)
        await carrier.acquire(3, "/kept-too", reconnect_grace=GRACE)
        short, kept, kept_too = [(await carrier.until(tag, HOLD_STATE_HELD)).update.hold for tag in (1, 2, 3)]
        async with gone(stock_client, short.path):
            carrier.stream.cancel()
        again = Carrier(second)
        await again.acquire(1, "/kept", resume_token=kept.resume_token)
        taken_up = await again.until(1, HOLD_STATE_HELD)
        assert (taken_up.update.reason, taken_up.update.hold.fencing_token) == ("RESUMED", kept.fencing_token)
        alone = Seeker(second, "/kept-too", resume_token=kept_too.resume_token)
        assert (await alone.held()).hold.fencing_token == kept_too.fencing_token


CLIENT_PROGRAM = """
import sys, grpc
from zkside.pb import carry_pb2, carry_pb2_grpc, lock_pb2
steps = [carry_pb2.CarryStep(tag=n, acquire=lock_pb2.AcquireRequest(path=f"/killed{n}")) for n in range(20)]
stub = carry_pb2_grpc.CarryServiceStub(grpc.insecure_channel(sys.argv[1]))
for response in stub.Carry(iter([carry_pb2.CarryRequest(steps=steps)])):
    for told in response.updates:
        print(told.update.hold.path, flush=True)
"""


async def test_a_killed_process_loses_all_that_its_stream_carried(host: Host, stock_client: KazooClient) -> None:
    """H4: its sending side was closed long ago, which ends nothing."""
    command = (sys.executable, "-c", CLIENT_PROGRAM, host.address)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    paths = [(await process.stdout.readline()).decode().strip() for _ in range(20)]
    async with AsyncExitStack() as stack:
        for path in paths:
            await stack.enter_async_context(gone(stock_client, path))
        process.kill()
    await process.wait()


async def test_jeopardy_reaches_every_hold_and_the_end_of_the_session_too(shaky_client: Stubs, proxy: Proxy) -> None:
    """H5"""
    carrier = Carrier(shaky_client)
    await carrier.ask(*(CarryStep(tag=tag, acquire=AcquireRequest(path=f"/lock{tag}")) for tag in range(50)))
    for tag in range(50):
        await carrier.until(tag, HOLD_STATE_HELD)
    proxy.refuse()
    proxy.cut()
    for tag in range(50):
        assert (await carrier.until(tag, HOLD_STATE_JEOPARDY)).update.reason == "CONNECTION_LOST"
    for tag in range(50):
        last = await carrier.until(tag, HOLD_STATE_LOST)
        assert (last.update.reason, last.ended) == ("SESSION_LOST", True)


async def test_a_release_that_cannot_be_seen_says_so_and_is_seen_later(
    shaky_client: Stubs, proxy: Proxy, stock_client: KazooClient
) -> None:
    """H6"""
    carrier = Carrier(shaky_client)
    await carrier.acquire(1)
    path = (await carrier.until(1, HOLD_STATE_HELD)).update.hold.path
    proxy.refuse()
    proxy.cut()
    await carrier.until(1, HOLD_STATE_JEOPARDY)
    await carrier.release(1)
    while (told := await carrier.next(1)).WhichOneof("content") != "failure":
        pass
    assert (told.failure.reason, told.ended) == ("SESSION_SUSPENDED", False)
    async with gone(stock_client, path):
        proxy.accept()
    assert (await carrier.ended(1)).update.state == HOLD_STATE_RELEASED


async def test_who_would_rather_wait_waits_for_the_session(shaky_host: Host, shaky_client: Stubs, proxy: Proxy) -> None:
    """S6"""
    carrier = Carrier(shaky_client)
    proxy.refuse()
    proxy.cut()
    while shaky_host.session.status.state.is_connected:  # noqa: ASYNC110
        await asyncio.sleep(0)
    acquire = AcquireRequest(path="/lock")
    await carrier.ask(CarryStep(tag=1, acquire=acquire), CarryStep(tag=2, acquire=acquire, wait_for_ready=True))
    assert (await carrier.ended(1)).failure.reason == "SESSION_SUSPENDED"
    proxy.accept()
    await carrier.until(2, HOLD_STATE_HELD)


async def test_a_drain_asks_for_each_hold_and_ends_the_stream_behind_the_last(client: Stubs, host: Host) -> None:
    """O3, H5"""
    carrier, idle = Carrier(client), Carrier(client)
    await idle.acquire(1, "/other")
    await idle.until(1, HOLD_STATE_HELD)
    await idle.release(1)
    await idle.ended(1)
    await carrier.ask(
        CarryStep(tag=1, acquire=AcquireRequest(path="/lock")), CarryStep(tag=2, join=JoinRequest(path="/group"))
    )
    for tag in (1, 2):
        await carrier.until(tag, HOLD_STATE_HELD)
    draining = asyncio.ensure_future(client.admin.Drain(DrainRequest()))
    asked = await carrier.until(1, HOLD_STATE_JEOPARDY)
    assert (asked.update.reason, asked.update.hold.lease_boottime_ns) == ("DRAINED", 0)
    assert (await carrier.ended(2)).update.reason == "DRAINED"
    await carrier.release(1)
    assert (await carrier.ended(1)).update.state == HOLD_STATE_RELEASED
    assert (await failure(carrier.stream)).reason == "DRAINING"
    assert (await failure(idle.stream)).reason == "DRAINING"
    await draining
    assert len(host.holds) == 0


async def test_who_asks_for_no_more_keeps_what_it_has(client: Stubs) -> None:
    carrier = Carrier(client)
    await carrier.acquire(1)
    held = await carrier.until(1, HOLD_STATE_HELD)
    await carrier.stream.done_writing()
    await client.hold.Release(ReleaseRequest(hold_id=held.update.hold.hold_id))
    assert (await carrier.ended(1)).update.state == HOLD_STATE_RELEASED
    assert await carrier.stream.read() is grpc.aio.EOF


async def test_a_node_that_may_not_be_deleted_is_no_silent_release(client: Stubs, stock_client: KazooClient) -> None:
    carrier = Carrier(client)
    await carrier.acquire(1)
    held = await carrier.until(1, HOLD_STATE_HELD)
    stock_client.set_acls("/lock", [make_acl("world", "anyone", read=True, admin=True)])
    await carrier.release(1)
    last = await carrier.ended(1)
    assert (last.failure.reason, last.failure.metadata["path"]) == ("NO_AUTH", held.update.hold.path)


async def test_who_does_not_read_costs_bounded_memory_and_delays_nobody(client: Stubs, host: Host) -> None:
    """W8, O1: what waits for it is bounded, and what nobody hears of is still released."""
    deaf, other = Carrier(client), Seeker(client, "/other")
    await other.held()
    long = "x" * 3000  # so that gRPC cannot take it all
    for tags in (range(first, first + 100) for first in range(0, 4000, 100)):
        await deaf.ask(*(CarryStep(tag=tag, hold_ephemeral=HoldEphemeralRequest(path=f"/{long}{tag}")) for tag in tags))
    async with asyncio.timeout(2 * PATIENCE_S):
        while host.holds.granted.total() < 4001:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    (pending,) = (each.pending for each in host.rpc.streams.list() if each.method.endswith("Carry"))
    assert 0 < pending <= MAX_UNTAKEN
    await other.release()
    assert (await next_state(other.stream, HOLD_STATE_HELD)).state == HOLD_STATE_RELEASED
    deaf.stream.cancel()
    await asyncio.wait_for(host.rpc.streams.wait_ended(infrastructure=False), PATIENCE_S)
    assert await host.session.janitor.drained(PATIENCE_S)
    assert len(host.holds) == 0


async def test_a_stream_that_the_daemon_ends_does_not_hand_on_what_its_owner_may_believe_in(
    client: Stubs, host: Host
) -> None:
    """H1: neither when it is ended from outside, nor for a message that is none."""
    for tag, end in enumerate((lambda: host.rpc.streams.end_all(Denied("no"), infrastructure=False), None)):
        carrier = Carrier(client)
        carrier.stream = client.channel.stream_stream(
            "/zkside.v1.CarryService/Carry",
            request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
            response_deserializer=CarryResponse.FromString,
        )()
        await carrier.acquire(7, f"/lock{tag}")
        lease_ns = (await carrier.until(7, HOLD_STATE_HELD)).update.hold.lease_boottime_ns
        if end is None:
            await carrier.stream.write(b"\xff")
        else:
            end()
        await failure(carrier.stream)
        await Seeker(client, f"/lock{tag}").held()
        assert time.clock_gettime_ns(time.CLOCK_BOOTTIME) >= lease_ns


async def test_a_client_whose_stream_is_refused_hears_why(short_path: Path) -> None:
    """However the refusal and the first step meet: grpc.aio forgets it when a message is just being written. Here by
    a server that knows no CarryService."""
    server = grpc.aio.server()
    address = f"unix:{short_path}/bare.sock"
    server.add_insecure_port(address)
    await server.start()

    async def ask() -> None:
        async with Client(address) as client:
            with pytest.raises(NotSupported):
                async with client.lock("/lock"):
                    raise AssertionError("it was granted")

    for _ in range(60):
        await asyncio.gather(*(ask() for _ in range(5)))
    await server.stop(None)
