"""Groups: members that live as long as their processes, and streams that say who is there."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError, NotEmptyError
from kazoo.security import make_acl

from tests.parts.proxy import Proxy
from tests.rpc.host import PATIENCE_S, Host, Stubs, failure
from tests.rpc.test_hold import gone, next_state, update
from zkside.pb import admin_pb2, hold_pb2, node_pb2
from zkside.pb.group_pb2 import (
    ConfirmShrinkRequest,
    JoinRequest,
    ListGroupRequest,
    Member,
    ServiceInstance,
    ShrinkGuard,
    WatchGroupRequest,
    WatchGroupResponse,
)
from zkside.pb.hold_pb2 import HOLD_STATE_HELD, HOLD_STATE_JEOPARDY, HOLD_STATE_LOST

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@asynccontextmanager
async def joined(client: Stubs, path: str, member_id: str, data: bytes = b"") -> AsyncIterator[hold_pb2.HoldUpdate]:
    """A member as long as the body."""
    stream = client.group.Join(JoinRequest(path=path, member_id=member_id, data=data))
    try:
        yield await update(stream)
    finally:
        stream.cancel()


async def heard(stream: Any) -> WatchGroupResponse:
    async with asyncio.timeout(PATIENCE_S):
        response: WatchGroupResponse = await stream.read()
        return response


def ids(members: Iterable[Member]) -> list[str]:
    return [member.member_id for member in members]


def told(response: WatchGroupResponse) -> tuple[list[str], list[str], list[str]]:
    assert response.WhichOneof("update") == "changes"
    return ids(response.changes.joined), ids(response.changes.left), ids(response.changes.changed)


# Being a member


async def test_a_member_is_an_ephemeral_child_with_its_data_from_the_start(
    client: Stubs, host: Host, stock_client: KazooClient
) -> None:
    """H8: as Curator's GroupMember makes it."""
    async with joined(client, "/app/web", "one", b"10.0.0.1:80") as held:
        assert (held.state, held.reason, held.hold.path) == (HOLD_STATE_HELD, "CREATED", "/app/web/one")
        data, stat = stock_client.get("/app/web/one")
        assert (data, stat.version, stat.ephemeralOwner) == (b"10.0.0.1:80", 0, host.session.status.session_id)
        assert held.hold.fencing_token == stat.czxid
        (hold,) = (await client.admin.ListHolds(admin_pb2.ListHoldsRequest())).holds
        assert (hold.recipe, hold.attached) == ("group", True)


async def test_who_leaves_leaves_nothing_behind_not_even_the_group(
    client: Stubs, host: Host, stock_client: KazooClient
) -> None:
    """H6: the parents are containers, as Curator makes them."""
    streams = [client.group.Join(JoinRequest(path="/app/web", member_id=each)) for each in ("one", "two")]
    _, held = [await update(stream) for stream in streams]
    async with gone(stock_client, "/app"):
        async with gone(stock_client, "/app/web/one"):
            streams[0].cancel()
        assert (await client.hold.Release(hold_pb2.ReleaseRequest(hold_id=held.hold.hold_id))).released
        assert stock_client.exists("/app/web/two") is None
    assert len(host.holds) == 0


async def test_a_stream_that_is_cancelled_while_it_joins_leaves_no_member(
    client: Stubs, host: Host, stock_client: KazooClient
) -> None:
    """H6: whatever the moment."""
    for number in range(30):
        stream = client.group.Join(JoinRequest(path=f"/g{number}", member_id="m"))
        reading = asyncio.ensure_future(stream.read())
        await asyncio.wait([reading], timeout=number * 0.0003)
        stream.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    await asyncio.wait_for(host.rpc.streams.wait_ended(infrastructure=False), PATIENCE_S)
    await client.node.Sync(node_pb2.SyncRequest())
    assert await host.session.janitor.drained(PATIENCE_S)
    for group in stock_client.get_children("/"):
        try:
            assert stock_client.get_children(f"/{group}") == []
        except NoNodeError:
            continue  # the container has gone meanwhile
    assert len(host.holds) == 0


MEMBER_PROGRAM = """
import sys, grpc
from zkside.pb import group_pb2, group_pb2_grpc
channel = grpc.insecure_channel(sys.argv[1])
request = group_pb2.JoinRequest(path="/g", member_id=sys.argv[2])
for update in group_pb2_grpc.GroupServiceStub(channel).Join(request):
    print(update.state, flush=True)
"""


async def test_a_killed_member_is_gone_at_once_and_others_hear_it(
    host: Host, client: Stubs, record_property: Any
) -> None:
    """H4."""
    watch = client.group.WatchGroup(WatchGroupRequest(path="/g"))
    assert not (await heard(watch)).members.members
    took_s = []
    for number in range(5):
        program = (sys.executable, "-c", MEMBER_PROGRAM, host.address, f"m{number}")
        process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            assert int(await asyncio.to_thread(process.stdout.readline)) == HOLD_STATE_HELD
            assert told(await heard(watch)) == ([f"m{number}"], [], [])
        finally:
            began = time.perf_counter()
            process.kill()
        assert told(await heard(watch)) == ([], [f"m{number}"], [])
        took_s.append(time.perf_counter() - began)
        process.wait()
    record_property("killed_to_told_ms", [round(each * 1000, 1) for each in sorted(took_s)])
    assert sorted(took_s)[2] < 0.2


async def test_an_id_that_is_taken_is_refused(client: Stubs) -> None:
    async with joined(client, "/g", "one"):
        fault = await failure(client.group.Join(JoinRequest(path="/g", member_id="one")))
        assert (fault.code, fault.reason) == (grpc.StatusCode.ALREADY_EXISTS, "NODE_EXISTS")


async def test_a_member_joins_again_in_the_next_session_under_its_name(
    shaky_host: Host, shaky_client: Stubs, proxy: Proxy, stock_client: KazooClient
) -> None:
    """S4, H2: also on a stream that took it up."""
    request = JoinRequest(path="/g", data=b"me", reconnect_grace=Duration(seconds=10))
    async with shaky_host.stubs() as first:
        held = await update(first.group.Join(request))
    request.resume_token = held.hold.resume_token
    stream = shaky_client.group.Join(request)
    assert (await update(stream)).hold.hold_id == held.hold.hold_id
    watch = shaky_client.group.WatchGroup(WatchGroupRequest(path="/g"))
    (member,) = (await heard(watch)).members.members
    assert held.hold.path == f"/g/{member.member_id}"
    proxy.refuse()
    proxy.cut()
    assert (await next_state(stream, HOLD_STATE_HELD)).state == HOLD_STATE_JEOPARDY
    lost = await next_state(stream, HOLD_STATE_JEOPARDY)
    assert (lost.state, lost.reason) == (HOLD_STATE_LOST, "SESSION_LOST")
    proxy.accept()
    again = await update(stream)
    assert (again.state, again.reason, again.hold.path) == (HOLD_STATE_HELD, "CREATED", held.hold.path)
    assert again.hold.fencing_token > held.hold.fencing_token
    assert stock_client.get(again.hold.path)[0] == b"me"
    # Whoever watches hears that it is another membership, in one step or in two.
    said: list[Member] = []
    while not any(each.fencing_token == again.hold.fencing_token for each in said):
        response = await heard(watch)
        said = [*response.changes.changed, *response.changes.joined]


async def test_a_membership_is_taken_up_with_its_token_and_keeps_its_name(
    host: Host, client: Stubs, stock_client: KazooClient
) -> None:
    request = JoinRequest(path="/services/web", reconnect_grace=Duration(seconds=10))
    request.service.address = "10.0.0.1"
    async with host.stubs() as first:
        held = await update(first.group.Join(request))
    request.resume_token = held.hold.resume_token
    again = await update(client.group.Join(request))
    assert (again.hold.path, again.hold.fencing_token) == (held.hold.path, held.hold.fencing_token)
    for number, wrong in enumerate(("", "other")):
        request.resume_token = held.hold.resume_token if number else "unknown"
        request.member_id = wrong
        assert (await failure(client.group.Join(request))).reason == "HOLD_LOST"
    as_node = node_pb2.HoldEphemeralRequest(path=held.hold.path, resume_token=held.hold.resume_token)
    assert (await failure(client.node.HoldEphemeral(as_node))).reason == "HOLD_LOST"
    assert stock_client.exists(held.hold.path) is not None


async def test_who_joins_while_the_empty_group_is_swept_away_joins_all_the_same(
    client: Stubs, stock_client: KazooClient
) -> None:
    """Containers vanish when they are empty."""
    ended = threading.Event()

    def sweep() -> None:
        while not ended.is_set():
            for path in ("/app/web", "/app"):
                try:
                    stock_client.delete(path)
                except (NoNodeError, NotEmptyError):
                    continue

    sweeping = threading.Thread(target=sweep)
    sweeping.start()
    try:
        for number in range(40):
            async with joined(client, "/app/web", f"m{number}") as held:
                assert held.state == HOLD_STATE_HELD
    finally:
        ended.set()
        await asyncio.to_thread(sweeping.join)


# Service discovery

SERVICE = ServiceInstance(
    address="10.0.0.1",
    port=80,
    ssl_port=443,
    payload='{"@class":"java.util.LinkedHashMap","weight":1.5}',
    registration_time=Timestamp(seconds=1_700_000_000, nanos=123_000_000),
    uri_spec="{scheme}://{address}:{port}",
    enabled=False,
)


async def test_a_service_instance_travels_as_curators_json(client: Stubs, stock_client: KazooClient) -> None:
    """H8; tests/core/test_member.py has the bytes that Curator itself wrote."""
    stream = client.group.Join(JoinRequest(path="/services/web", member_id="i1", service=SERVICE))
    await update(stream)
    assert stock_client.get("/services/web/i1")[0] == (
        b'{"name":"web","id":"i1","address":"10.0.0.1","port":80,"sslPort":443,'
        b'"payload":{"@class":"java.util.LinkedHashMap","weight":1.5},"registrationTimeUTC":1700000000123,'
        b'"serviceType":"DYNAMIC","uriSpec":{"parts":[{"value":"scheme","variable":true},'
        b'{"value":"://","variable":false},{"value":"address","variable":true},{"value":":","variable":false},'
        b'{"value":"port","variable":true}]},"enabled":false}'
    )
    expected = ServiceInstance(name="web", id="i1")
    expected.MergeFrom(SERVICE)
    (member,) = (await client.group.ListGroup(ListGroupRequest(path="/services/web"))).members
    assert member.service == expected
    (member,) = (await heard(client.group.WatchGroup(WatchGroupRequest(path="/services/web")))).members.members
    assert member.service == expected


async def test_an_instance_takes_its_id_from_either_place_and_the_time_from_now(client: Stubs) -> None:
    before = Timestamp()
    before.GetCurrentTime()
    held = await update(client.group.Join(JoinRequest(path="/s/web", service=ServiceInstance(id="x", name="web"))))
    assert held.hold.path == "/s/web/x"
    unnamed = await update(client.group.Join(JoinRequest(path="/s/web", service=ServiceInstance())))
    members = (await client.group.ListGroup(ListGroupRequest(path="/s/web"))).members
    assert {each.member_id for each in members} == {"x", unnamed.hold.path.removeprefix("/s/web/")}
    for member in members:
        assert (member.service.name, member.service.id) == ("web", member.member_id)
        assert not member.service.HasField("port")
        assert not member.service.HasField("enabled")
        assert before.seconds - 1 <= member.service.registration_time.seconds <= before.seconds + PATIENCE_S


async def test_a_permanent_instance_of_curators_is_a_member_and_a_directory_is_none(
    client: Stubs, stock_client: KazooClient
) -> None:
    permanent = b'{"name":"web","id":"p","address":"h","registrationTimeUTC":1,"serviceType":"PERMANENT"}'
    stock_client.create("/s/web/p", permanent, makepath=True)
    stock_client.create("/s/web/locks", b"")
    stock_client.create("/s/web/ghost", b"", ephemeral=True, acl=[make_acl("digest", "nobody:x", all=True)])
    stock_client.create("/s/web/stock", b"", ephemeral=True)
    watch = client.group.WatchGroup(WatchGroupRequest(path="/s/web"))
    assert ids((await heard(watch)).members.members) == ["p", "stock"]
    assert ids((await client.group.ListGroup(ListGroupRequest(path="/s/web"))).members) == ["p", "stock"]
    stock_client.create("/s/web/more", b"")
    stock_client.delete("/s/web/stock")
    assert told(await heard(watch)) == ([], ["stock"], [])
    # What is a member by its data is none any more with other data.
    stock_client.set("/s/web/p", b"notes")
    assert told(await heard(watch)) == ([], ["p"], [])


# What no client should send

BAD_REQUESTS: list[tuple[str, Any, str, str]] = [
    ("Join", JoinRequest(member_id="m"), "INVALID_PATH", "path"),
    ("Join", JoinRequest(path="/g/", member_id="m"), "INVALID_PATH", "path"),
    ("Join", JoinRequest(path="/g", member_id="a/b"), "INVALID_ARGUMENT", "member_id"),
    ("Join", JoinRequest(path="/g", member_id=".."), "INVALID_PATH", "member_id"),
    ("Join", JoinRequest(path="/g", member_id="a\0"), "INVALID_PATH", "member_id"),
    ("Join", JoinRequest(path="/g", reconnect_grace=Duration(seconds=3601)), "INVALID_ARGUMENT", "reconnect_grace"),
    ("Join", JoinRequest(path="/g", heartbeat_timeout=Duration()), "INVALID_ARGUMENT", "heartbeat_timeout"),
    ("Join", JoinRequest(path="/g", acl=[node_pb2.Acl()]), "INVALID_ARGUMENT", "acl[0].permissions"),
    ("Join", JoinRequest(path="/", service=ServiceInstance()), "INVALID_ARGUMENT", "path"),
    ("Join", JoinRequest(path="/g", service=ServiceInstance(name="x")), "INVALID_ARGUMENT", "service.name"),
    (
        "Join",
        JoinRequest(path="/g", member_id="a", service=ServiceInstance(id="b")),
        "INVALID_ARGUMENT",
        "service.id",
    ),
    ("Join", JoinRequest(path="/g", service=ServiceInstance(port=65_536)), "INVALID_ARGUMENT", "service.port"),
    ("Join", JoinRequest(path="/g", service=ServiceInstance(ssl_port=1 << 31)), "INVALID_ARGUMENT", "service.ssl_port"),
    ("Join", JoinRequest(path="/g", service=ServiceInstance(payload="{")), "INVALID_ARGUMENT", "service.payload"),
    ("Join", JoinRequest(path="/g", service=ServiceInstance(uri_spec="{")), "INVALID_ARGUMENT", "service.uri_spec"),
    (
        "Join",
        JoinRequest(path="/g", service=ServiceInstance(registration_time=Timestamp(seconds=1 << 40))),
        "INVALID_ARGUMENT",
        "service.registration_time",
    ),
    ("WatchGroup", WatchGroupRequest(path="g"), "INVALID_PATH", "path"),
    (
        "WatchGroup",
        WatchGroupRequest(path="/g", shrink_guard=ShrinkGuard(min_kept=1.5)),
        "INVALID_ARGUMENT",
        "shrink_guard.min_kept",
    ),
    (
        "WatchGroup",
        WatchGroupRequest(path="/g", shrink_guard=ShrinkGuard(min_kept=float("nan"))),
        "INVALID_ARGUMENT",
        "shrink_guard.min_kept",
    ),
    (
        "WatchGroup",
        WatchGroupRequest(path="/g", shrink_guard=ShrinkGuard(window=Duration(seconds=-1))),
        "INVALID_ARGUMENT",
        "shrink_guard.window",
    ),
    (
        "WatchGroup",
        WatchGroupRequest(path="/g", shrink_guard=ShrinkGuard(confirm_after=Duration(seconds=1 << 30))),
        "INVALID_ARGUMENT",
        "shrink_guard.confirm_after",
    ),
    ("ListGroup", ListGroupRequest(path="/g//h"), "INVALID_PATH", "path"),
    (
        "ListGroup",
        ListGroupRequest(path="/g", options=node_pb2.ReadOptions(min_zxid=-1)),
        "INVALID_ARGUMENT",
        "options.min_zxid",
    ),
    ("ConfirmShrink", ConfirmShrinkRequest(), "INVALID_ARGUMENT", "watch_id"),
]


@pytest.mark.parametrize(("rpc", "request_message", "reason", "field"), BAD_REQUESTS)
async def test_a_senseless_field_is_refused_by_name(
    client: Stubs, host: Host, rpc: str, request_message: Any, reason: str, field: str
) -> None:
    """O1."""
    ended = await failure(getattr(client.group, rpc)(request_message))
    assert (ended.code, ended.reason, ended.fields) == (INVALID, reason, (field,))
    assert len(host.holds) == 0


async def test_a_group_that_may_not_be_read_is_refused(client: Stubs, stock_client: KazooClient) -> None:
    stock_client.create("/g", acl=[make_acl("digest", "nobody:x", all=True)])
    for call in (
        client.group.WatchGroup(WatchGroupRequest(path="/g")),
        client.group.ListGroup(ListGroupRequest(path="/g")),
        client.group.Join(JoinRequest(path="/g", member_id="m")),
    ):
        assert (await failure(call)).reason == "NO_AUTH"


async def test_data_that_is_too_large_is_refused(client: Stubs, host: Host) -> None:
    ended = await failure(client.group.Join(JoinRequest(path="/g", data=bytes(2_000_000))))
    assert (ended.code, ended.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_LARGE")
    assert len(host.holds) == 0
