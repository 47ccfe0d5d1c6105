"""One stream after another, as long as somebody listens: what all readers of a state have in common."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

import grpc.aio

from zkside.client import fault
from zkside.client.link import Link
from zkside.client.retry import Delays, is_final

M = TypeVar("M")


async def follow(
    link: Link, open_stream: Callable[[bool], grpc.aio.UnaryStreamCall[Any, M]], kind: type[M], *, wait_for_ready: bool
) -> AsyncGenerator[tuple[M, bool], None]:
    """The messages of a stream, and of the next when it breaks; with each, whether it is the first of its stream.

    `kind` is their class; `open_stream` is told whether to wait for a daemon that is not there. Raises: an error
    that asking again would bring again; any other if no stream has brought a message yet, unless
    `wait_for_ready`.
    """
    delays, is_linked = Delays(), False
    while True:
        call = open_stream(is_linked or wait_for_ready)
        is_first = True
        try:
            while isinstance(message := await call.read(), kind):
                delays.succeeded()
                is_linked = True
                yield message, is_first
                is_first = False
        except grpc.aio.AioRpcError as error:
            failure = fault.of_rpc(error, link.address)
            if is_final(failure) or not (is_linked or wait_for_ready):
                raise failure from None
        finally:
            call.cancel()
        await asyncio.sleep(delays.next_s())
