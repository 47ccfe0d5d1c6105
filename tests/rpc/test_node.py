"""NodeService as a client sees it, on real ZooKeeper."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from kazoo.client import KazooClient

from tests.rpc.host import Host, Stubs, failure
from zkside.pb import admin_pb2, node_pb2, session_pb2
from zkside.pb.node_pb2 import (
    CheckRequest,
    CreateRequest,
    DeleteRequest,
    GetRequest,
    ListRequest,
    Operation,
    PipelineRequest,
    ReadOptions,
    SetRequest,
    TransactRequest,
)

CACHED = ReadOptions(consistency=node_pb2.CONSISTENCY_CACHED)
LINEARIZABLE = ReadOptions(consistency=node_pb2.CONSISTENCY_LINEARIZABLE)


def create(path: str, data: bytes = b"", **more: Any) -> Operation:
    return Operation(create=CreateRequest(path=path, data=data, **more))


def set_(path: str, data: bytes = b"", **more: Any) -> Operation:
    return Operation(set=SetRequest(path=path, data=data, **more))


async def test_what_was_created_is_read_back_with_every_consistency(client: Stubs, stock_client: KazooClient) -> None:
    """R1, R3."""
    created = await client.node.Create(CreateRequest(path="/a", data=b"one"))
    theirs = stock_client.get("/a")[1]
    for options in (None, CACHED, LINEARIZABLE):
        answer = await client.node.Get(GetRequest(path="/a", options=options))
        assert (answer.node.path, answer.node.data) == ("/a", b"one")
        assert answer.node.stat == created.stat
        assert answer.node.stat.czxid == theirs.czxid
        assert answer.node.stat.ctime == theirs.ctime
        assert answer.header.zxid >= created.header.zxid
        assert (answer.header.epoch, answer.header.stale) == (1, False)
        assert not answer.header.HasField("age")


async def test_a_cached_read_after_ones_own_write_sees_it(client: Stubs) -> None:
    """R2."""
    await client.node.Create(CreateRequest(path="/a"))
    for number in range(50):
        written = await client.node.Set(SetRequest(path="/a", data=str(number).encode()))
        options = ReadOptions(consistency=node_pb2.CONSISTENCY_CACHED, min_zxid=written.header.zxid)
        answer = await client.node.Get(GetRequest(path="/a", options=options))
        assert answer.node.data == str(number).encode()


async def test_a_read_that_waits_for_a_zxid_of_the_future_says_too_stale_in_time(client: Stubs) -> None:
    """R2."""
    options = ReadOptions(min_zxid=1 << 62)
    fault = await failure(client.node.Get(GetRequest(path="/", options=options), timeout=0.5))
    assert (fault.code, fault.reason) == (grpc.StatusCode.UNAVAILABLE, "TOO_STALE")


async def test_many_nodes_in_one_answer_absent_ones_marked(client: Stubs, stock_client: KazooClient) -> None:
    """R6 (the cut itself is proven in tests/hub)."""
    stock_client.create("/there", b"x")
    stock_client.create("/secret", b"y", acl=[stock_digest_acl()])
    answer = await client.node.GetMany(node_pb2.GetManyRequest(paths=["/there", "/absent", "/secret"]))
    there, absent, secret = answer.results
    assert (there.node.data, absent.WhichOneof("result"), secret.failure.reason) == (b"x", None, "NO_AUTH")
    assert [each.path for each in answer.results] == ["/there", "/absent", "/secret"]


def stock_digest_acl() -> Any:
    from kazoo.security import make_digest_acl

    return make_digest_acl("somebody", "else", all=True)


async def test_an_absent_node_is_an_answer_to_exists_and_an_error_to_get(client: Stubs) -> None:
    assert not (await client.node.Exists(node_pb2.ExistsRequest(path="/absent"))).exists
    assert (await client.node.Exists(node_pb2.ExistsRequest(path="/"))).stat.num_children >= 0
    fault = await failure(client.node.Get(GetRequest(path="/absent")))
    assert (fault.code, fault.reason, fault.metadata["path"]) == (grpc.StatusCode.NOT_FOUND, "NO_NODE", "/absent")


@pytest.mark.parametrize("options", [None, CACHED])
async def test_pages_together_are_the_whole_list(client: Stubs, options: ReadOptions | None) -> None:
    names = [f"n{number:03}" for number in range(25)]
    steps = [create("/p"), *(create(f"/p/{name}", name.encode()) for name in names)]
    assert (await client.node.Transact(TransactRequest(operations=steps))).committed
    seen, token, pages = [], "", 0
    while True:
        request = ListRequest(path="/p", with_nodes=True, page_size=10, page_token=token, options=options)
        page = await client.node.List(request)
        assert [node.path for node in page.nodes] == [f"/p/{name}" for name in page.names]
        assert [node.data.decode() for node in page.nodes] == list(page.names)
        assert page.stat.num_children == 25
        seen += page.names
        pages += 1
        if not (token := page.next_page_token):
            break
    assert (seen, pages) == (names, 3)


async def test_a_page_ends_early_where_the_data_are_large(client: Stubs) -> None:
    await client.node.Create(CreateRequest(path="/big"))
    for number in range(8):
        await client.node.Create(CreateRequest(path=f"/big/{number}", data=bytes(700_000)))
    page = await client.node.List(ListRequest(path="/big", with_nodes=True))
    assert 1 < len(page.nodes) < 8
    rest = await client.node.List(ListRequest(path="/big", page_token=page.next_page_token))
    assert list(page.names) + list(rest.names) == [str(number) for number in range(8)]


async def test_parents_are_made_on_request(client: Stubs) -> None:
    fault = await failure(client.node.Create(CreateRequest(path="/x/y/z")))
    assert (fault.code, fault.reason) == (grpc.StatusCode.NOT_FOUND, "NO_NODE")
    made = await client.node.Create(CreateRequest(path="/x/y/z", make_parents=True))
    assert made.path == "/x/y/z"
    again = await failure(client.node.Create(CreateRequest(path="/x/y/z", make_parents=True)))
    assert (again.code, again.reason) == (grpc.StatusCode.ALREADY_EXISTS, "NODE_EXISTS")


async def test_sequential_and_protected_names(client: Stubs) -> None:
    mode = node_pb2.CREATE_MODE_PERSISTENT_SEQUENTIAL
    plain = await client.node.Create(CreateRequest(path="/s-", mode=mode))
    assert re.fullmatch(r"/s-\d{10}", plain.path)
    protected = await client.node.Create(CreateRequest(path="/s-", mode=mode, protected=True))
    assert re.fullmatch(r"/_c_[0-9a-f-]{36}-s-\d{10}", protected.path)
    await client.node.Create(CreateRequest(path="/dir"))
    numbers_only = await client.node.Create(CreateRequest(path="/dir/", mode=mode))
    assert re.fullmatch(r"/dir/\d{10}", numbers_only.path)


async def test_a_container_and_a_node_with_ttl_go_by_themselves(client: Stubs, stock_client: KazooClient) -> None:
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    await client.node.Create(CreateRequest(path="/box", mode=node_pb2.CREATE_MODE_CONTAINER))
    await client.node.Create(CreateRequest(path="/box/item"))
    stock_client.exists("/box", watch=lambda event: event.type == "DELETED" and loop.call_soon_threadsafe(gone.set))
    await client.node.Delete(DeleteRequest(path="/box/item"))
    await asyncio.wait_for(gone.wait(), 20)
    request = CreateRequest(
        path="/short", mode=node_pb2.CREATE_MODE_PERSISTENT_WITH_TTL, ttl=Duration(nanos=50_000_000)
    )
    try:
        await client.node.Create(request)
    except grpc.aio.AioRpcError:
        fault = await failure(client.node.Create(request))
        assert (fault.code, fault.reason) == (grpc.StatusCode.UNIMPLEMENTED, "NOT_SUPPORTED")


async def test_an_ephemeral_without_a_hold_must_say_that_it_is_the_daemons(client: Stubs, host: Host) -> None:
    request = CreateRequest(path="/e", mode=node_pb2.CREATE_MODE_EPHEMERAL)
    fault = await failure(client.node.Create(request))
    assert (fault.reason, fault.fields) == ("INVALID_ARGUMENT", ("daemon_lifetime",))
    request.daemon_lifetime = True
    made = await client.node.Create(request)
    assert made.stat.ephemeral_owner == host.session.status.session_id
    assert host.session.journal.owned() == {"/e"}
    below = await failure(client.node.Create(CreateRequest(path="/e/below")))
    assert below.reason == "NO_CHILDREN_FOR_EPHEMERALS"


async def test_an_unexpected_version_is_told_with_the_actual_one(client: Stubs) -> None:
    await client.node.Create(CreateRequest(path="/v"))
    await client.node.Set(SetRequest(path="/v", data=b"1", expected_version=0))
    for call in (
        client.node.Set(SetRequest(path="/v", expected_version=0)),
        client.node.Delete(DeleteRequest(path="/v", expected_version=7)),
    ):
        fault = await failure(call)
        assert (fault.code, fault.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BAD_VERSION")
        assert fault.metadata["actual"] == "1"


async def test_a_recursive_delete_counts_what_it_deleted(client: Stubs, stock_client: KazooClient) -> None:
    for number in range(30):
        stock_client.create(f"/tree/{number % 5}/{number}", makepath=True)
    fault = await failure(client.node.Delete(DeleteRequest(path="/tree")))
    assert (fault.code, fault.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_EMPTY")
    answer = await client.node.Delete(DeleteRequest(path="/tree", recursive=True))
    assert answer.deleted == 36
    assert stock_client.exists("/tree") is None
    assert (await failure(client.node.Delete(DeleteRequest(path="/tree", recursive=True)))).reason == "NO_NODE"
    assert (await failure(client.node.Delete(DeleteRequest(path="/", recursive=True)))).reason == "INVALID_PATH"


async def test_a_transaction_is_all_or_nothing_and_tells_what_each_step_did(client: Stubs) -> None:
    """N1."""
    steps = [
        create("/t", b"0"),
        set_("/t", b"1"),
        Operation(check=CheckRequest(path="/t", expected_version=1)),
        create("/t/child"),
        Operation(delete=DeleteRequest(path="/t/child")),
    ]
    answer = await client.node.Transact(TransactRequest(operations=steps))
    kinds = [result.WhichOneof("result") for result in answer.results]
    assert (answer.committed, kinds) == (True, ["create", "set", "check", "create", "delete"])
    stat = answer.results[1].set.stat
    assert stat.czxid == stat.mzxid == answer.header.zxid
    refused = await client.node.Transact(TransactRequest(operations=[set_("/t", b"2"), create("/t"), set_("/t", b"3")]))
    reasons = [result.failure.reason for result in refused.results]
    assert (refused.committed, reasons) == (False, ["ROLLED_BACK", "NODE_EXISTS", "NOT_ATTEMPTED"])
    assert (await client.node.Get(GetRequest(path="/t"))).node.data == b"1"


async def test_an_acl_is_read_and_set(client: Stubs) -> None:
    await client.node.Create(CreateRequest(path="/acl"))
    before = await client.node.GetAcl(node_pb2.GetAclRequest(path="/acl"))
    assert [(each.permissions, each.scheme, each.id) for each in before.acl] == [(31, "world", "anyone")]
    read_only = node_pb2.Acl(permissions=node_pb2.PERMISSION_READ, scheme="world", id="anyone")
    request = node_pb2.SetAclRequest(path="/acl", acl=[read_only], expected_version=0)
    assert (await client.node.SetAcl(request)).stat.aversion == 1
    fault = await failure(client.node.Set(SetRequest(path="/acl", data=b"x")))
    assert (fault.code, fault.reason) == (grpc.StatusCode.PERMISSION_DENIED, "NO_AUTH")
    nonsense = node_pb2.Acl(permissions=1, scheme="no such scheme", id="x")
    fault = await failure(client.node.Create(CreateRequest(path="/acl2", acl=[nonsense])))
    assert (fault.code, fault.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ACL")


async def test_sync_tells_how_far_the_session_sees(client: Stubs, stock_client: KazooClient) -> None:
    stock_client.create("/synced")
    answer = await client.node.Sync(node_pb2.SyncRequest())
    assert answer.zxid >= stock_client.exists("/synced").czxid


async def test_a_pipeline_answers_in_order_and_goes_on_behind_a_failure(client: Stubs) -> None:
    """N3."""
    steps = [create("/q", b"0"), create("/q"), *(set_("/q", str(n).encode(), expected_version=n) for n in range(200))]
    steps += [Operation(check=CheckRequest(path="/q")), Operation(), Operation(delete=DeleteRequest(path="/q"))]
    stream = client.node.Pipeline(PipelineRequest(id=number, operation=step) for number, step in enumerate(steps))
    answers = [answer async for answer in stream]
    assert [answer.id for answer in answers] == list(range(len(steps)))
    outcomes = [answer.result.WhichOneof("result") for answer in answers]
    assert outcomes == ["create", "failure", *["set"] * 200, "check", "failure", "delete"]
    assert [answers[n].result.failure.reason for n in (1, -2)] == ["NODE_EXISTS", "INVALID_ARGUMENT"]
    zxids = [answer.header.zxid for answer in answers if answer.result.WhichOneof("result") == "set"]
    assert zxids == sorted(zxids)


async def test_the_session_is_told_at_once(client: Stubs, host: Host) -> None:
    """S1."""
    answer = await client.session.GetSession(session_pb2.GetSessionRequest())
    assert answer.session.session_id == host.session.status.session_id_hex
    assert answer.session.timeout.ToTimedelta() == timedelta(seconds=host.session.status.timeout_s)
    status = await client.admin.GetStatus(admin_pb2.GetStatusRequest())
    assert (status.session.epoch, status.backend, status.draining) == (1, "kazoo", False)
