"""A server that does what a test's script says: for what a well-behaved daemon cannot be made to do at will."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import Message

from zkside.client.clock import now_ns
from zkside.errors import ZksideError
from zkside.pb import (
    carry_pb2,
    common_pb2,
    election_pb2,
    group_pb2,
    hold_pb2,
    node_pb2,
    session_pb2,
    watch_pb2,
)
from zkside.rpc import convert

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Trailers = tuple[tuple[str, bytes], ...]


def _encoded(message: Message) -> bytes:
    return message.SerializeToString()


class ScriptedStream:
    """One open stream: the test sends on it and ends it."""

    def __init__(self, request: Any) -> None:
        self.request = request
        self.ended = asyncio.Event()
        """Set when the client has gone, or the script has ended it."""
        self.hold_id = ""
        self._messages: asyncio.Queue[Message | ZksideError | tuple[grpc.StatusCode, Trailers]] = asyncio.Queue()

    def send(self, *messages: Message) -> None:
        for message in messages:
            self._messages.put_nowait(message)

    def refuse(self, error: ZksideError) -> None:
        """End one hold alone, with this error."""
        self._messages.put_nowait(error)

    def end(self, code: grpc.StatusCode = grpc.StatusCode.OK, trailers: Trailers = ()) -> None:
        self._messages.put_nowait((code, trailers))

    async def carry(self, tag: int, context: Context, broken: asyncio.Future[tuple[grpc.StatusCode, Trailers]]) -> None:
        """As a hold of a Carry stream; an end without an error of zkside's breaks that stream."""
        while True:
            message = await self._messages.get()
            told = carry_pb2.CarriedUpdate(tag=tag)
            if isinstance(message, hold_pb2.HoldUpdate):
                self.hold_id = message.hold.hold_id
                told.update.CopyFrom(message)
            elif isinstance(message, ZksideError):
                told.failure.CopyFrom(convert.failure(message))
                told.ended = True
            else:
                assert isinstance(message, tuple)
                if message[0] is not grpc.StatusCode.OK:
                    broken.set_result(message)
                    return
                told.ended = True
            await context.write(carry_pb2.CarryResponse(updates=[told]))
            if told.ended:
                self.ended.set()
                return

    async def serve(self, context: Context) -> AsyncIterator[Message]:
        await context.send_initial_metadata(())
        try:
            while True:
                message = await self._messages.get()
                if isinstance(message, tuple):
                    code, trailers = message
                    context.set_trailing_metadata(trailers)
                    if code is not grpc.StatusCode.OK:
                        context.set_code(code)
                        context.set_details("scripted")
                    return
                assert isinstance(message, Message), "an error of one hold"
                yield message
        finally:
            self.ended.set()


class ScriptedDaemon:
    """Listens where a daemon would; can be cut off and come back."""

    def __init__(self, folder: Path) -> None:
        self.address = f"unix:{folder}/zkside.sock"
        self._streams: asyncio.Queue[ScriptedStream] = asyncio.Queue()
        self._server: grpc.aio.Server | None = None
        self.opened = 0
        self.asked = 0
        """Counts the calls of GetSession: the pulse of who holds something."""
        self.answers = asyncio.Event()
        """Clear it, and GetSession is not answered any more."""
        self.answers.set()
        self.released: asyncio.Queue[str] = asyncio.Queue()
        """The hold_ids of all Release calls."""
        self.releases = asyncio.Event()
        """Clear it, and Release is not answered any more."""
        self.releases.set()

    async def start(self) -> None:
        stream, unary = grpc.unary_stream_rpc_method_handler, grpc.unary_unary_rpc_method_handler
        handlers: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {
            "WatchService": {"Watch": stream(self._serve, watch_pb2.WatchRequest.FromString, _encoded)},
            "NodeService": {
                "Pipeline": grpc.stream_stream_rpc_method_handler(
                    self._serve, node_pb2.PipelineRequest.FromString, _encoded
                ),
                # A call that this server never answers.
                "Set": unary(self._never_answer, node_pb2.SetRequest.FromString, _encoded),
            },
            "CarryService": {
                "Carry": grpc.stream_stream_rpc_method_handler(self._carry, carry_pb2.CarryRequest.FromString, _encoded)
            },
            "ElectionService": {"Observe": stream(self._serve, election_pb2.ObserveRequest.FromString, _encoded)},
            "GroupService": {"WatchGroup": stream(self._serve, group_pb2.WatchGroupRequest.FromString, _encoded)},
            "HoldService": {"Release": unary(self._release, hold_pb2.ReleaseRequest.FromString, _encoded)},
            "SessionService": {"GetSession": unary(self._answer, session_pb2.GetSessionRequest.FromString, _encoded)},
        }
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers(
            tuple(
                grpc.method_handlers_generic_handler(f"zkside.v1.{service}", methods)
                for service, methods in handlers.items()
            )
        )
        self._server.add_insecure_port(self.address)
        await self._server.start()

    async def _serve(self, request: Any, context: Context) -> AsyncIterator[Message]:
        async for message in self._open(request).serve(context):
            yield message

    async def _carry(self, requests: AsyncIterator[carry_pb2.CarryRequest], context: Context) -> None:
        """Every hold is a stream to the test. One that ends without an error of its own breaks the whole call."""
        carried: dict[int, tuple[ScriptedStream, asyncio.Task[None]]] = {}
        broken: asyncio.Future[tuple[grpc.StatusCode, Trailers]] = asyncio.get_running_loop().create_future()
        holds = asyncio.TaskGroup()

        async def read() -> None:
            async for request in requests:
                for step in request.steps:
                    name = step.WhichOneof("step")
                    assert name is not None
                    if name == "release":
                        holds.create_task(self._let_go(step.tag, carried, context))
                    else:
                        stream = self._open(getattr(step, name))
                        carried[step.tag] = stream, holds.create_task(stream.carry(step.tag, context, broken))

        try:
            await context.send_initial_metadata(())
            async with holds:
                reading = holds.create_task(read())
                code, trailers = await broken
                reading.cancel()
                for _, task in carried.values():
                    task.cancel()
            context.set_trailing_metadata(trailers)
            context.set_code(code)
            context.set_details("scripted")
        finally:
            for stream, _ in carried.values():
                stream.ended.set()

    async def _let_go(
        self, tag: int, carried: dict[int, tuple[ScriptedStream, asyncio.Task[None]]], context: Context
    ) -> None:
        stream, task = carried[tag]
        self.released.put_nowait(stream.hold_id)
        await self.releases.wait()
        task.cancel()
        stream.ended.set()
        over = carry_pb2.CarriedUpdate(tag=tag, ended=True)
        over.update.state = hold_pb2.HOLD_STATE_RELEASED
        await context.write(carry_pb2.CarryResponse(updates=[over]))

    async def _never_answer(self, request: Any, context: Context) -> Message:
        stream = self._open(request)
        try:
            never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
            return await never
        finally:
            stream.ended.set()

    async def _answer(self, request: Any, context: Context) -> Message:
        self.asked += 1
        await self.answers.wait()
        return session_pb2.GetSessionResponse()

    async def _release(self, request: hold_pb2.ReleaseRequest, context: Context) -> Message:
        self.released.put_nowait(request.hold_id)
        await self.releases.wait()
        return hold_pb2.ReleaseResponse(released=True)

    def _open(self, request: Any) -> ScriptedStream:
        stream = ScriptedStream(request)
        self.opened += 1
        self._streams.put_nowait(stream)
        return stream

    async def stream(self) -> ScriptedStream:
        """The next stream that a client opens."""
        async with asyncio.timeout(10):
            return await self._streams.get()

    async def stop(self) -> None:
        """Go away at once; `start` comes back on the same socket."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None


def header(zxid: int, *, stale: bool = False) -> common_pb2.Header:
    return common_pb2.Header(session_id="0x1", epoch=1, zxid=zxid, stale=stale)


def node(path: str, data: bytes = b"", *, czxid: int = 1, mzxid: int | None = None) -> common_pb2.Node:
    stat = common_pb2.Stat(czxid=czxid, mzxid=czxid if mzxid is None else mzxid, data_length=len(data))
    return common_pb2.Node(path=path, data=data, stat=stat)


def snapshot(
    zxid: int,
    *nodes: common_pb2.Node,
    target: int = 0,
    reason: watch_pb2.SnapshotReason.ValueType = watch_pb2.SNAPSHOT_REASON_INITIAL,
    more: bool = False,
    epoch_id: str = "e1",
) -> watch_pb2.WatchResponse:
    part = watch_pb2.Snapshot(target=target, reason=reason, nodes=nodes, more=more)
    return watch_pb2.WatchResponse(header=header(zxid), epoch_id=epoch_id, snapshot=part)


def created(made: common_pb2.Node, *, target: int = 0) -> watch_pb2.Change:
    return watch_pb2.Change(target=target, type=watch_pb2.CHANGE_TYPE_CREATED, zxid=made.stat.mzxid, node=made)


def changed(made: common_pb2.Node, *, target: int = 0) -> watch_pb2.Change:
    return watch_pb2.Change(target=target, type=watch_pb2.CHANGE_TYPE_CHANGED, zxid=made.stat.mzxid, node=made)


def deleted(path: str, zxid: int, *, target: int = 0) -> watch_pb2.Change:
    gone = common_pb2.Node(path=path)
    return watch_pb2.Change(target=target, type=watch_pb2.CHANGE_TYPE_DELETED, zxid=zxid, node=gone)


def changes(zxid: int, *parts: watch_pb2.Change, more: bool = False, epoch_id: str = "e1") -> watch_pb2.WatchResponse:
    cut = watch_pb2.Changes(changes=parts, more=more)
    return watch_pb2.WatchResponse(header=header(zxid), epoch_id=epoch_id, changes=cut)


def bookmark(zxid: int, *, epoch_id: str = "e1") -> watch_pb2.WatchResponse:
    return watch_pb2.WatchResponse(header=header(zxid), epoch_id=epoch_id, bookmark=watch_pb2.Bookmark())


def session(
    zxid: int, state: common_pb2.SessionState.ValueType, *, stale: bool = False, epoch_id: str = "e1"
) -> watch_pb2.WatchResponse:
    change = watch_pb2.SessionChange(session=common_pb2.Session(state=state, epoch=1))
    return watch_pb2.WatchResponse(header=header(zxid, stale=stale), epoch_id=epoch_id, session=change)


def updated(zxid: int, ident: int) -> node_pb2.PipelineResponse:
    result = node_pb2.OperationResult(set=node_pb2.SetResponse(stat=common_pb2.Stat(mzxid=zxid)))
    return node_pb2.PipelineResponse(header=header(zxid), id=ident, result=result)


def hold_update(
    state: hold_pb2.HoldState.ValueType,
    reason: str = "",
    *,
    lease_s: float = 30.0,
    position: int = 0,
    token: int = 7,
) -> hold_pb2.HoldUpdate:
    """Of the hold "h1"; `lease_s` from now on, 0 is "let go now"."""
    lease_ns = now_ns() + round(lease_s * 1e9) if lease_s else 0
    hold = hold_pb2.Hold(
        hold_id="h1",
        path="/a/node",
        epoch=1,
        fencing_token=token,
        lease_boottime_ns=lease_ns,
        lease_monotonic_ns=lease_ns,
        resume_token="secret",
    )
    return hold_pb2.HoldUpdate(header=header(token), hold=hold, state=state, reason=reason, position=position)


HELD, WAITING, JEOPARDY = hold_pb2.HOLD_STATE_HELD, hold_pb2.HOLD_STATE_WAITING, hold_pb2.HOLD_STATE_JEOPARDY
RELEASED, LOST = hold_pb2.HOLD_STATE_RELEASED, hold_pb2.HOLD_STATE_LOST
