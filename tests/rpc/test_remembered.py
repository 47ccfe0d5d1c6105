"""Remembered answers to cached Gets: the same as new ones, always."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from tests.parts.proxy import Proxy
from tests.rpc.host import PATIENCE_S, Host, Stubs
from zkside.pb import common_pb2, node_pb2
from zkside.rpc import remembered
from zkside.rpc.remembered import RememberedGets

CACHED = node_pb2.ReadOptions(consistency=node_pb2.CONSISTENCY_CACHED)


async def test_a_remembered_answer_goes_with_the_state_that_it_tells(host: Host, client: Stubs) -> None:
    """R1, R3: through sets, a deletion and a new creation, by this client or another session."""
    get = node_pb2.GetRequest(path="/a", options=CACHED)
    await client.node.Create(node_pb2.CreateRequest(path="/a", data=b"0"))
    for number in range(50):
        data = b"%d" % number
        stat = (await client.node.Set(node_pb2.SetRequest(path="/a", data=data))).stat
        for _ in range(3):
            answer = await client.node.Get(get)
            assert (answer.node.data, answer.node.stat) == (data, stat)
            assert answer.header.zxid >= stat.mzxid
    before = host.hub.statistics().reads_cached
    assert (await client.node.Get(get)).node.data == b"49"
    assert host.hub.statistics().reads_cached == before + 1
    await client.node.Delete(node_pb2.DeleteRequest(path="/a"))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.node.Get(get)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_without_a_connection_no_remembered_answer_passes_for_a_current_one(
    shaky_host: Host, shaky_client: Stubs, proxy: Proxy
) -> None:
    """R3, R5"""
    get = node_pb2.GetRequest(path="/a", options=CACHED)
    await shaky_client.node.Create(node_pb2.CreateRequest(path="/a", data=b"1"))
    fresh = [await shaky_client.node.Get(get) for _ in range(2)]
    assert not any(answer.header.stale for answer in fresh)
    suspended = asyncio.Event()
    unlisten = shaky_host.session.listen(status=lambda status: suspended.set())
    proxy.refuse()
    proxy.cut()
    async with asyncio.timeout(PATIENCE_S):
        await suspended.wait()
    unlisten()
    for _ in range(2):
        answer = await shaky_client.node.Get(get)
        assert (answer.node.data, answer.header.stale) == (b"1", True)


async def test_what_is_remembered_is_bounded(host: Host, client: Stubs, monkeypatch: pytest.MonkeyPatch) -> None:
    """O1"""
    monkeypatch.setattr(remembered, "MOST_BYTES", 10_000)
    answers = RememberedGets(host.hub)
    for number in range(100):
        path = f"/n{number}"
        await client.node.Create(node_pb2.CreateRequest(path=path))
        await client.node.Get(node_pb2.GetRequest(path=path, options=CACHED))
        record, root = host.hub.table.records[path], host.hub.roots.live_at(path)
        assert record is not None
        assert root is not None
        node = common_pb2.Node(path=path).SerializeToString()
        answers.remember(path.encode(), path, record, root, node)
    known = [number for number in range(100) if answers.recall(b"/n%d" % number) is not None]
    assert known == list(range(100 - len(known), 100))
    assert 10 < len(known) < 25
