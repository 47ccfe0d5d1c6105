"""The gRPC server: which services, on which listeners, with which options, and how it stops."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_channelz.v1 import channelz, channelz_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from zkside import log
from zkside.errors import Draining
from zkside.hub.hub import Hub
from zkside.pb import (
    admin_pb2,
    carry_pb2,
    election_pb2,
    group_pb2,
    hold_pb2,
    lock_pb2,
    node_pb2,
    session_pb2,
    watch_pb2,
)
from zkside.recipes.holds import Holds
from zkside.recipes.node import Writes
from zkside.recipes.numbers import Numbers
from zkside.recipes.queueing import Queueing
from zkside.recipes.turnstile import Turnstile
from zkside.rpc.admin import AdminServicer, Operation
from zkside.rpc.call_task import serve_calls_in_tasks
from zkside.rpc.carry import CarryServicer
from zkside.rpc.election import ElectionServicer
from zkside.rpc.entrances import Entrances
from zkside.rpc.files import FileWatch
from zkside.rpc.flow import families
from zkside.rpc.group import GroupServicer
from zkside.rpc.health import HealthServicer
from zkside.rpc.hold import HoldServicer
from zkside.rpc.identity import Door
from zkside.rpc.interceptors import Call, Interceptors, Opening, Recall
from zkside.rpc.listeners import TcpListener
from zkside.rpc.lock import LockServicer
from zkside.rpc.node import NodeServicer
from zkside.rpc.session import SessionServicer
from zkside.rpc.settings import RpcSettings
from zkside.rpc.streams import QuotaSettings, Streams, StreamsStatistics
from zkside.rpc.watch import WatchServicer
from zkside.zk.session import Session

if TYPE_CHECKING:
    from zkside.rpc.guarding import Guarding

MAX_MESSAGE_BYTES = 4 * 1024 * 1024

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    # A process that was stopped, or whose host froze, holds its locks until it is found: after two seconds
    # of silence it is pinged, and has two seconds to answer. ping_timeout bounds every ping (60 s by default,
    # which is what counted without it).
    ("grpc.keepalive_time_ms", 2_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.ping_timeout_ms", 2_000),
    # An idle stream is silent, and it is the one that holds: ping without data, as often as it takes.
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    # A client's own keepalive may come every second, by default it would be thrown out (too_many_pings).
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
    # A burst of streams (a host's processes start together) is served, not shed as overload.
    ("grpc.server.max_pending_requests", 5_000),
    ("grpc.server.max_pending_requests_hard_limit", 10_000),
    # A connection that never speaks is closed, not kept for gRPC's two minutes.
    ("grpc.server_handshake_timeout_ms", 10_000),
    # Two daemons on one port would share it silently, each with its own session.
    ("grpc.so_reuseport", 0),
    # Well over jute.maxbuffer, so that our own TOO_LARGE is heard; beyond it gRPC refuses before it reads.
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # What leaves is bounded where it is made (pages, chunks); a GetMany of many large nodes may be larger.
    ("grpc.max_send_message_length", -1),
)
"""Beside max_concurrent_streams, which is configured."""

RETIRED_S = 1e9
"""The grace of a server that has a successor: until its last stream has ended."""
UNKNOWN_S = 0.02
"""How long it is waited whether the client of a method that there is not has gone."""
FAREWELL_S = 0.25
"""How long the last statuses may take to leave a server."""

_SNAKE = re.compile("(?<!^)(?=[A-Z])")


class _Handlers(grpc.GenericRpcHandler):
    """All methods of a server by their full name: one look-up a call."""

    def __init__(self, interceptors: Interceptors, turnstile: Turnstile, door: Door | None = None) -> None:
        self._interceptors = interceptors
        self._turnstile = turnstile
        self._door = door
        self._by_name: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def add(self, service: ServiceDescriptor, servicer: object) -> None:
        """Every method of a service; the servicer's are named as the RPC, in snake case.

        What it has as `recall_…` is asked for an answer first (see rpc/remembered.py).
        """
        for method in service.methods:
            name = _SNAKE.sub("_", method.name).lower()
            handler: Callable[[Any, Call], Any] = getattr(servicer, name)
            recall: Recall | None = getattr(servicer, f"recall_{name}", None)
            self._by_name[f"/{service.full_name}/{method.name}"] = self._interceptors.wrap(
                method, handler, recall, self._door
            )

    def add_foreign(self, service: ServiceDescriptor, servicer: object) -> None:
        """As `add`, for a library's servicer, whose methods take gRPC's own context."""
        for method in service.methods:
            foreign = getattr(servicer, method.name)
            handler = _streaming(foreign) if method.server_streaming else _answering(foreign)
            self._by_name[f"/{service.full_name}/{method.name}"] = self._interceptors.wrap(
                method, handler, door=self._door
            )

    def alias(self, service: str, original: str) -> None:
        """The methods of a service under another service's name."""
        for name, handler in list(self._by_name.items()):
            if name.startswith(f"/{original}/"):
                self._by_name[f"/{service}/{name.rpartition('/')[2]}"] = handler

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        self._turnstile.called()
        handler = self._by_name.get(details.method)
        if handler is None:
            self._interceptors.arrivals.unknown += 1
            return _UNKNOWN
        return self._interceptors.admit(handler)


async def _refuse_unknown(_: object, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
    """As gRPC does; but a client that has gone meanwhile is told nothing (call_task.py)."""
    await asyncio.sleep(UNKNOWN_S)
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


_UNKNOWN: grpc.RpcMethodHandler[Any, Any] = grpc.stream_unary_rpc_method_handler(_refuse_unknown)


def _streaming(handler: Callable[[Any, Any], Any]) -> Callable[[Any, Call], Any]:
    return lambda request, call: handler(request, call.context)


def _answering(handler: Callable[[Any, Any], Any]) -> Callable[[Any, Call], Any]:
    async def serve(request: Any, call: Call) -> Any:
        answer = await handler(request, call.context)
        if answer is None:
            # A library's way to refuse: it has set the code and the words.
            await call.context.abort(call.context.code(), call.context.details())
        return answer

    return serve


class RpcServer:
    """All services on all listeners."""

    def __init__(
        self,
        session: Session,
        hub: Hub,
        holds: Holds,
        settings: RpcSettings,
        files: FileWatch | None = None,
        operation: Operation | None = None,
    ) -> None:
        """`files` looks after the files that the settings name; it is started and stopped by its owner.
        `operation` is what the daemon around this server offers to AdminService."""
        self._session = session
        self._holds = holds
        self._settings = settings
        self.files = files or FileWatch()
        self.streams = Streams(settings.quotas)
        self.interceptors = Interceptors(session, self.streams, settings.quotas)
        self._server_reads = hub.reads.from_server
        self.addresses: tuple[str, ...] = ()
        """Where clients are served, as they write it; known after `start`."""
        self.health_address = ""
        self._writes = Writes(session)
        queueing = Queueing(session, hub, self._writes, holds.turnstile)
        self._services = tuple(
            module.DESCRIPTOR.services_by_name[name]
            for module, name in (
                (session_pb2, "SessionService"),
                (node_pb2, "NodeService"),
                (watch_pb2, "WatchService"),
                (hold_pb2, "HoldService"),
                (lock_pb2, "LockService"),
                (election_pb2, "ElectionService"),
                (group_pb2, "GroupService"),
                (carry_pb2, "CarryService"),
                (admin_pb2, "AdminService"),
            )
        )
        self.health = HealthServicer(service.full_name for service in self._services)
        nodes = self._nodes = NodeServicer(
            session,
            hub,
            self._writes,
            holds,
            settings.default_acl,
            self.interceptors.flow,
            max_pipeline=settings.quotas.max_pipeline,
        )
        locks = LockServicer(hub, holds, queueing, settings.default_acl)
        elections = ElectionServicer(hub, holds, queueing, self._writes, settings.default_acl)
        groups = GroupServicer(hub, holds, self._writes, settings.default_acl)
        opening: dict[str, Opening] = {
            "acquire": locks.acquiring,
            "campaign": elections.campaigning,
            "join": groups.joining,
            "hold_ephemeral": nodes.holding_ephemeral,
        }
        self._servicers: tuple[object, ...] = (
            SessionServicer(session),
            nodes,
            WatchServicer(hub),
            HoldServicer(session, holds),
            locks,
            elections,
            groups,
            CarryServicer(holds, opening),
            AdminServicer(session, hub, holds, self.streams, settings.backend, self.drain, operation),
        )
        self._servers: list[grpc.aio.Server] = []
        self._entrances = Entrances(settings, self.files)
        self._entrances.on_shut = self.health.shut
        self._guarding: Guarding | None = None
        if settings.is_guarded:
            # Other daemons do without its memory.
            from zkside.rpc.guarding import Guarding

            self._guarding = Guarding(settings, self.files, holds, hub)
            self.interceptors.guard = self._guarding.guard
        self._unlisten: Callable[[], None] = lambda: None

    def _all_handlers(self, door: Door | None) -> _Handlers:
        handlers = _Handlers(self.interceptors, self._holds.turnstile, door)
        for service, servicer in zip(self._services, self._servicers, strict=True):
            handlers.add(service, servicer)
        health_service = health_pb2.DESCRIPTOR.services_by_name["Health"]
        channelz_service = channelz_pb2.DESCRIPTOR.services_by_name["Channelz"]
        reflection_service = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
        handlers.add(health_service, self.health)
        handlers.add_foreign(channelz_service, channelz.aio.ChannelzServicer())
        names = [each.full_name for each in (*self._services, health_service, channelz_service, reflection_service)]
        handlers.add_foreign(reflection_service, reflection.aio.ReflectionServicer(names))  # type: ignore[no-untyped-call]
        # The package knows v1alpha only; v1 has the same messages, byte for byte.
        handlers.alias("grpc.reflection.v1.ServerReflection", reflection_service.full_name)
        return handlers

    @property
    def shut(self) -> str:
        """Why a listener cannot be reached any more; '' if all can."""
        return self._entrances.shut

    @property
    def is_draining(self) -> bool:
        return self.streams.draining

    async def start(self) -> None:
        """Serve, whatever ZooKeeper does. Raises: StartError; nothing is left behind then."""
        serve_calls_in_tasks(asyncio.get_running_loop())
        try:
            if self._guarding is not None:
                self._guarding.open()
            self.addresses = self._entrances.open(self._server, self._retire)
            if self._guarding is not None:
                self._entrances.on_tokens_changed(self._guarding.tokens_changed)
            if self._settings.health_listener is not None:
                self._servers.append(self._health_server(self._settings.health_listener))
            for each in self._servers:
                await each.start()
            for address in (*self.addresses, self.health_address):
                if address:
                    log.listener_opened(address=address)
        except BaseException:
            await self._stop_servers(0.0)
            if self._guarding is not None:
                self._guarding.close()
            raise
        self._unlisten = self._session.listen(status=self.health.session_changed)
        self.health.session_changed(self._session.status)

    def _bare_server(self) -> grpc.aio.Server:
        # One connection that opens and resets streams as fast as it can keeps all others waiting for as long as its
        # open ones take, and what gRPC has in hand for them is not given back: this is the only bound on it (adr/0018).
        concurrent = ("grpc.max_concurrent_streams", self._settings.quotas.max_concurrent_streams)
        return grpc.aio.server(options=(*SERVER_OPTIONS, concurrent))

    def _server(self, door: Door | None) -> grpc.aio.Server:
        server = self._bare_server()
        server.add_generic_rpc_handlers((self._all_handlers(door),))
        self._servers.append(server)
        return server

    async def _retire(self, server: grpc.aio.Server) -> None:
        """It has a successor: its streams go on, and who has none left there, or calls, comes to that one."""
        await server.stop(RETIRED_S)
        if server in self._servers:
            self._servers.remove(server)

    def _health_server(self, listener: TcpListener) -> grpc.aio.Server:
        server = self._bare_server()
        handlers = _Handlers(self.interceptors, self._holds.turnstile)
        handlers.add(health_pb2.DESCRIPTOR.services_by_name["Health"], self.health)
        server.add_generic_rpc_handlers((handlers,))
        self.health_address = self._entrances.open_health(server, listener)
        return server

    async def drain(self) -> tuple[int, int]:
        """Refuse new streams and holds, release the holds, end the streams; returns how many of each.

        Calls go on. Returns when no stream is left; there is no way back.
        """
        self.streams.draining = True
        self.health.drain()
        open_streams = len(self.streams)
        log.daemon_draining(holds=len(self._holds), streams=open_streams)
        released = await self._holds.drain()
        await self.streams.end_in_order(Draining("the daemon is being drained"), infrastructure=False)
        ended = open_streams - len(self.streams)
        log.daemon_drained(holds=released, streams=ended)
        return ended, released

    async def stop(self, grace_s: float, *, keep_holds: bool = False) -> None:
        """Stop in order, within the grace time: not serving, no new streams, holds released and their streams
        told (or kept, for the next daemon), all other streams told, calls finished, sockets removed.

        What has not ended by then is cut.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + grace_s
        self._unlisten()
        self.streams.draining = self.streams.stopping = True
        self.health.stop()
        self.interceptors.arrivals.end_all(Draining("the daemon stops"))
        await self._holds.close(keep=keep_holds, within_s=grace_s / 2)
        stopping = Draining("the daemon stops")
        if keep_holds:
            # Their holds go on without them, so they have no last message.
            self.streams.end_all(stopping, infrastructure=False)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until_s):
                await self.streams.end_in_order(stopping, infrastructure=True)
                await self.interceptors.wait_idle()
        # All handlers have ended, or had their time. What a client has not read yet would keep gRPC waiting.
        await self._stop_servers(min(FAREWELL_S, max(0.0, until_s - loop.time())))
        # A handler that was cut runs its last lines after the server has stopped.
        await self.streams.wait_ended(infrastructure=True)
        await self._writes.close()
        if self._guarding is not None:
            self._guarding.close()

    async def _stop_servers(self, grace_s: float) -> None:
        await self._entrances.settle()
        await asyncio.gather(*(server.stop(grace_s) for server in self._servers))
        self._servers.clear()
        self._entrances.close()

    def configure(self, quotas: QuotaSettings) -> None:
        """These limits hold from now on; what is open beyond them stays so."""
        self.streams.quotas = self.interceptors.quotas = quotas
        self.interceptors.arrivals.timeout_s = quotas.message_timeout_s
        self.interceptors.flow.configure(quotas)
        self._nodes.max_pipeline = quotas.max_pipeline

    def collect(self) -> Iterator[Metric]:
        """Collect the families `grpc_server_*`, `zkside_sequence_*`, `zkside_stream*`, `zkside_calls_*`,
        `zkside_bytes_*`, `zkside_listener_*`, `zkside_files_*` and `zkside_tls_*`; `zkside_policy_*` and
        `zkside_audit_*` where there is such a thing."""
        interceptors, guard = self.interceptors, self.interceptors.guard
        guarded = () if guard is None else guard.collect()
        numbers = _of_numbers(self._writes.numbers)
        flows = families({**interceptors.flow.statistics(), **self._server_reads.statistics()})
        rpc = chain(self.streams.collect(), interceptors.collect(), interceptors.arrivals.collect(), flows)
        return chain(numbers, rpc, self._entrances.collect(), guarded)

    def refused(self) -> dict[str, int]:
        """What was refused, counted by limit."""
        flow = self.interceptors.flow
        sizes: Counter[str] = Counter()
        for each in (flow.requests, flow.answers, flow.messages, self._server_reads.in_flight, self._server_reads.held):
            sizes[each.limit] += each.statistics().refused
        return {**self.streams.refused, "max_calls": self.interceptors.refused, **sizes}

    def statistics(self) -> StreamsStatistics:
        return self.streams.statistics()


def _of_numbers(numbers: Numbers) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "zkside_sequence_numbers_left",
        "Sequence numbers that are left at the parent that has fewest, of those used in the last hour.",
        value=numbers.left,
    )
    yield CounterMetricFamily(
        "zkside_sequence_overflows",
        "Sequential creates refused because the numbers of their parent are used up.",
        value=numbers.refused,
    )
