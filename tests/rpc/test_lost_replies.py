"""Writes whose answer is lost with the connection: the proxy keeps the answers back, then cuts (N1, N2, N3)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from kazoo.client import KazooClient

from tests.parts.eventually import until
from tests.parts.proxy import Proxy
from tests.rpc.host import PATIENCE_S, Host, Stubs, failure, fault
from tests.zk.scripted import THROTTLED, refusing
from zkside.cli.zookeeper import ZooKeeperServer
from zkside.model.operation import Create, GetChildren, Sync
from zkside.pb import node_pb2
from zkside.pb.node_pb2 import (
    CreateRequest,
    DeleteRequest,
    GetRequest,
    HoldEphemeralRequest,
    Operation,
    PipelineRequest,
    SetAclRequest,
    SetRequest,
    TransactRequest,
)
from zkside.rpc.interceptors import READY_KEY
from zkside.zk.kazoo import KazooConnection

READY = ((READY_KEY, "true"),)


@asynccontextmanager
async def answer_lost(proxy: Proxy, applied: Callable[[], bool]) -> AsyncIterator[None]:
    """What the body sends is applied and its answer lost; then the network is well again."""
    proxy.hold_replies()
    yield
    await until(applied)
    proxy.cut()
    proxy.heal()


@asynccontextmanager
async def request_lost(proxy: Proxy) -> AsyncIterator[None]:
    """What the body sends never arrives; then the network is well again."""
    sent = proxy.requests.size_bytes
    proxy.hold_requests()
    yield
    await asyncio.to_thread(proxy.wait_for, lambda proxy: proxy.requests.size_bytes > sent + 40)
    proxy.cut()
    proxy.heal()


def has_children(client: KazooClient, number: int) -> bool:
    return len(client.get_children("/p")) == number


def start(call: Any) -> asyncio.Future[Any]:
    """Begin the call now, not when it is awaited."""
    return asyncio.ensure_future(_wait(call))


async def _wait(call: Any) -> Any:
    return await call


@pytest.mark.parametrize("mode", [node_pb2.CREATE_MODE_PERSISTENT, node_pb2.CREATE_MODE_PERSISTENT_SEQUENTIAL])
async def test_a_protected_create_is_found_again(
    shaky_client: Stubs, proxy: Proxy, stock_client: KazooClient, mode: Any
) -> None:
    """N2."""
    stock_client.create("/p")
    async with answer_lost(proxy, lambda: bool(stock_client.get_children("/p"))):
        call = start(shaky_client.node.Create(CreateRequest(path="/p/n-", mode=mode, protected=True)))
    made = await call
    assert stock_client.get_children("/p") == [made.path.removeprefix("/p/")]
    assert made.stat.czxid == stock_client.exists(made.path).czxid


async def test_an_ephemeral_create_is_found_by_its_owner(
    shaky_client: Stubs, shaky_host: Host, proxy: Proxy, stock_client: KazooClient
) -> None:
    """N2: also one with a sequence number, and although its name has no unique prefix."""
    stock_client.create("/p")
    for number, sequential in enumerate((False, True), 1):
        async with answer_lost(proxy, partial(has_children, stock_client, number)):
            stream = shaky_client.node.HoldEphemeral(HoldEphemeralRequest(path=f"/p/e{number}-", sequential=sequential))
            reading = start(stream.read())
        held = await asyncio.wait_for(reading, PATIENCE_S)
        assert len(stock_client.get_children("/p")) == number
        stat = stock_client.exists(held.hold.path)
        assert (stat.czxid, stat.ephemeralOwner) == (held.hold.fencing_token, shaky_host.session.status.session_id)
        shaky_client.__dict__[f"kept{number}"] = stream  # the stream is the hold


async def test_many_lost_sequential_ephemerals_are_each_given_to_one_caller(
    shaky_client: Stubs, proxy: Proxy, stock_client: KazooClient
) -> None:
    """N2: all with the same prefix, all answers lost at once."""
    stock_client.create("/p")
    async with answer_lost(proxy, lambda: len(stock_client.get_children("/p")) == 10):
        streams = [
            shaky_client.node.HoldEphemeral(HoldEphemeralRequest(path="/p/e-", sequential=True)) for _ in range(10)
        ]
        reads = [start(stream.read()) for stream in streams]
    held = await asyncio.wait_for(asyncio.gather(*reads), PATIENCE_S)
    assert sorted(each.hold.path for each in held) == sorted(f"/p/{name}" for name in stock_client.get_children("/p"))


async def test_a_search_that_zookeeper_throttles_is_no_answer_of_the_write(
    zookeeper: ZooKeeperServer, chroot: str, short_path: Path, stock_client: KazooClient
) -> None:
    """N2, V1: THROTTLED would say that nothing was changed. V4: and all of it yields to the session's own."""
    stock_client.create("/p")
    sync, get_children = 9, 12
    left: dict[int, int] = {}
    asked: list[tuple[type[object], bool]] = []
    async with refusing(zookeeper.port, left, THROTTLED) as through:
        with Proxy(int(through.rpartition(":")[2])) as proxy:
            async with Host(proxy.hosts + chroot, short_path) as host, host.stubs() as client:
                sending = KazooConnection.call

                def call(connection: KazooConnection, operation: Any, *, yields: bool = False) -> Any:
                    asked.append((type(operation), yields))
                    return sending(connection, operation, yields=yields)

                with pytest.MonkeyPatch.context() as patched:
                    patched.setattr(KazooConnection, "call", call)
                    async with answer_lost(proxy, lambda: bool(stock_client.get_children("/p"))):
                        creating = start(client.node.Create(CreateRequest(path="/p/n-", protected=True)))
                        left |= {sync: 1, get_children: 1}
                    made = await creating
                assert stock_client.get_children("/p") == [made.path.removeprefix("/p/")]
                assert left == {sync: 0, get_children: 0}
                assert {yields for kind, yields in asked if kind in (Create, Sync, GetChildren)} == {True}


async def test_a_plain_create_that_was_applied_is_told_as_unknown(
    shaky_client: Stubs, proxy: Proxy, stock_client: KazooClient
) -> None:
    """N2: somebody else could have made the same node."""
    async with answer_lost(proxy, lambda: stock_client.exists("/n") is not None):
        call = start(failure(shaky_client.node.Create(CreateRequest(path="/n"))))
    lost = await call
    assert (lost.code, lost.reason) == (grpc.StatusCode.UNKNOWN, "OUTCOME_UNKNOWN")
    assert (lost.metadata["path"], lost.metadata["operation"]) == ("/n", "create")
    # The metadata says how to find out.
    assert stock_client.exists("/n").czxid > int(lost.metadata["zxid_before"], 16)
    assert int(lost.metadata["czxid"], 16) == stock_client.exists("/n").czxid


async def test_writes_that_never_arrived_are_sent_again(
    shaky_client: Stubs, proxy: Proxy, stock_client: KazooClient
) -> None:
    """N2."""
    stock_client.create("/p")
    stock_client.create("/old", b"0")
    stock_client.create("/doomed")
    stock_client.create("/acl")
    acl = [node_pb2.Acl(permissions=31, scheme="world", id="anyone")]
    step = Operation(set=SetRequest(path="/old", data=b"2"))
    calls: list[Callable[[], Any]] = [
        lambda: shaky_client.node.Create(CreateRequest(path="/p/plain")),
        lambda: shaky_client.node.Create(
            CreateRequest(path="/p/seq-", mode=node_pb2.CREATE_MODE_PERSISTENT_SEQUENTIAL)
        ),
        lambda: shaky_client.node.Set(SetRequest(path="/old", data=b"1")),
        lambda: shaky_client.node.Delete(DeleteRequest(path="/doomed")),
        lambda: shaky_client.node.SetAcl(SetAclRequest(path="/acl", acl=acl, expected_version=0)),
        lambda: shaky_client.node.Transact(TransactRequest(operations=[step])),
    ]
    for call in calls:
        # What the session has seen before it writes is what it can tell apart from the write.
        await shaky_client.node.Sync(node_pb2.SyncRequest())
        async with request_lost(proxy):
            answer = start(call())
        await asyncio.wait_for(answer, PATIENCE_S)
    assert sorted(stock_client.get_children("/p"))[0] == "plain"
    assert len(stock_client.get_children("/p")) == 2
    assert (stock_client.get("/old")[0], stock_client.get("/old")[1].version) == (b"2", 2)
    assert stock_client.exists("/doomed") is None
    assert stock_client.get_acls("/acl")[1].aversion == 1


async def test_a_create_that_never_arrived_meets_the_node_that_was_there(
    shaky_client: Stubs, proxy: Proxy, stock_client: KazooClient
) -> None:
    stock_client.create("/n")
    await shaky_client.node.Sync(node_pb2.SyncRequest())
    async with request_lost(proxy):
        call = start(failure(shaky_client.node.Create(CreateRequest(path="/n"))))
    assert (await call).reason == "NODE_EXISTS"


async def test_a_set_and_a_delete_that_were_applied_are_told_as_unknown(
    shaky_client: Stubs, proxy: Proxy, stock_client: KazooClient
) -> None:
    """N2: sent again they could undo what somebody else did meanwhile."""
    stock_client.create("/n")
    async with answer_lost(proxy, lambda: stock_client.exists("/n").version == 1):
        call = start(failure(shaky_client.node.Set(SetRequest(path="/n", data=b"x"))))
    lost = await call
    assert (lost.reason, lost.metadata["version"]) == ("OUTCOME_UNKNOWN", "1")
    assert stock_client.exists("/n").version == 1
    async with answer_lost(proxy, lambda: stock_client.exists("/n") is None):
        call = start(failure(shaky_client.node.Delete(DeleteRequest(path="/n"))))
    assert (await call).reason == "OUTCOME_UNKNOWN"


async def test_a_transaction_that_was_applied_is_applied_once(
    shaky_client: Stubs, proxy: Proxy, stock_client: KazooClient
) -> None:
    """N1, N2."""
    stock_client.create("/n")
    steps = [
        Operation(set=SetRequest(path="/n", data=b"x")),
        Operation(create=CreateRequest(path="/s-", mode=node_pb2.CREATE_MODE_PERSISTENT_SEQUENTIAL)),
    ]
    async with answer_lost(proxy, lambda: stock_client.exists("/n").version == 1):
        call = start(failure(shaky_client.node.Transact(TransactRequest(operations=steps))))
    assert (await call).reason == "OUTCOME_UNKNOWN"
    assert stock_client.exists("/n").version == 1
    assert len([name for name in stock_client.get_children("/") if name.startswith("s-")]) == 1


async def test_a_pipeline_is_never_reordered_by_a_reconnect(
    shaky_client: Stubs, proxy: Proxy, stock_client: KazooClient
) -> None:
    """N3: after the loss everything is refused until the stream is opened again."""
    stock_client.create("/n")
    stream = shaky_client.node.Pipeline()

    async def write(number: int) -> None:
        step = Operation(set=SetRequest(path="/n", data=str(number).encode()))
        await stream.write(PipelineRequest(id=number, operation=step))

    await write(1)
    assert (await stream.read()).result.WhichOneof("result") == "set"
    async with answer_lost(proxy, lambda: stock_client.get("/n")[0] == b"3"):
        await write(2)
        await write(3)
    for number in (2, 3):
        answer = await asyncio.wait_for(stream.read(), PATIENCE_S)
        assert (answer.id, answer.result.failure.reason) == (number, "OUTCOME_UNKNOWN")
    # The session is back, and yet:
    await shaky_client.node.Sync(node_pb2.SyncRequest(), metadata=READY)
    for number in (4, 5):
        await write(number)
        answer = await asyncio.wait_for(stream.read(), PATIENCE_S)
        assert (answer.id, answer.result.failure.reason) == (number, "SESSION_SUSPENDED")
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert stock_client.get("/n")[0] == b"3"


async def test_while_suspended_a_call_fails_at_once_or_waits_if_asked(
    shaky_client: Stubs, shaky_host: Host, proxy: Proxy, stock_client: KazooClient
) -> None:
    """S6."""
    stock_client.create("/n", b"x")
    proxy.refuse()
    proxy.cut()
    await until(lambda: not shaky_host.session.status.state.is_connected)
    suspended = await failure(shaky_client.node.Get(GetRequest(path="/n")))
    assert (suspended.code, suspended.reason) == (grpc.StatusCode.UNAVAILABLE, "SESSION_SUSPENDED")
    assert suspended.retry_after_s is not None
    short = await failure(shaky_client.node.Get(GetRequest(path="/n"), metadata=READY, timeout=0.3))
    assert short.code is grpc.StatusCode.DEADLINE_EXCEEDED
    waiting = [
        start(shaky_client.node.Get(GetRequest(path="/n"), metadata=READY)),
        start(shaky_client.node.Set(SetRequest(path="/n", data=b"y"), metadata=READY)),
        start(shaky_client.node.HoldEphemeral(HoldEphemeralRequest(path="/h"), metadata=READY).read()),
    ]
    done, _ = await asyncio.wait(waiting, timeout=0.2)
    assert not done
    proxy.accept()
    await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE_S)


async def test_a_call_whose_caller_has_gone_is_never_sent(
    shaky_client: Stubs, shaky_host: Host, proxy: Proxy, stock_client: KazooClient
) -> None:
    """S6."""
    proxy.refuse()
    proxy.cut()
    await until(lambda: not shaky_host.session.status.state.is_connected)
    calls = [
        shaky_client.node.Create(CreateRequest(path=f"/n{number}"), metadata=READY, timeout=0.5) for number in range(20)
    ]
    faults = await asyncio.gather(*(failure(call) for call in calls))
    assert {each.code for each in faults} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    proxy.accept()
    await shaky_client.node.Sync(node_pb2.SyncRequest(), metadata=READY)
    assert stock_client.get_children("/") == []


async def test_an_outcome_that_cannot_be_found_out_in_time_is_told_before_the_deadline(
    shaky_client: Stubs, proxy: Proxy, stock_client: KazooClient
) -> None:
    """N2, S6."""
    stock_client.create("/n")
    proxy.hold_replies()
    call = start(failure(shaky_client.node.Set(SetRequest(path="/n", data=b"x"), timeout=1.0)))
    await until(lambda: stock_client.exists("/n").version == 1)
    proxy.refuse()
    proxy.cut()
    lost = await call
    assert (lost.code, lost.reason) == (grpc.StatusCode.UNKNOWN, "OUTCOME_UNKNOWN")


async def test_a_recursive_delete_goes_on_after_a_reconnect(
    shaky_client: Stubs, proxy: Proxy, stock_client: KazooClient
) -> None:
    transaction = stock_client.transaction()
    transaction.create("/tree")
    for number in range(3000):
        transaction.create(f"/tree/{number}")
    transaction.commit()
    call = start(shaky_client.node.Delete(DeleteRequest(path="/tree", recursive=True)))
    await until(lambda: stock_client.exists("/tree").numChildren < 2900)
    proxy.cut()
    try:
        answer = await asyncio.wait_for(call, PATIENCE_S)
    except grpc.aio.AioRpcError as error:
        pytest.fail(str(fault(error)))
    # Deletes whose answers were lost are done and not counted.
    assert 2400 <= answer.deleted <= 3001
    assert stock_client.exists("/tree") is None
