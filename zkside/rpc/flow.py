"""Bounds what is on its way from and to clients: large requests until they are answered, large answers until gRPC has
passed them on, in bytes. Small ones are not counted; there the quotas on calls and streams hold.

A client that takes nothing keeps what was made for it in memory, in gRPC's core, until its call or its connection goes:
nothing gets it out there, not even the end of the call on this side. So there is room for so much and no more: who
finds none waits for it, and ahead of whom already as much waits is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import grpc
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from zkside.errors import TooLarge
from zkside.model.identity import Peer
from zkside.rpc.streams import QuotaSettings
from zkside.zk.in_flight import InFlight, InFlightStatistics, Share

if TYPE_CHECKING:
    from zkside.rpc.interceptors import StreamCall

Context = grpc.aio.ServicerContext[Any, Any]

SMALL_BYTES = 16 * 1024


class Flow:
    """Of one server."""

    def __init__(self, quotas: QuotaSettings) -> None:
        self.requests = InFlight("max_requests_size", quotas.max_requests_bytes)
        self.answers = InFlight("max_answers_size", quotas.max_answers_bytes)
        self.messages = InFlight("max_messages_size", quotas.max_messages_bytes)
        self._max_answer_bytes = quotas.max_answer_bytes

    def configure(self, quotas: QuotaSettings) -> None:
        """Apply these limits from now on."""
        self.requests.configure(quotas.max_requests_bytes)
        self.answers.configure(quotas.max_answers_bytes)
        self.messages.configure(quotas.max_messages_bytes)
        self._max_answer_bytes = quotas.max_answer_bytes

    async def request(self, name: str, context: Context, peer: Peer | None, size_bytes: int) -> Share:
        """Take room for a large request. Raises: Busy."""
        return await self.requests.room(owner(name, context, peer), size_bytes, is_made=True)

    async def answer(
        self, name: str, context: Context, peer: Peer | None, size_bytes: int, *, is_made: bool = False
    ) -> None:
        """Take room for a large answer to a unary call before it is made; the present task, the call's, gives it back.

        `is_made`: what it is made of is in memory for it alone, and has no room elsewhere. Raises: TooLarge; Busy.
        """
        if size_bytes > (most := self._max_answer_bytes):
            raise TooLarge(
                f"the answer would have {size_bytes} bytes, the limit is {most} (quotas.max_answer_size): "
                "ask for fewer nodes at a time",
                limit=str(most),
            )
        share = await self.answers.room(owner(name, context, peer), size_bytes, is_made=is_made)
        task = asyncio.current_task()
        assert task is not None
        # gRPC's task for the call, which ends when the answer has been passed on.
        task.add_done_callback(lambda _: share.close())

    async def message(self, call: StreamCall, size_bytes: int) -> Share:
        """Take room for a large message of a stream. Raises: Busy."""
        who = owner(call.stream.method, call.context, call.peer)
        return await self.messages.room(who, size_bytes, is_made=True)

    def statistics(self) -> dict[str, InFlightStatistics]:
        return {each: getattr(self, each).statistics() for each in ("requests", "answers", "messages")}


def owner(name: str, context: Context, peer: Peer | None) -> str:
    """Who shares room with itself: one identity, or else one connection, in one method.

    Connections over a Unix socket cannot be told apart, but who lists there does not keep those waiting who get.
    """
    who = (peer.names[0] if peer.names else peer.listener_identity) if peer is not None else ""
    return f"{name} {who or context.peer()}"


def families(flows: dict[str, InFlightStatistics]) -> Iterator[Metric]:
    """The families `zkside_bytes…`."""

    def each(family: Any, values: Iterable[tuple[str, float]]) -> Metric:
        for name, value in values:
            family.add_metric((name,), value)
        metric: Metric = family
        return metric

    labels, rows = ("direction",), flows.items()
    yield each(
        GaugeMetricFamily("zkside_bytes_in_flight", "Bytes of large messages under way.", labels=labels),
        ((name, row.bytes) for name, row in rows),
    )
    yield each(
        GaugeMetricFamily("zkside_bytes_in_flight_limit", "How many there may be.", labels=labels),
        ((name, row.limit_bytes) for name, row in rows),
    )
    yield each(
        GaugeMetricFamily("zkside_bytes_calls_waiting", "Calls that wait for room among them.", labels=labels),
        ((name, row.waiting) for name, row in rows),
    )
    yield each(
        CounterMetricFamily("zkside_bytes_calls_waited", "Calls that had to wait for it.", labels=labels),
        ((name, row.waited) for name, row in rows),
    )
