"""A look into the daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from zkside.client import fault
from zkside.client.answer import (
    DrainAnswer,
    HoldInfo,
    LogLevel,
    LogLines,
    ReloadAnswer,
    StatusAnswer,
    StreamInfo,
    WatchInfo,
)
from zkside.client.link import Link
from zkside.client.value import header_of, hold_of, seconds, session_of
from zkside.pb import admin_pb2
from zkside.pb.admin_pb2_grpc import AdminServiceStub

if TYPE_CHECKING:
    from zkside.pb.admin_pb2_grpc import AdminServiceAsyncStub


class AdminCalls:
    """AdminService, for one link. Raises Unavailable, PolicyDenied."""

    def __init__(self, link: Link) -> None:
        self._link = link

    @property
    def _admin(self) -> AdminServiceAsyncStub:
        return AdminServiceStub(self._link.channel)

    async def status(self, *, timeout_s: float | None = None) -> StatusAnswer:
        """The daemon in figures."""
        answer = await self._link.call(self._admin.GetStatus, admin_pb2.GetStatusRequest(), timeout_s=timeout_s)
        return StatusAnswer(
            header=header_of(answer.header),
            session=session_of(answer.session),
            version=answer.version,
            uptime_s=seconds(answer.uptime),
            holds=answer.holds,
            streams=answer.streams,
            server_watches=answer.server_watches,
            cached_nodes=answer.cached_nodes,
            cached_bytes=answer.cached_bytes,
            draining=answer.draining,
            backend=answer.backend,
        )

    async def holds(self, *, timeout_s: float | None = None) -> tuple[HoldInfo, ...]:
        """All holds of this daemon, of every process."""
        answer = await self._link.call(self._admin.ListHolds, admin_pb2.ListHoldsRequest(), timeout_s=timeout_s)
        return tuple(
            HoldInfo(hold_of(info.hold, info.state), info.recipe, seconds(info.age), info.attached)
            for info in answer.holds
        )

    async def watches(self, *, timeout_s: float | None = None) -> tuple[WatchInfo, ...]:
        """All watches that the daemon has on the server."""
        answer = await self._link.call(self._admin.ListWatches, admin_pb2.ListWatchesRequest(), timeout_s=timeout_s)
        return tuple(
            WatchInfo(info.path, info.recursive, info.subscribers, info.cached_nodes, info.stale)
            for info in answer.watches
        )

    async def streams(self, *, timeout_s: float | None = None) -> tuple[StreamInfo, ...]:
        """All open streams of the daemon."""
        answer = await self._link.call(self._admin.ListStreams, admin_pb2.ListStreamsRequest(), timeout_s=timeout_s)
        return tuple(
            StreamInfo(info.method, info.peer, seconds(info.age), info.sent, info.pending) for info in answer.streams
        )

    async def drain(self, *, timeout_s: float | None = None) -> DrainAnswer:
        """Refuse new streams and holds, release the holds, end the streams; answers when none is left."""
        answer = await self._link.call(self._admin.Drain, admin_pb2.DrainRequest(), timeout_s=timeout_s, writes=True)
        return DrainAnswer(header_of(answer.header), answer.ended_streams, answer.released_holds)

    async def reload_config(self, *, timeout_s: float | None = None) -> ReloadAnswer:
        """Let the daemon read its configuration again, as SIGHUP does."""
        request = admin_pb2.ReloadConfigRequest()
        answer = await self._link.call(self._admin.ReloadConfig, request, timeout_s=timeout_s, writes=True)
        return ReloadAnswer(
            header_of(answer.header),
            tuple(answer.applied),
            tuple(answer.needs_restart),
            tuple(answer.refused),
            tuple(answer.problems),
            tuple(answer.read_again),
        )

    async def log_levels(self, *, timeout_s: float | None = None) -> tuple[LogLevel, ...]:
        """What the daemon logs: the level of all loggers first, then those that have one of their own."""
        answer = await self._link.call(self._admin.GetLogLevel, admin_pb2.GetLogLevelRequest(), timeout_s=timeout_s)
        return tuple(map(_level_of, answer.levels))

    async def set_log_level(
        self, level: str, *, logger: str = "", for_s: float = 0.0, timeout_s: float | None = None
    ) -> tuple[LogLevel, ...]:
        """Change what the daemon logs; `level` "" is back to its configuration, `for_s` 0 until told otherwise.

        Raises: InvalidArgument.
        """
        request = admin_pb2.SetLogLevelRequest(logger=logger, level=level)
        request.keep_for.FromNanoseconds(int(for_s * 1e9))
        answer = await self._link.call(self._admin.SetLogLevel, request, timeout_s=timeout_s, writes=True)
        return tuple(map(_level_of, answer.levels))

    async def log_lines(self, *, timeout_s: float | None = None) -> LogLines:
        """The last lines that the daemon logged, as it keeps them in memory."""
        answer = await self._link.call(self._admin.ListLogLines, admin_pb2.ListLogLinesRequest(), timeout_s=timeout_s)
        return LogLines(header_of(answer.header), tuple(answer.lines), answer.dropped)

    async def dump_state(self, *, timeout_s: float | None = None) -> bytes:
        """All that the daemon knows of itself, as one JSON document; no contract."""
        limit_s = self._link.timeout_s if timeout_s is None else timeout_s
        try:
            pieces = self._admin.DumpState(admin_pb2.DumpStateRequest(), timeout=limit_s)
            return b"".join([answer.piece async for answer in pieces])
        except grpc.aio.AioRpcError as error:
            raise fault.of_rpc(error, self._link.address) from None


def _level_of(level: admin_pb2.LogLevel) -> LogLevel:
    return LogLevel(level.logger, level.level, seconds(level.back_in))
