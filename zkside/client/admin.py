"""A look into the daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zkside.client.answer import DrainAnswer, HoldInfo, StatusAnswer, StreamInfo, WatchInfo
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
