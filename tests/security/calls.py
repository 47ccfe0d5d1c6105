"""For every RPC: how to call it with a path, and what that needs. Complete by test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.rpc.host import PATIENCE_S, Fault, Stubs, fault
from zkside.pb import (
    admin_pb2,
    carry_pb2,
    carry_pb2_grpc,
    election_pb2,
    group_pb2,
    lock_pb2,
    node_pb2,
    session_pb2,
    watch_pb2,
)

AT_ONCE = Duration()
NO_SUCH_VERSION = 2_000_000_000


@dataclass(frozen=True)
class Heard:
    """What a caller got: its first answer, or an error."""

    answer: Message | None = None
    error: Fault | None = None
    trailers: bytes = b""

    @property
    def reason(self) -> str:
        return self.error.reason or self.error.code.name if self.error is not None else "OK"

    def raw(self) -> bytes:
        """Everything that came over the wire."""
        told = self.answer.SerializeToString() if self.answer is not None else b""
        message = self.error.message.encode() if self.error is not None else b""
        return told + message + self.trailers


async def hear(call: Any) -> Heard:
    """The answer of a unary call, or the first message of a stream, which is then cancelled."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            if not hasattr(call, "read"):
                return Heard(await call)
            answer = await call.read()
            if answer is grpc.aio.EOF:
                await call.code()
                raise AssertionError("a stream ended without a message")
            return Heard(answer)
    except grpc.aio.AioRpcError as error:
        trailers = b"".join(
            str(key).encode() + (value if isinstance(value, bytes) else str(value).encode())
            for key, value in (*(error.trailing_metadata() or ()), *(error.initial_metadata() or ()))
        )
        return Heard(error=fault(error), trailers=trailers)
    finally:
        if hasattr(call, "cancel"):
            call.cancel()


Calling = Callable[[Stubs, str, bytes], Any]


@dataclass(frozen=True)
class Way:
    """A way to use one RPC on a path. `data` says who made a node."""

    method: str
    needs: str
    """A verb, "known" for any identity, or "open" for everybody."""
    call: Calling
    child: bool = False
    """It makes a node under a name that is not known before."""
    slash: bool = False
    """A path may end in a slash."""
    has_path: bool = True
    refusal: Callable[[Any], str] = lambda answer: ""
    """The reason in an answer that says so itself."""
    not_root: bool = False
    """Is refused on "/" as a malformed request."""


async def _one(request: Any) -> AsyncIterator[Any]:
    yield request


def _carried(answer: carry_pb2.CarryResponse) -> str:
    return answer.updates[0].failure.reason


def _operation(kind: str, path: str, data: bytes) -> node_pb2.Operation:
    made = node_pb2.Operation()
    request = getattr(made, kind)
    request.path = path
    if kind == "create":
        request.data = data
    else:
        request.expected_version = NO_SUCH_VERSION
    return made


def _node(name: str, make: Callable[[str, bytes], Any], needs: str, **more: Any) -> Way:
    return Way(f"zkside.v1.NodeService/{name}", needs, lambda s, p, d: getattr(s.node, name)(make(p, d)), **more)


def _carry(name: str, request: Callable[[str, bytes], Any], **more: Any) -> Way:
    def call(stubs: Stubs, path: str, data: bytes) -> Any:
        step = carry_pb2.CarryStep(tag=7, **{name: request(path, data)})
        service: Any = carry_pb2_grpc.CarryServiceStub(stubs.channel)
        return service.Carry(_one(carry_pb2.CarryRequest(steps=[step])))

    return Way("zkside.v1.CarryService/Carry", "hold", call, refusal=_carried, **more)


def _acquire(path: str, data: bytes) -> lock_pb2.AcquireRequest:
    return lock_pb2.AcquireRequest(path=path, value=data, wait_timeout=AT_ONCE)


def _campaign(path: str, data: bytes) -> election_pb2.CampaignRequest:
    layout = election_pb2.ELECTION_LAYOUT_LOCK
    return election_pb2.CampaignRequest(path=path, value=data, wait_timeout=AT_ONCE, layout=layout)


def _join(path: str, data: bytes) -> group_pb2.JoinRequest:
    return group_pb2.JoinRequest(path=path, data=data)


def _ephemeral(path: str, data: bytes, **more: Any) -> node_pb2.HoldEphemeralRequest:
    return node_pb2.HoldEphemeralRequest(path=path, data=data, **more)


_SEQUENTIAL = node_pb2.CREATE_MODE_PERSISTENT_SEQUENTIAL

WITH_PATH: tuple[Way, ...] = (
    _node("Get", lambda p, d: node_pb2.GetRequest(path=p), "read"),
    _node(
        "Get",
        lambda p, d: node_pb2.GetRequest(path=p, options=node_pb2.ReadOptions(consistency=node_pb2.CONSISTENCY_CACHED)),
        "read",
    ),
    _node("GetMany", lambda p, d: node_pb2.GetManyRequest(paths=[p, p]), "read"),
    _node("Exists", lambda p, d: node_pb2.ExistsRequest(path=p), "read"),
    _node("List", lambda p, d: node_pb2.ListRequest(path=p, with_nodes=True), "read"),
    _node("GetAcl", lambda p, d: node_pb2.GetAclRequest(path=p), "read"),
    _node("Create", lambda p, d: node_pb2.CreateRequest(path=p, data=d), "write"),
    _node(
        "Create", lambda p, d: node_pb2.CreateRequest(path=p, data=d, mode=_SEQUENTIAL), "write", child=True, slash=True
    ),
    _node("Create", lambda p, d: node_pb2.CreateRequest(path=p, data=d, protected=True), "write", child=True),
    _node("Set", lambda p, d: node_pb2.SetRequest(path=p, data=d, expected_version=NO_SUCH_VERSION), "write"),
    _node(
        "Delete",
        lambda p, d: node_pb2.DeleteRequest(path=p, expected_version=NO_SUCH_VERSION),
        "write",
        not_root=True,
    ),
    _node(
        "SetAcl",
        lambda p, d: node_pb2.SetAclRequest(
            path=p,
            acl=[node_pb2.Acl(permissions=31, scheme="world", id="anyone")],
            expected_version=NO_SUCH_VERSION,
        ),
        "admin",
    ),
    *(
        _node(
            "Transact",
            lambda p, d, kind=kind: node_pb2.TransactRequest(operations=[_operation(kind, p, d)]),  # type: ignore[misc]
            needs,
            not_root=kind == "delete",
        )
        for kind, needs in (("create", "write"), ("set", "write"), ("delete", "write"), ("check", "read"))
    ),
    *(
        _node(
            "Pipeline",
            lambda p, d, kind=kind: _one(  # type: ignore[misc]
                node_pb2.PipelineRequest(id=1, operation=_operation(kind, p, d))
            ),
            needs,
            refusal=lambda answer: answer.result.failure.reason,
            not_root=kind == "delete",
        )
        for kind, needs in (("create", "write"), ("set", "write"), ("delete", "write"), ("check", "read"))
    ),
    _node("HoldEphemeral", _ephemeral, "hold"),
    _node("HoldEphemeral", lambda p, d: _ephemeral(p, d, sequential=True), "hold", child=True, slash=True),
    Way(
        "zkside.v1.WatchService/Watch",
        "read",
        lambda s, p, d: s.watch.Watch(
            watch_pb2.WatchRequest(targets=[watch_pb2.WatchTarget(path=p, scope=watch_pb2.SCOPE_CHILDREN)])
        ),
    ),
    Way(
        "zkside.v1.WatchService/Watch",
        "read",
        lambda s, p, d: s.watch.Watch(
            watch_pb2.WatchRequest(targets=[watch_pb2.WatchTarget(path=p)], mode=watch_pb2.WATCH_MODE_EVENTS)
        ),
    ),
    Way("zkside.v1.LockService/Acquire", "hold", lambda s, p, d: s.lock.Acquire(_acquire(p, d))),
    Way(
        "zkside.v1.LockService/GetContenders",
        "read",
        lambda s, p, d: s.lock.GetContenders(lock_pb2.GetContendersRequest(path=p)),
    ),
    Way("zkside.v1.ElectionService/Campaign", "hold", lambda s, p, d: s.election.Campaign(_campaign(p, d))),
    Way(
        "zkside.v1.ElectionService/Observe",
        "read",
        lambda s, p, d: s.election.Observe(election_pb2.ObserveRequest(path=p)),
    ),
    Way(
        "zkside.v1.ElectionService/GetLeader",
        "read",
        lambda s, p, d: s.election.GetLeader(election_pb2.GetLeaderRequest(path=p)),
    ),
    Way("zkside.v1.GroupService/Join", "hold", lambda s, p, d: s.group.Join(_join(p, d))),
    Way(
        "zkside.v1.GroupService/WatchGroup",
        "read",
        lambda s, p, d: s.group.WatchGroup(group_pb2.WatchGroupRequest(path=p)),
    ),
    Way(
        "zkside.v1.GroupService/ListGroup",
        "read",
        lambda s, p, d: s.group.ListGroup(group_pb2.ListGroupRequest(path=p)),
    ),
    _carry("acquire", _acquire),
    _carry("campaign", _campaign),
    _carry("join", _join),
    _carry("hold_ephemeral", _ephemeral),
)


def _plain(service: str, stub: str, name: str, request: Message, needs: str) -> Way:
    def call(stubs: Stubs, path: str, data: bytes) -> Any:
        return getattr(getattr(stubs, stub), name)(request)

    return Way(f"zkside.v1.{service}/{name}", needs, call, has_path=False)


def _channelz(name: str, request: Message) -> Way:
    def call(stubs: Stubs, path: str, data: bytes) -> Any:
        service: Any = channelz_pb2_grpc.ChannelzStub(stubs.channel)  # type: ignore[no-untyped-call]
        return getattr(service, name)(request)

    return Way(f"grpc.channelz.v1.Channelz/{name}", "admin", call, has_path=False)


def _health(name: str, request: Message) -> Way:
    return Way(
        f"grpc.health.v1.Health/{name}", "open", lambda s, p, d: getattr(s.health, name)(request), has_path=False
    )


def _reflection(stubs: Stubs, path: str, data: bytes) -> Any:
    service: Any = reflection_pb2_grpc.ServerReflectionStub(stubs.channel)  # type: ignore[no-untyped-call]
    return service.ServerReflectionInfo(_one(reflection_pb2.ServerReflectionRequest(list_services="")))


WITHOUT_PATH: tuple[Way, ...] = (
    _plain("SessionService", "session", "GetSession", session_pb2.GetSessionRequest(), "known"),
    _plain("SessionService", "session", "WatchSession", session_pb2.WatchSessionRequest(), "known"),
    _plain("NodeService", "node", "Sync", node_pb2.SyncRequest(), "known"),
    _plain("AdminService", "admin", "GetStatus", admin_pb2.GetStatusRequest(), "admin"),
    _plain("AdminService", "admin", "ListHolds", admin_pb2.ListHoldsRequest(), "admin"),
    _plain("AdminService", "admin", "ListWatches", admin_pb2.ListWatchesRequest(), "admin"),
    _plain("AdminService", "admin", "ListStreams", admin_pb2.ListStreamsRequest(), "admin"),
    _plain("AdminService", "admin", "GetLogLevel", admin_pb2.GetLogLevelRequest(), "admin"),
    _plain("AdminService", "admin", "ListLogLines", admin_pb2.ListLogLinesRequest(), "admin"),
    _plain("AdminService", "admin", "DumpState", admin_pb2.DumpStateRequest(), "admin"),
    _health("Check", health_pb2.HealthCheckRequest()),
    _health("List", health_pb2.HealthListRequest()),
    _health("Watch", health_pb2.HealthCheckRequest()),
    Way("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "known", _reflection, has_path=False),
    _channelz("GetTopChannels", channelz_pb2.GetTopChannelsRequest()),
    _channelz("GetServers", channelz_pb2.GetServersRequest()),
    _channelz("GetServer", channelz_pb2.GetServerRequest(server_id=1)),
    _channelz("GetServerSockets", channelz_pb2.GetServerSocketsRequest(server_id=1)),
    _channelz("GetChannel", channelz_pb2.GetChannelRequest(channel_id=1)),
    _channelz("GetSubchannel", channelz_pb2.GetSubchannelRequest(subchannel_id=1)),
    _channelz("GetSocket", channelz_pb2.GetSocketRequest(socket_id=1)),
)
