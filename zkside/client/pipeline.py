"""Writes one behind the other, without waiting for one before the next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias, TypeVar, cast

import grpc
import grpc.aio

from zkside.client import fault, operation
from zkside.client.answer import CheckAnswer, CreateAnswer, DeleteAnswer, SetAnswer
from zkside.client.link import Link
from zkside.client.value import Acl, CreateMode, header_of
from zkside.errors import OutcomeUnknown, Quota, Unavailable, ZksideError
from zkside.pb import node_pb2

if TYPE_CHECKING:
    from zkside.pb.node_pb2_grpc import NodeServiceAsyncStub

T = TypeVar("T")
PipelineCall: TypeAlias = "grpc.aio.StreamStreamCall[node_pb2.PipelineRequest, node_pb2.PipelineResponse]"

MAX_UNDER_WAY = 10_000


class Pipeline:
    """Writes of one stream, applied in the order of the calls (N3).

        async with client.pipeline() as pipeline:
            first = pipeline.create("/queue/a", b"1")
            second = pipeline.set("/state", b"2")
        print((await first).path, (await second).zxid)

    Every method returns a future at once. Leaving the block waits for all answers; leaving it by an
    exception drops what was not sent. A write that fails fails its own future only.

    Raises (in the futures): the write's own error; SessionSuspended for those behind a lost connection to
    ZooKeeper, and Unavailable for those never sent to the daemon, which were not applied; OutcomeUnknown for
    those on their way when the daemon went away. Quota (at once) if more than 10,000 are under way.
    """

    def __init__(self, link: Link, stub: NodeServiceAsyncStub) -> None:
        self._link = link
        self._stub = stub
        self._unsent: deque[node_pb2.PipelineRequest] = deque()
        self._futures: dict[int, asyncio.Future[object]] = {}
        self._sent_up_to = 0
        self._next_id = 1
        self._work = asyncio.Event()
        self._ended: ZksideError | None = None
        self._finishing = False
        self._call: grpc.aio.StreamStreamCall[node_pb2.PipelineRequest, node_pb2.PipelineResponse] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def create(
        self,
        path: str,
        data: bytes = b"",
        *,
        mode: CreateMode = CreateMode.PERSISTENT,
        acl: Sequence[Acl] | None = None,
    ) -> asyncio.Future[CreateAnswer]:
        request = operation.create_request(path, data, mode=mode, acl=acl)
        return self._add(node_pb2.Operation(create=request), CreateAnswer)

    def set(self, path: str, data: bytes, *, version: int | None = None) -> asyncio.Future[SetAnswer]:
        request = operation.set_request(path, data, version=version)
        return self._add(node_pb2.Operation(set=request), SetAnswer)

    def delete(self, path: str, *, version: int | None = None) -> asyncio.Future[DeleteAnswer]:
        request = operation.delete_request(path, version=version)
        return self._add(node_pb2.Operation(delete=request), DeleteAnswer)

    def check(self, path: str, *, version: int | None = None) -> asyncio.Future[CheckAnswer]:
        request = operation.check_request(path, version=version)
        return self._add(node_pb2.Operation(check=request), CheckAnswer)

    def _add(self, step: node_pb2.Operation, kind: type[T]) -> asyncio.Future[T]:
        if self._call is None or self._finishing:
            raise ZksideError("a pipeline is used inside its `async with` block")
        if self._ended is not None:
            raise Unavailable(str(self._ended))
        if len(self._futures) >= MAX_UNDER_WAY:
            raise Quota(
                f"{MAX_UNDER_WAY} writes of this pipeline are under way; await some of them first",
                limit="max_under_way",
            )
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._futures[self._next_id] = future
        self._unsent.append(node_pb2.PipelineRequest(id=self._next_id, operation=step))
        self._next_id += 1
        self._work.set()
        return cast("asyncio.Future[T]", future)

    async def __aenter__(self) -> Pipeline:
        self._call = self._stub.Pipeline()
        self._tasks = [
            asyncio.create_task(self._send(self._call), name="zkside pipeline sender"),
            asyncio.create_task(self._receive(self._call), name="zkside pipeline receiver"),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._call is not None
        self._finishing = True
        self._work.set()
        try:
            if kind is None:
                await asyncio.wait(self._tasks)
        finally:
            for task in self._tasks:
                task.cancel()
            self._call.cancel()
            self._fail("the pipeline was left by an exception")
            await asyncio.wait(self._tasks)

    async def _send(self, call: PipelineCall) -> None:
        while True:
            while self._unsent:
                request = self._unsent.popleft()
                self._sent_up_to = request.id
                try:
                    await call.write(request)
                except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    return  # The receiver meets the same end, and knows which writes were answered.
            if self._finishing:
                await call.done_writing()
                return
            self._work.clear()
            await self._work.wait()

    async def _receive(self, call: PipelineCall) -> None:
        why = "the daemon ended the pipeline"
        try:
            async for response in call:
                future = self._futures.pop(response.id, None)
                if future is None or future.done():
                    continue
                result = operation.result_of(response.result, header_of(response.header))
                if isinstance(result, ZksideError):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        except grpc.aio.AioRpcError as error:
            why = str(fault.of_rpc(error, self._link.address))
        self._fail(why)
        self._tasks[0].cancel()

    def _fail(self, why: str) -> None:
        self._ended = self._ended or Unavailable(f"{why}; this write was not sent")
        futures, self._futures = self._futures, {}
        self._unsent.clear()
        for number, future in futures.items():
            if future.done():
                continue
            if number > self._sent_up_to:
                future.set_exception(Unavailable(f"{why}; this write was not sent"))
            else:
                future.set_exception(OutcomeUnknown(f"{why}; this write was sent and may or may not have been applied"))
