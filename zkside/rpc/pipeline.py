"""Pipeline: the writes of one client stream, in order, without waiting for one before sending the next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

from zkside.errors import ConnectionLoss, OutcomeUnknown, SessionSuspended, ZksideError
from zkside.model.operation import Acl, Check, Operation, Reply, Transaction, TransactionResult, Write
from zkside.pb import node_pb2
from zkside.rpc import convert
from zkside.rpc.flow import SMALL_BYTES
from zkside.zk.in_flight import Share
from zkside.zk.session import Session


class _Entry(NamedTuple):
    """A request in the order in which it came."""

    id: int
    step: Write | None
    answer: asyncio.Future[Reply[Any]]
    share: Share | None


Room = Callable[[int], Awaitable[Share]]
"""Gives room for a large request."""


class Pipeline:
    """One stream.

    Order over reconnects: a write is sent only while the connection is the one on which the stream began
    (told by the session's sequence number). Writes whose answer is lost with it are OUTCOME_UNKNOWN, and all
    later ones are refused, so that no later one is ever applied before an earlier one.
    """

    def __init__(self, session: Session, default_acl: tuple[Acl, ...], room: Room, *, width: int) -> None:
        self._session = session
        self._room = room
        self._default_acl = default_acl
        self._sequence = session.status.sequence
        self._entries: asyncio.Queue[_Entry | Exception | None] = asyncio.Queue()
        self._free = asyncio.Semaphore(width)

    def pending(self) -> int:
        """Writes under way or answered, but not yet given to the client."""
        return self._entries.qsize()

    async def run(
        self, requests: AsyncIterator[node_pb2.PipelineRequest]
    ) -> AsyncGenerator[node_pb2.PipelineResponse, None]:
        """Answers in order. Cancellation: what was not sent is taken back."""
        reading = asyncio.get_running_loop().create_task(self._read(requests), name="pipeline")
        try:
            while (entry := await self._entries.get()) is not None:
                if isinstance(entry, Exception):
                    raise entry
                try:
                    answer = await self._answer(entry)
                finally:
                    if entry.share is not None:
                        entry.share.close()
                yield answer
                self._free.release()
        finally:
            reading.cancel()
            while not self._entries.empty():
                left = self._entries.get_nowait()
                if isinstance(left, _Entry):
                    left.answer.cancel()
                    if left.share is not None:
                        left.share.close()

    async def _read(self, requests: AsyncIterator[node_pb2.PipelineRequest]) -> None:
        end: Exception | None = None
        try:
            async for request in requests:
                await self._free.acquire()
                size_bytes = request.ByteSize()
                share = await self._room(size_bytes) if size_bytes >= SMALL_BYTES else None
                self._entries.put_nowait(self._send(request, share))
        except Exception as error:
            # Not swallowed: it ends the stream, behind the answers to what came before it.
            end = error
        self._entries.put_nowait(end)

    def _send(self, request: node_pb2.PipelineRequest, share: Share | None) -> _Entry:
        step: Write | None = None
        try:
            step = convert.step(request.operation, self._default_acl, "operation")
            if self._session.status.sequence != self._sequence:
                raise SessionSuspended(
                    "the connection that this stream wrote over is gone; open it again to write on, in order"
                )
            operation: Operation[Any] = Transaction((step,)) if isinstance(step, Check) else step
            return _Entry(request.id, step, self._session.call(operation, yields=True), share)
        except ZksideError as error:
            answer: asyncio.Future[Reply[Any]] = asyncio.get_running_loop().create_future()
            answer.set_exception(error)
            return _Entry(request.id, step, answer, share)

    async def _answer(self, entry: _Entry) -> node_pb2.PipelineResponse:
        session, step = self._session, entry.step
        try:
            reply = await entry.answer
        except ConnectionLoss:
            path = "" if step is None else step.path
            lost = OutcomeUnknown(
                f"the write of {path} was sent and its answer lost with the connection: read the node to find out"
            )
            result, zxid = node_pb2.OperationResult(failure=convert.failure(lost)), session.last_zxid
        except ZksideError as error:
            result, zxid = node_pb2.OperationResult(failure=convert.failure(error)), session.last_zxid
        else:
            assert step is not None
            value = reply.value
            if isinstance(value, TransactionResult):
                value = value.results[0]
            result, zxid = convert.operation_result(step, value), reply.zxid
        return node_pb2.PipelineResponse(header=convert.header(session, zxid), id=entry.id, result=result)
