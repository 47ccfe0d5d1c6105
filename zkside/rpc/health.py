"""grpc.health.v1, service by service.

    ""                                        SERVING from start to stop, whatever ZooKeeper does: liveness. (A
                                              restart of the daemon would end the very session that is to be saved.)
    SessionService, AdminService              as "": they answer without ZooKeeper
    all others of zkside.v1                   SERVING from the first session on while it is connected or suspended;
                                              NOT_SERVING before it, while it is lost, while a listener is shut
                                              that cannot be made again, and once draining began

NOT_SERVING is advice for whoever chooses among daemons: cached reads and streams over caches are served all
the same, marked stale.

The servicer of grpcio-health-checking holds a lock while it writes to a watcher, so that one client that does
not read keeps every change from all others; hence this one, on its messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping

import grpc
from grpc_health.v1 import health_pb2

from zkside.errors import Draining
from zkside.model.session import SessionState, SessionStatus
from zkside.rpc.interceptors import Call, StreamCall

_WITHOUT_ZOOKEEPER = ("", "zkside.v1.SessionService", "zkside.v1.AdminService")
_IN_ORDER = (SessionState.CONNECTED, SessionState.CONNECTED_READ_ONLY, SessionState.SUSPENDED)

Status = health_pb2.HealthCheckResponse.ServingStatus

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class HealthServicer:
    """One table of statuses, told to every watcher."""

    def __init__(self, services: Iterable[str]) -> None:
        """The full names of the daemon's services."""
        self._services = {"", *services}
        self._status: SessionStatus | None = None
        self._draining = False
        self._stopping = False
        self._shut = ""
        self._changed = asyncio.Event()

    def session_changed(self, status: SessionStatus) -> None:
        self._status = status
        self._announce()

    def drain(self) -> None:
        """No new work, please; still alive."""
        self._draining = True
        self._announce()

    def shut(self, why: str) -> None:
        """A listener cannot be reached any more, for this reason; or all can again, with ''."""
        self._shut = why
        self._announce()

    def stop(self) -> None:
        """Everything is NOT_SERVING from now on."""
        self._stopping = True
        self._announce()

    def statuses(self) -> Mapping[str, Status]:
        """Of every service."""
        return {service: self._of(service) for service in sorted(self._services)}

    def _of(self, service: str) -> Status:
        if service not in self._services:
            return SERVICE_UNKNOWN
        if self._stopping:
            return NOT_SERVING
        if service in _WITHOUT_ZOOKEEPER:
            return SERVING
        in_order = self._status is not None and self._status.state in _IN_ORDER
        return SERVING if in_order and not self._draining and not self._shut else NOT_SERVING

    def _announce(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def check(self, request: health_pb2.HealthCheckRequest, call: Call) -> health_pb2.HealthCheckResponse:
        status = self._of(request.service)
        if status == SERVICE_UNKNOWN:
            # The protocol's own answer, without an ErrorInfo.
            await call.context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return health_pb2.HealthCheckResponse(status=status)

    async def list(self, request: health_pb2.HealthListRequest, call: Call) -> health_pb2.HealthListResponse:
        return health_pb2.HealthListResponse(
            statuses={name: health_pb2.HealthCheckResponse(status=status) for name, status in self.statuses().items()}
        )

    async def watch(
        self, request: health_pb2.HealthCheckRequest, call: StreamCall
    ) -> AsyncGenerator[health_pb2.HealthCheckResponse, None]:
        """The present status, then every change; a slow watcher may miss what came and went between.

        The last one before a stop is NOT_SERVING.
        """
        call.stream.ends_by_itself = True
        told: Status | None = None
        while True:
            changed, status = self._changed, self._of(request.service)
            if status != told:
                told = status
                yield health_pb2.HealthCheckResponse(status=status)
            if self._stopping:
                raise Draining("the daemon stops")
            await changed.wait()
