"""Reads under way while the connection to ZooKeeper is cut: done again, or told as SESSION_SUSPENDED (S6)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from tests.parts.proxy import Proxy
from tests.rpc.host import Stubs, failure
from tests.rpc.test_lost_replies import request_lost, start
from zkside.pb import common_pb2, election_pb2, group_pb2, lock_pb2, node_pb2
from zkside.pb.node_pb2 import CONSISTENCY_LINEARIZABLE, CONSISTENCY_SERVER, ReadOptions
from zkside.rpc import again
from zkside.rpc.again import only_reads

SERVER = ReadOptions(consistency=CONSISTENCY_SERVER)
LINEARIZABLE = ReadOptions(consistency=CONSISTENCY_LINEARIZABLE)


READS: dict[str, Callable[[Stubs, ReadOptions], Any]] = {
    "Get": lambda client, options: client.node.Get(node_pb2.GetRequest(path="/", options=options)),
    "Exists": lambda client, options: client.node.Exists(node_pb2.ExistsRequest(path="/absent", options=options)),
    "List": lambda client, options: client.node.List(node_pb2.ListRequest(path="/", options=options)),
    "GetMany": lambda client, options: client.node.GetMany(
        node_pb2.GetManyRequest(paths=["/", "/absent"], options=options)
    ),
    "GetAcl": lambda client, options: client.node.GetAcl(node_pb2.GetAclRequest(path="/")),
    "Sync": lambda client, options: client.node.Sync(node_pb2.SyncRequest(path="/")),
}


@pytest.mark.parametrize("options", [SERVER, LINEARIZABLE], ids=["server", "linearizable"])
@pytest.mark.parametrize("name", READS)
async def test_a_read_whose_answer_is_lost_is_done_again(
    shaky_client: Stubs, proxy: Proxy, name: str, options: ReadOptions
) -> None:
    """S6: nobody hears of the cut, as a read has changed nothing."""
    async with request_lost(proxy):
        call = start(READS[name](shaky_client, options))
    assert (await call).header.zxid > 0


async def test_a_read_whose_connection_does_not_come_back_is_told_so_in_time(
    shaky_client: Stubs, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S6: within the caller's deadline, and without one after a while of its own."""
    monkeypatch.setattr(again, "PATIENCE_S", 0.3)
    sent = proxy.requests.size_bytes
    proxy.hold_requests()
    request = node_pb2.GetRequest(path="/", options=SERVER)
    calls = [start(failure(shaky_client.node.Get(request, timeout=timeout_s))) for timeout_s in (1.0, None)]
    await asyncio.to_thread(proxy.wait_for, lambda proxy: proxy.requests.size_bytes > sent + 40)
    proxy.refuse()
    began = time.perf_counter()
    proxy.cut()
    for ended in await asyncio.gather(*calls):
        assert (ended.code, ended.reason) == (grpc.StatusCode.UNAVAILABLE, "SESSION_SUSPENDED")
    assert time.perf_counter() - began < 1.0
    proxy.accept()
    proxy.heal()


async def test_a_write_whose_answer_is_lost_is_not_taken_for_a_read(shaky_client: Stubs, proxy: Proxy) -> None:
    """N2: what cannot be found out is OUTCOME_UNKNOWN, and never CONNECTION_LOSS."""
    async with request_lost(proxy):
        call = start(failure(shaky_client.node.Delete(node_pb2.DeleteRequest(path="/absent"))))
    ended = await call
    assert ended.reason in ("NO_NODE", "OUTCOME_UNKNOWN")


def test_which_methods_only_read_is_told_by_their_names() -> None:
    """A method that is added has to stand here, so that none is done twice by its name alone."""
    unary = [
        method
        for module in (node_pb2, lock_pb2, election_pb2, group_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if not method.server_streaming
    ]
    assert {method.name for method in unary if not only_reads(method)} == {
        *("Create", "Set", "Delete", "Transact", "SetAcl"),
        *("Proclaim", "ConfirmShrink"),
    }
    assert common_pb2.DESCRIPTOR.services_by_name == {}
