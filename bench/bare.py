"""The limit: a bare grpc.aio server that does nothing but answer the same methods with the same bytes.

It answers zkside's method names, so the very same clients measure both.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import grpc

from bench.crew import Link
from zkside.pb import common_pb2, hold_pb2, node_pb2, watch_pb2

WATCH = "/zkside.v1.WatchService/Watch"
GET = "/zkside.v1.NodeService/Get"
SET = "/zkside.v1.NodeService/Set"
ACQUIRE = "/zkside.v1.LockService/Acquire"
RELEASE = "/zkside.v1.HoldService/Release"
TRIGGER = "/bench/Trigger"

# Without these a burst of new streams is answered with CANCELLED.
OPTIONS = [("grpc.max_pending_requests", 10_000), ("grpc.max_pending_requests_hard_limit", 20_000)]

_STAT = common_pb2.Stat(
    czxid=0x1000, mzxid=0x2000, ctime=1_700_000_000_000, mtime=1_700_000_000_001, version=7, pzxid=0x1000
)
_HEADER = common_pb2.Header(session_id="0x100001234560000", epoch=1, zxid=0x2000)


def node_of(path: str, data: bytes) -> common_pb2.Node:
    """A node as zkside would send it."""
    node = common_pb2.Node(path=path, data=data, stat=_STAT)
    node.stat.data_length = len(data)
    return node


def change_of(path: str, data: bytes) -> bytes:
    """The message that tells one change of one node."""
    change = watch_pb2.Change(type=watch_pb2.CHANGE_TYPE_CHANGED, zxid=0x2000, node=node_of(path, data))
    message = watch_pb2.WatchResponse(header=_HEADER, epoch_id="0x1", changes=watch_pb2.Changes(changes=[change]))
    return message.SerializeToString()


def get_answer(path: str, data: bytes) -> bytes:
    return node_pb2.GetResponse(header=_HEADER, node=node_of(path, data)).SerializeToString()


def hold_update(state: hold_pb2.HoldState.ValueType, hold_id: str, path: str) -> bytes:
    hold = hold_pb2.Hold(
        hold_id=hold_id,
        path=f"{path}/_c_00000000-0000-0000-0000-000000000000-lock-0000000012",
        epoch=1,
        fencing_token=0x1000,
        lease_boottime_ns=10**13,
        lease_monotonic_ns=10**13,
        resume_token="A" * 32,
    )
    return hold_pb2.HoldUpdate(header=_HEADER, hold=hold, state=state, reason="GRANTED").SerializeToString()


def set_answer() -> bytes:
    return node_pb2.SetResponse(header=_HEADER, stat=_STAT).SerializeToString()


class _Bare(grpc.GenericRpcHandler):
    """Watches hear what is triggered; every lock is free; every other unary call gets the same bytes."""

    def __init__(self, path: str, data: bytes) -> None:
        self._path = path
        self._latest = change_of(path, data)
        self._next: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        get, set_ = get_answer(path, data), set_answer()

        async def answer_get(request: bytes, context: object) -> bytes:
            return get

        async def answer_set(request: bytes, context: object) -> bytes:
            return set_

        self._methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            WATCH: grpc.unary_stream_rpc_method_handler(self._watch),
            TRIGGER: grpc.unary_unary_rpc_method_handler(self._trigger),
            GET: grpc.unary_unary_rpc_method_handler(answer_get),
            SET: grpc.unary_unary_rpc_method_handler(answer_set),
            ACQUIRE: grpc.unary_stream_rpc_method_handler(self._acquire),
            RELEASE: grpc.unary_unary_rpc_method_handler(self._release),
        }
        self._held: dict[str, asyncio.Future[None]] = {}
        self._numbers = itertools.count()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._methods.get(handler_call_details.method)

    async def _watch(self, request: bytes, context: object) -> AsyncIterator[bytes]:
        following = self._next
        yield self._latest
        while True:
            message = await asyncio.shield(following)
            following = self._next
            yield message

    async def _acquire(self, request: bytes, context: object) -> AsyncIterator[bytes]:
        hold_id = f"{next(self._numbers):016x}"
        released = self._held[hold_id] = asyncio.get_running_loop().create_future()
        try:
            yield hold_update(hold_pb2.HOLD_STATE_HELD, hold_id, self._path)
            await released
            yield hold_update(hold_pb2.HOLD_STATE_RELEASED, hold_id, self._path)
        finally:
            del self._held[hold_id]

    async def _release(self, request: bytes, context: object) -> bytes:
        self._held[hold_pb2.ReleaseRequest.FromString(request).hold_id].set_result(None)
        return hold_pb2.ReleaseResponse(header=_HEADER, released=True).SerializeToString()

    async def _trigger(self, request: bytes, context: object) -> bytes:
        self._latest = change_of(self._path, request)
        due, self._next = self._next, asyncio.get_running_loop().create_future()
        due.set_result(self._latest)
        return b""


def serve(link: Link, address: str, path: str, data: bytes) -> None:
    """Work: serve at `address` until ended. Says "ready"."""

    async def run() -> None:
        server = grpc.aio.server(options=OPTIONS)
        server.add_generic_rpc_handlers((_Bare(path, data),))
        server.add_insecure_port(address)
        await server.start()
        link.say("ready")
        await link.heard()
        await server.stop(None)

    asyncio.run(run())
