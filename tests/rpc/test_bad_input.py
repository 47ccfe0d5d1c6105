"""What no client should send: each ends in a clear status and leaves the daemon as it was (O1)."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from kazoo.client import KazooClient

from tests.parts.eventually import until
from tests.rpc.host import PATIENCE_S, Host, Stubs, failure
from tests.rpc.test_server import resident_bytes
from zkside import errors
from zkside.errors import ZksideError
from zkside.pb import (
    admin_pb2,
    election_pb2,
    group_pb2,
    hold_pb2,
    lock_pb2,
    node_pb2,
    node_pb2_grpc,
    session_pb2,
    watch_pb2,
)
from zkside.pb.node_pb2 import (
    Acl,
    CheckRequest,
    CreateRequest,
    DeleteRequest,
    GetManyRequest,
    GetRequest,
    HoldEphemeralRequest,
    ListRequest,
    Operation,
    ReadOptions,
    SetAclRequest,
    SetRequest,
    TransactRequest,
)
from zkside.pb.watch_pb2 import WatchRequest, WatchTarget
from zkside.rpc import convert, status
from zkside.rpc.interceptors import Call
from zkside.rpc.streams import QuotaSettings

INVALID = grpc.StatusCode.INVALID_ARGUMENT
TTL = node_pb2.CREATE_MODE_PERSISTENT_WITH_TTL
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED

MODULES = (session_pb2, node_pb2, watch_pb2, hold_pb2, lock_pb2, election_pb2, group_pb2, admin_pb2)
METHODS = [
    method
    for module in MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_random_bytes_as_a_message(client: Stubs, host: Host, method: Any) -> None:
    """Bytes that happen to be a message are served as one; all others are INVALID_ARGUMENT."""
    source, channel = random.Random(method.name), cast(Any, client.channel)
    path = f"/{method.containing_service.full_name}/{method.name}"
    seen = set()
    for size in (1, 2, 3, 5, 17, 100, 5_000, 200_000):
        # Field number 0 in the first byte: no message begins so.
        raw = b"\x07" + source.randbytes(size - 1)
        if method.client_streaming:
            call = channel.stream_stream(path)(iter([raw]))
        elif method.server_streaming:
            call = channel.unary_stream(path)(raw)
        else:
            call = channel.unary_unary(path)(raw)
        ended = await asyncio.wait_for(failure(call), PATIENCE_S)
        seen.add((ended.code, ended.reason))
    assert seen == {(INVALID, "INVALID_ARGUMENT")}
    assert not host.rpc.is_draining


BAD_REQUESTS: list[tuple[str, Any, str, str]] = [
    ("Get", GetRequest(), "INVALID_PATH", "path"),
    ("Get", GetRequest(path="no-slash"), "INVALID_PATH", "path"),
    ("Get", GetRequest(path="/ends/"), "INVALID_PATH", "path"),
    ("Get", GetRequest(path="/a//b"), "INVALID_PATH", "path"),
    ("Get", GetRequest(path="/a/../b"), "INVALID_PATH", "path"),
    ("Get", GetRequest(path="/nul\0"), "INVALID_PATH", "path"),
    ("Get", GetRequest(path="/" + "x" * 70_000), "INVALID_PATH", "path"),
    (
        "Get",
        GetRequest(path="/", options=ReadOptions(consistency=cast(Any, 99))),
        "INVALID_ARGUMENT",
        "options.consistency",
    ),
    ("Get", GetRequest(path="/", options=ReadOptions(min_zxid=-1)), "INVALID_ARGUMENT", "options.min_zxid"),
    (
        "Get",
        GetRequest(path="/", options=ReadOptions(max_stale=Duration(seconds=-1))),
        "INVALID_ARGUMENT",
        "options.max_stale",
    ),
    (
        "Get",
        GetRequest(path="/", options=ReadOptions(max_stale=Duration(seconds=5, nanos=-1))),
        "INVALID_ARGUMENT",
        "options.max_stale",
    ),
    ("GetMany", GetManyRequest(paths=["/", "x"]), "INVALID_PATH", "paths[1]"),
    ("List", ListRequest(path="/", page_size=10_001), "INVALID_ARGUMENT", "page_size"),
    ("List", ListRequest(path="/", page_token="not base64!"), "INVALID_ARGUMENT", "page_token"),
    ("Create", CreateRequest(path="/n", mode=cast(Any, 99)), "INVALID_ARGUMENT", "mode"),
    ("Create", CreateRequest(path="/n", ttl=Duration(seconds=1)), "INVALID_ARGUMENT", "ttl"),
    ("Create", CreateRequest(path="/n", mode=TTL), "INVALID_ARGUMENT", "ttl"),
    ("Create", CreateRequest(path="/n", mode=TTL, ttl=Duration(seconds=1 << 40)), "INVALID_ARGUMENT", "ttl"),
    (
        "Create",
        CreateRequest(path="/n", acl=[Acl(permissions=32, scheme="world", id="anyone")]),
        "INVALID_ARGUMENT",
        "acl[0].permissions",
    ),
    ("Set", SetRequest(path="/n", expected_version=-1), "INVALID_ARGUMENT", "expected_version"),
    ("Delete", DeleteRequest(path="/n", recursive=True, expected_version=1), "INVALID_ARGUMENT", "expected_version"),
    ("SetAcl", SetAclRequest(path="/n"), "INVALID_ARGUMENT", "acl"),
    ("Transact", TransactRequest(), "INVALID_ARGUMENT", "operations"),
    ("Transact", TransactRequest(operations=[Operation()]), "INVALID_ARGUMENT", "operations[0]"),
    (
        "Transact",
        TransactRequest(operations=[Operation(check=CheckRequest(path="/")), Operation(set=SetRequest(path="x"))]),
        "INVALID_PATH",
        "operations[1].set.path",
    ),
    (
        "Transact",
        TransactRequest(operations=[Operation(delete=DeleteRequest(path="/n", recursive=True))]),
        "INVALID_ARGUMENT",
        "operations[0].delete.recursive",
    ),
    (
        "Transact",
        TransactRequest(operations=[Operation(create=CreateRequest(path="/n", protected=True))]),
        "INVALID_ARGUMENT",
        "operations[0].create.protected",
    ),
    ("HoldEphemeral", HoldEphemeralRequest(path="x"), "INVALID_PATH", "path"),
    (
        "HoldEphemeral",
        HoldEphemeralRequest(path="/n", reconnect_grace=Duration(seconds=3601)),
        "INVALID_ARGUMENT",
        "reconnect_grace",
    ),
    (
        "HoldEphemeral",
        HoldEphemeralRequest(path="/n", heartbeat_timeout=Duration()),
        "INVALID_ARGUMENT",
        "heartbeat_timeout",
    ),
    (
        "HoldEphemeral",
        HoldEphemeralRequest(path="/n", heartbeat_timeout=Duration(nanos=1)),
        "INVALID_ARGUMENT",
        "heartbeat_timeout",
    ),
    (
        "HoldEphemeral",
        HoldEphemeralRequest(path="/n", heartbeat_timeout=Duration(nanos=99_999_999)),
        "INVALID_ARGUMENT",
        "heartbeat_timeout",
    ),
]


@pytest.mark.parametrize(("rpc", "request_message", "reason", "field"), BAD_REQUESTS)
async def test_a_senseless_field_is_refused_by_name(
    client: Stubs, rpc: str, request_message: Any, reason: str, field: str
) -> None:
    ended = await failure(getattr(client.node, rpc)(request_message))
    assert (ended.code, ended.reason, ended.fields) == (INVALID, reason, (field,))


@pytest.mark.parametrize(
    ("request_message", "field"),
    [
        (WatchRequest(), "targets"),
        (WatchRequest(targets=[WatchTarget(path="/"), WatchTarget(path="x")]), "targets[1].path"),
        (WatchRequest(targets=[WatchTarget(path="/a"), *[WatchTarget(path="/b")] * 2]), "targets[2]"),
        (WatchRequest(targets=[WatchTarget(path="/", scope=cast(Any, 99))]), "targets[0].scope"),
        (WatchRequest(targets=[WatchTarget(path="/")], bookmark_interval=Duration(nanos=1)), "bookmark_interval"),
    ],
)
async def test_a_target_without_sense_is_refused_by_its_place(
    client: Stubs, request_message: WatchRequest, field: str
) -> None:
    ended = await failure(client.watch.Watch(request_message))
    assert (ended.code, ended.fields) == (INVALID, (field,))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (Duration(seconds=-1), "max_stale must lie between 0 s and 1,000,000,000 s (11,574 days), not at -1 s"),
        (Duration(seconds=5, nanos=-1), "its nanos lie between 0 and 999,999,999, not at -1"),
        (Duration(nanos=1_000_000_000), "not at 1,000,000,000"),
    ],
)
def test_the_limits_of_a_time_are_told_in_figures_that_can_be_read(given: Duration, told: str) -> None:
    with pytest.raises(errors.InvalidArgument) as refused:
        convert.freshness(GetRequest(options=ReadOptions(max_stale=given)))
    assert str(refused.value).endswith(told)
    assert refused.value.field == "options.max_stale"


async def test_the_root_cannot_be_made_or_deleted(client: Stubs) -> None:
    delete = DeleteRequest(path="/")
    assert (await failure(client.node.Create(CreateRequest(path="/")))).reason == "NODE_EXISTS"
    assert (await failure(client.node.Delete(delete))).reason == "INVALID_PATH"
    step = TransactRequest(operations=[Operation(delete=delete)])
    assert (await failure(client.node.Transact(step))).reason == "INVALID_PATH"


async def test_what_is_too_large_is_refused_before_it_is_sent(client: Stubs) -> None:
    big = bytes(2_000_000)
    too_large = [
        client.node.Create(CreateRequest(path="/n", data=big)),
        client.node.Set(SetRequest(path="/n", data=big)),
        client.node.Transact(TransactRequest(operations=[Operation(create=CreateRequest(path="/n", data=big))])),
        client.node.GetMany(GetManyRequest(paths=["/"] * 10_001)),
        client.node.Transact(TransactRequest(operations=[Operation(check=CheckRequest(path="/"))] * 10_001)),
        client.node.HoldEphemeral(HoldEphemeralRequest(path="/n", data=big)),
    ]
    for call in too_large:
        ended = await failure(call)
        assert (ended.code, ended.reason) == (EXHAUSTED, "TOO_LARGE")
    # gRPC's own answer, before it has read the message.
    assert (await failure(client.node.Create(CreateRequest(path="/n", data=bytes(5_000_000))))).code is EXHAUSTED
    await client.node.Get(GetRequest(path="/"))


async def test_10000_cancelled_calls_leave_memory_where_it_was(host: Host, stock_client: KazooClient) -> None:
    async def cancelled(number: int) -> None:
        program = (sys.executable, "-m", "tests.rpc.cancelling", host.address, str(number))
        process = await asyncio.create_subprocess_exec(*program)
        assert await asyncio.wait_for(process.wait(), 60) == 0
        await asyncio.wait_for(host.rpc.streams.wait_ended(infrastructure=True), PATIENCE_S)
        assert await host.session.janitor.drained(PATIENCE_S)

    await cancelled(3_000)
    tasks, before = len(asyncio.all_tasks()), resident_bytes()
    await cancelled(10_000)
    assert resident_bytes() - before < 10_000_000
    await until(lambda: len(asyncio.all_tasks()) <= tasks)  # the last calls end a moment after their streams
    assert host.rpc.interceptors.calls == 0
    assert len(host.holds) == 0
    assert stock_client.get_children("/") == []
    statistics = host.rpc.statistics()
    assert (statistics.open, statistics.opened > 1_000) == ({}, True)


async def test_an_unknown_method_is_unimplemented_and_counted(client: Stubs, host: Host) -> None:
    ended = await failure(cast(Any, client.channel).unary_unary("/zkside.v1.NodeService/Explode")(b""))
    assert ended.code is grpc.StatusCode.UNIMPLEMENTED
    assert host.rpc.interceptors.arrivals.unknown == 1


async def test_too_many_calls_are_refused(hosts: str, short_path: Path) -> None:
    async with Host(hosts, short_path, quotas=QuotaSettings(max_calls=5)) as host, host.stubs() as client:
        waiting = ReadOptions(min_zxid=1 << 62)
        calls = [client.node.Get(GetRequest(path="/", options=waiting), timeout=1.0) for _ in range(8)]
        ended = await asyncio.gather(*(failure(call) for call in calls))
        assert sorted(each.reason for each in ended) == ["QUOTA"] * 3 + ["TOO_STALE"] * 5
        await client.node.Get(GetRequest(path="/"))


# Every reason, over the wire


@pytest.fixture
async def raising(host: Host, short_path: Path) -> AsyncGenerator[grpc.aio.Channel, None]:
    """A server whose Sync and WatchSession raise the error that the request's path names."""

    def named(name: str) -> Exception:
        made: Exception = getattr(errors, name, KeyError)("on purpose")
        return made

    async def sync(request: node_pb2.SyncRequest, call: Call) -> node_pb2.SyncResponse:
        raise named(request.path)

    async def hold(request: HoldEphemeralRequest, call: Call) -> AsyncGenerator[hold_pb2.HoldUpdate, None]:
        yield hold_pb2.HoldUpdate()
        raise named(request.path)

    interceptors = host.rpc.interceptors
    service = node_pb2.DESCRIPTOR.services_by_name["NodeService"]
    handlers = {
        "Sync": interceptors.wrap(service.methods_by_name["Sync"], sync),
        "HoldEphemeral": interceptors.wrap(service.methods_by_name["HoldEphemeral"], hold),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("zkside.v1.NodeService", handlers),))
    server.add_insecure_port(f"unix:{short_path}/raising")
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{short_path}/raising") as channel:
        yield channel
    await server.stop(0)


INSIDE: dict[type[ZksideError], type[ZksideError]] = {
    errors.ConnectionLoss: errors.SessionSuspended,
    errors.StartError: ZksideError,
    errors.BadConfiguration: ZksideError,
}
"""What callers hear of those that are not for them, of a read or a stream."""


@pytest.mark.parametrize("error_type", list(status.TABLE), ids=lambda each: each.__name__)
async def test_every_reason_reaches_the_client_with_its_code(
    raising: grpc.aio.Channel, error_type: type[ZksideError]
) -> None:
    stub: Any = node_pb2_grpc.NodeServiceStub(raising)
    told = INSIDE.get(error_type, error_type)
    expected = (status.TABLE[told].code, told.reason, told is error_type)
    ended = await failure(stub.Sync(node_pb2.SyncRequest(path=error_type.__name__)))
    assert (ended.code, ended.reason, ended.message == "on purpose") == expected
    stream = stub.HoldEphemeral(HoldEphemeralRequest(path=error_type.__name__))
    await stream.read()
    ended = await failure(stream)
    assert (ended.code, ended.reason, ended.message == "on purpose") == expected


async def test_a_defect_reaches_the_client_as_an_incident(raising: grpc.aio.Channel, host: Host) -> None:
    stub: Any = node_pb2_grpc.NodeServiceStub(raising)
    ended = await failure(stub.Sync(node_pb2.SyncRequest(path="no such error")))
    assert (ended.code, ended.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert ended.metadata["incident"] in ended.message
    assert "on purpose" not in ended.message
    assert host.rpc.interceptors.incidents == 1
