"""What the SDK takes for a call that nobody has seen, and may send again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from zkside.client.fault import was_refused_unseen

CALLS = 20


class _Handler(grpc.GenericRpcHandler):
    """Every method waits for ever."""

    def __init__(self) -> None:
        self.seen = asyncio.Semaphore(0)

    async def _serve(self, request: bytes, context: Any) -> bytes:
        self.seen.release()
        await asyncio.Event().wait()
        return b""

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._serve)


@pytest.mark.parametrize("grace_s", [0.0, 0.2, None])
async def test_a_call_that_a_stopped_server_has_seen_is_not_taken_for_one_that_nobody_has(
    tmp_path: Path, grace_s: float | None
) -> None:
    """W2: a write that is sent again though it was done would be done twice."""
    handler, server = _Handler(), grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    address = f"unix:{tmp_path}/s"
    server.add_insecure_port(address)
    await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        ask: Any = channel.unary_unary("/a/b")
        calls = [asyncio.ensure_future(_ended(ask(b""))) for _ in range(CALLS)]
        async with asyncio.timeout(10):
            for _ in range(CALLS):
                await handler.seen.acquire()
        await server.stop(grace_s)
        errors = await asyncio.gather(*calls)
    assert {error.code() for error in errors} == {grpc.StatusCode.UNAVAILABLE}
    assert not any(was_refused_unseen(error) for error in errors)


async def _ended(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value
