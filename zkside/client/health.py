"""The standard health service, grpc.health.v1."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from zkside.client import fault
from zkside.client.link import Link
from zkside.client.value import WireEnum


class Health(WireEnum):
    """What a service says of itself."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


async def ask_health(link: Link, service: str, timeout_s: float | None) -> Health:
    """A service's health; one that the daemon does not know is SERVICE_UNKNOWN."""
    try:
        answer = await health_pb2_grpc.HealthStub(link.channel).Check(  # type: ignore[no-untyped-call]
            health_pb2.HealthCheckRequest(service=service),
            timeout=link.timeout_s if timeout_s is None else timeout_s,
        )
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return Health.SERVICE_UNKNOWN
        raise fault.of_rpc(error, link.address) from None
    return Health(answer.status)
