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
from zkside.pb import (
    common_pb2,
    election_pb2,
    group_pb2,
    hold_pb2,
    lock_pb2,
    node_pb2,
    session_pb2,
    watch_pb2,
)

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
        self._messages: asyncio.Queue[Message | tuple[grpc.StatusCode, Trailers]] = asyncio.Queue()

    def send(self, *messages: Message) -> None:
        for message in messages:
            self._messages.put_nowait(message)

    def end(self, code: grpc.StatusCode = grpc.StatusCode.OK, trailers: Trailers = ()) -> None:
        self._messages.put_nowait((code, trailers))

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
                "HoldEphemeral": stream(self._serve, node_pb2.HoldEphemeralRequest.FromString, _encoded),
                "Pipeline": grpc.stream_stream_rpc_method_handler(
                    self._serve, node_pb2.PipelineRequest.FromString, _encoded
                ),
                # A call that this server never answers.
                "Set": unary(self._never_answer, node_pb2.SetRequest.FromString, _encoded),
            },
            "LockService": {"Acquire": stream(self._serve, lock_pb2.AcquireRequest.FromString, _encoded)},
            "ElectionService": {
                "Campaign": stream(self._serve, election_pb2.CampaignRequest.FromString, _encoded),
                "Observe": stream(self._serve, election_pb2.ObserveRequest.FromString, _encoded),
            },
            "GroupService": {
                "Join": stream(self._serve, group_pb2.JoinRequest.FromString, _encoded),
                "WatchGroup": stream(self._serve, group_pb2.WatchGroupRequest.FromString, _encoded),
            },
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
