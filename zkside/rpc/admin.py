"""AdminService: looks into the running daemon, and drains it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import zkside
from zkside.hub.hub import Hub
from zkside.pb import admin_pb2
from zkside.recipes.holds import Holds
from zkside.rpc import convert
from zkside.rpc.interceptors import Call
from zkside.rpc.streams import Streams
from zkside.zk.session import Session


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
    ) -> None:
        """`drain` answers with the numbers of ended streams and released holds."""
        self._session = session
        self._hub = hub
        self._holds = holds
        self._streams = streams
        self._backend = backend
        self._drain = drain
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
