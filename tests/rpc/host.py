"""A daemon in this process, from the session to its gRPC server, and clients of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2_grpc

from zkside.hub.hub import Hub, HubSettings
from zkside.model.operation import OPEN_ACL, Acl
from zkside.pb import (
    admin_pb2_grpc,
    carry_pb2_grpc,
    election_pb2_grpc,
    group_pb2_grpc,
    hold_pb2_grpc,
    lock_pb2_grpc,
    node_pb2_grpc,
    session_pb2_grpc,
    watch_pb2_grpc,
)
from zkside.recipes.holds import Holds, HoldSettings
from zkside.rpc.files import FileWatch
from zkside.rpc.listeners import TcpListener, TlsFiles, UnixListener
from zkside.rpc.server import RpcServer
from zkside.rpc.settings import RpcSettings
from zkside.rpc.streams import QuotaSettings
from zkside.zk.journal import Journal
from zkside.zk.kazoo import KazooSettings, kazoo_connector
from zkside.zk.session import Session, SessionSettings

TIMEOUT_S = 4.0
TICK_S = 0.2
PATIENCE_S = 20.0
"""Longer than anything here takes."""

# The load of one test is a burst from one address: retries of gRPC's own would hide what is looked for.
CHANNEL_OPTIONS = (("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1))


class Stubs:
    """Every service over one channel."""

    def __init__(self, address: str, options: tuple[tuple[str, int], ...] = ()) -> None:
        self.address = address
        self.channel = grpc.aio.insecure_channel(address, options=(*CHANNEL_OPTIONS, *options))
        self.session: Any = session_pb2_grpc.SessionServiceStub(self.channel)
        self.node: Any = node_pb2_grpc.NodeServiceStub(self.channel)
        self.watch: Any = watch_pb2_grpc.WatchServiceStub(self.channel)
        self.hold: Any = hold_pb2_grpc.HoldServiceStub(self.channel)
        self.lock: Any = lock_pb2_grpc.LockServiceStub(self.channel)
        self.election: Any = election_pb2_grpc.ElectionServiceStub(self.channel)
        self.group: Any = group_pb2_grpc.GroupServiceStub(self.channel)
        self.carry: Any = carry_pb2_grpc.CarryServiceStub(self.channel)
        self.admin: Any = admin_pb2_grpc.AdminServiceStub(self.channel)
        self.health: Any = health_pb2_grpc.HealthStub(self.channel)  # type: ignore[no-untyped-call]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()


class Host:
    """`async with Host(hosts, directory) as host`: connected and serving on a socket in the directory."""

    def __init__(
        self,
        hosts: str,
        directory: Path,
        *,
        listeners: tuple[Any, ...] = (),
        health_listener: TcpListener | None = None,
        quotas: QuotaSettings | None = None,
        hold_settings: HoldSettings | None = None,
        journal: Journal | None = None,
        timeout_s: float = TIMEOUT_S,
        connect: bool = True,
        tls: TlsFiles | None = None,
        token_files: tuple[Path, ...] = (),
        policy_file: Path | None = None,
        audit_file: Path | None = None,
        max_audit_waiting: int = 10_000,
        auth: tuple[tuple[str, str], ...] = (),
        default_acl: tuple[Acl, ...] = OPEN_ACL,
    ) -> None:
        self.session = Session(
            kazoo_connector(KazooSettings(hosts, session_timeout_s=timeout_s, auth=auth)),
            SessionSettings(timeout_s=timeout_s, tick_s=TICK_S, proof_interval_s=0.1),
            journal,
        )
        self.hub = Hub(self.session, HubSettings())
        self.holds = Holds(self.session, self.hub, hold_settings)
        quotas = quotas or QuotaSettings()
        self.files = FileWatch()
        self.rpc = RpcServer(
            self.session,
            self.hub,
            self.holds,
            RpcSettings(
                listeners or (UnixListener(directory / "zkside.sock"),),
                health_listener=health_listener,
                quotas=quotas,
                tls=tls,
                token_files=token_files,
                policy_file=policy_file,
                audit_file=audit_file,
                max_audit_waiting=max_audit_waiting,
                default_acl=default_acl,
            ),
            self.files,
        )
        self._connect = connect
        self._stopped = False

    @property
    def address(self) -> str:
        return self.rpc.addresses[0]

    async def start(self) -> None:
        self.session.start()
        self.hub.start()
        self.holds.start()
        await self.rpc.start()
        if self._connect:
            await self.session.wait_connected()

    async def stop(self, grace_s: float = 2.0, *, keep: bool = False) -> None:
        if not self._stopped:
            self._stopped = True
            await self.rpc.stop(grace_s, keep_holds=keep)
            await self.hub.close()
            await self.session.close(keep_session=keep, within_s=2.0)

    def stubs(self) -> Stubs:
        """A client of its own, with a connection of its own."""
        return Stubs(self.address)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


@dataclass(frozen=True, slots=True)
class Fault:
    """What a client makes of an error."""

    code: grpc.StatusCode
    message: str
    reason: str
    metadata: Mapping[str, str]
    retry_after_s: float | None
    fields: tuple[str, ...]


def fault(error: grpc.aio.AioRpcError) -> Fault:
    """The whole status; its reason is '' when gRPC itself made it."""
    reason, metadata, retry_after_s, fields = "", {}, None, ()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value)
            assert status.code == error.code().value[0]
            for detail in status.details:
                info: Any
                if detail.Unpack(info := error_details_pb2.ErrorInfo()):
                    assert info.domain == "zkside"
                    reason, metadata = info.reason, dict(info.metadata)
                if detail.Unpack(info := error_details_pb2.RetryInfo()):
                    retry_after_s = info.retry_delay.ToTimedelta().total_seconds()
                if detail.Unpack(info := error_details_pb2.BadRequest()):
                    fields = tuple(each.field for each in info.field_violations)
    return Fault(error.code(), error.details() or "", reason, metadata, retry_after_s, fields)


async def failure(call: Any) -> Fault:
    """The error that a call, or the first message of a stream, ends with."""
    try:
        if hasattr(call, "read"):
            await call.read()
            await call.code()
            raise AssertionError("the stream did not fail")
        await call
    except grpc.aio.AioRpcError as error:
        return fault(error)
    raise AssertionError("the call did not fail")
