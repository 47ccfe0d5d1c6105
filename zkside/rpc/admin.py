"""AdminService: looks into the running daemon, and drains it."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Protocol

import zkside
from zkside.errors import NotSupported
from zkside.hub.hub import Hub
from zkside.model.admin import LoggerLevel, Reloaded
from zkside.pb import admin_pb2
from zkside.recipes.holds import Holds
from zkside.rpc import convert
from zkside.rpc.interceptors import Call, StreamCall
from zkside.rpc.streams import Streams
from zkside.zk.session import Session

PIECE_BYTES = 64 * 1024
LONGEST_KEEP_S = 366 * 86_400.0


class Operation(Protocol):
    """What only the daemon as a whole can do (zkside/daemon_operation.py)."""

    def reload(self) -> Reloaded:
        """Read the configuration again."""

    def log_levels(self) -> tuple[LoggerLevel, ...]:
        """The level of all loggers first."""

    def configured_log_level(self) -> str:
        """What the configuration says."""

    def set_log_level(self, logger: str, level: str, for_s: float) -> None:
        """Raises: InvalidArgument."""

    def log_lines(self) -> tuple[list[str], int]:
        """The last lines, and how many older ones were dropped."""

    def dump(self) -> AsyncIterator[str]:
        """The whole state as one JSON document, in pieces."""


class AdminServicer:
    """`admin.proto`, which documents the promises."""

    def __init__(
        self,
        session: Session,
        hub: Hub,
        holds: Holds,
        streams: Streams,
        backend: str,
        drain: Callable[[], Awaitable[tuple[int, int]]],
        operation: Operation | None,
    ) -> None:
        """`drain` answers with the numbers of ended streams and released holds. `operation` is None for a server
        without a daemon around it, which does not support those calls."""
        self._session = session
        self._hub = hub
        self._holds = holds
        self._streams = streams
        self._backend = backend
        self._drain = drain
        self._operation = operation
        self._started_s = time.monotonic()

    async def get_status(self, request: admin_pb2.GetStatusRequest, call: Call) -> admin_pb2.GetStatusResponse:
        hub = self._hub.statistics()
        return admin_pb2.GetStatusResponse(
            header=convert.header(self._session, self._session.last_zxid),
            session=convert.session(self._session.status, self._session),
            version=zkside.__version__,
            uptime=convert.duration(time.monotonic() - self._started_s),
            holds=len(self._holds),
            streams=len(self._streams),
            server_watches=sum(hub.server_watches.values()),
            cached_nodes=hub.cached_nodes,
            cached_bytes=hub.cached_bytes,
            draining=self._streams.draining,
            backend=self._backend,
        )

    async def list_holds(self, request: admin_pb2.ListHoldsRequest, call: Call) -> admin_pb2.ListHoldsResponse:
        holds = [
            admin_pb2.HoldInfo(
                hold=convert.hold(status.update, with_token=False),
                state=convert.HOLD_STATES[status.update.state],
                recipe=status.recipe,
                age=convert.duration(status.age_s),
                attached=status.attached,
            )
            for status in self._holds.list()
        ]
        return admin_pb2.ListHoldsResponse(header=convert.header(self._session, self._session.last_zxid), holds=holds)

    async def list_watches(self, request: admin_pb2.ListWatchesRequest, call: Call) -> admin_pb2.ListWatchesResponse:
        watches = [
            admin_pb2.WatchInfo(
                path=watch.path,
                recursive=watch.recursive,
                subscribers=watch.subscribers,
                cached_nodes=watch.cached_nodes,
                stale=watch.stale,
            )
            for watch in self._hub.list_watches()
        ]
        return admin_pb2.ListWatchesResponse(
            header=convert.header(self._session, self._session.last_zxid), watches=watches
        )

    async def list_streams(self, request: admin_pb2.ListStreamsRequest, call: Call) -> admin_pb2.ListStreamsResponse:
        streams = [
            admin_pb2.StreamInfo(
                method=stream.method,
                peer=stream.peer,
                age=convert.duration(stream.age_s),
                sent=stream.sent,
                pending=stream.pending,
            )
            for stream in self._streams.list()
        ]
        return admin_pb2.ListStreamsResponse(
            header=convert.header(self._session, self._session.last_zxid), streams=streams
        )

    async def drain(self, request: admin_pb2.DrainRequest, call: Call) -> admin_pb2.DrainResponse:
        ended_streams, released_holds = await self._drain()
        return admin_pb2.DrainResponse(
            header=convert.header(self._session, self._session.last_zxid),
            ended_streams=ended_streams,
            released_holds=released_holds,
        )

    async def reload_config(self, request: admin_pb2.ReloadConfigRequest, call: Call) -> admin_pb2.ReloadConfigResponse:
        told = self._whole().reload()
        return admin_pb2.ReloadConfigResponse(
            header=convert.header(self._session, self._session.last_zxid),
            applied=told.applied,
            needs_restart=told.needs_restart,
            refused=told.refused,
            problems=told.problems,
            read_again=told.read_again,
        )

    async def get_log_level(self, request: admin_pb2.GetLogLevelRequest, call: Call) -> admin_pb2.GetLogLevelResponse:
        operation = self._whole()
        return admin_pb2.GetLogLevelResponse(
            header=convert.header(self._session, self._session.last_zxid),
            levels=[_level(level) for level in operation.log_levels()],
            configured=operation.configured_log_level(),
        )

    async def set_log_level(self, request: admin_pb2.SetLogLevelRequest, call: Call) -> admin_pb2.SetLogLevelResponse:
        operation = self._whole()
        for_s = convert.seconds(request, "keep_for", most_s=LONGEST_KEEP_S) or 0.0
        operation.set_log_level(request.logger, request.level, for_s)
        return admin_pb2.SetLogLevelResponse(
            header=convert.header(self._session, self._session.last_zxid),
            levels=[_level(level) for level in operation.log_levels()],
        )

    async def list_log_lines(
        self, request: admin_pb2.ListLogLinesRequest, call: Call
    ) -> admin_pb2.ListLogLinesResponse:
        lines, dropped = self._whole().log_lines()
        return admin_pb2.ListLogLinesResponse(
            header=convert.header(self._session, self._session.last_zxid), lines=lines, dropped=dropped
        )

    async def dump_state(
        self, request: admin_pb2.DumpStateRequest, call: StreamCall
    ) -> AsyncGenerator[admin_pb2.DumpStateResponse, None]:
        gathered = bytearray()
        async for text in self._whole().dump():
            gathered += text.encode()
            while len(gathered) >= PIECE_BYTES:
                yield admin_pb2.DumpStateResponse(piece=bytes(gathered[:PIECE_BYTES]))
                del gathered[:PIECE_BYTES]
        yield admin_pb2.DumpStateResponse(piece=bytes(gathered))

    def _whole(self) -> Operation:
        if self._operation is None:
            raise NotSupported("this server has no daemon around it")
        return self._operation


def _level(level: LoggerLevel) -> admin_pb2.LogLevel:
    back_in = convert.duration(level.back_s) if level.back_s else None
    return admin_pb2.LogLevel(logger=level.logger, level=level.level, back_in=back_in)
