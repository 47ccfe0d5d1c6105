"""All that a client holds, over one stream to the daemon (CarryService)."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
import grpc.aio

from zkside.client import fault
from zkside.errors import BadRequest, TooLarge, ZksideError
from zkside.pb import carry_pb2, common_pb2, hold_pb2
from zkside.pb.carry_pb2_grpc import CarryServiceStub

Call: TypeAlias = "grpc.aio.StreamStreamCall[carry_pb2.CarryRequest, carry_pb2.CarryResponse]"
if TYPE_CHECKING:
    from zkside.pb.carry_pb2_grpc import CarryServiceAsyncStub

MAX_REQUEST_BYTES = 1 << 20
"""No more steps are added to a message that has as much."""
MAX_STEP_BYTES = 2 << 20
"""Far over what ZooKeeper takes. The daemon takes messages of 4 MiB; a larger one would end the stream for all."""


class Carried:
    """One hold on the stream, from the request to its end."""

    def __init__(self, tag: int, tell: Callable[[carry_pb2.CarryStep], None]) -> None:
        self._tag = tag
        self._tell = tell
        self._updates: deque[hold_pb2.HoldUpdate] = deque()
        self._news = asyncio.Event()
        self._answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when what its release came to is known, or it has ended otherwise."""
        self._failure: ZksideError | None = None
        self._is_releasing = False
        self.is_over = False

    async def read(self) -> hold_pb2.HoldUpdate | None:
        """The next update; None behind the last. Raises what refused it or broke the stream."""
        while not self._updates:
            if self.is_over:
                if self._failure is not None:
                    raise self._failure
                return None
            self._news.clear()
            await self._news.wait()
        return self._updates.popleft()

    async def release(self, timeout_s: float) -> None:
        """Let go, and wait until the node is gone. Raises what kept that from being seen; TimeoutError."""
        self.let_go()
        async with asyncio.timeout(timeout_s):
            await asyncio.shield(self._answered)

    def let_go(self) -> None:
        """Release without waiting. Idempotent; nothing for a hold that is over."""
        if not (self._is_releasing or self.is_over):
            self._is_releasing = True
            self._tell(carry_pb2.CarryStep(tag=self._tag, release=carry_pb2.CarryRelease()))

    # From the stream

    def hear(self, told: carry_pb2.CarriedUpdate) -> None:
        if told.HasField("update"):
            self._updates.append(told.update)
        failure = _of_step(told.failure) if told.HasField("failure") else None
        if told.ended:
            self.end(failure)
        elif failure is not None and not self._answered.done():
            self._answered.set_exception(failure)
        self._news.set()

    def end(self, failure: ZksideError | None) -> None:
        self.is_over = True
        self._failure = failure
        self._news.set()
        if not self._answered.done():
            if failure is None:
                self._answered.set_result(None)
            else:
                self._answered.set_exception(failure)
        # Nobody may have asked.
        self._answered.exception()


def _of_step(failure: common_pb2.Failure) -> ZksideError:
    """The error of one step, whose field is named as its caller knows it: `path`, not `steps[3].acquire.path`."""
    error = fault.of_failure(failure)
    if isinstance(error, BadRequest):
        error.field = re.sub(r"^steps\[\d+\]\.(\w+\.)?", "", error.field)
    return error


class _Stream:
    """One call of Carry. Tasks: a writer and a reader, from the first hold to the end of the call."""

    def __init__(self, stub: CarryServiceAsyncStub, address: str) -> None:
        self.is_over = False
        self._address = address
        self._carried: dict[int, Carried] = {}
        self._tags = itertools.count(1)
        self._unsent: deque[carry_pb2.CarryStep] = deque()
        self._asked = asyncio.Event()
        self._call: Call = stub.Carry()
        self._writing = asyncio.create_task(self._write(), name="zkside carry writer")
        self._reading = asyncio.create_task(self._read(), name="zkside carry reader")

    def begin(self, step: carry_pb2.CarryStep) -> Carried:
        if step.ByteSize() > MAX_STEP_BYTES:
            raise TooLarge(f"a request for a hold has at most {MAX_STEP_BYTES} bytes, this one {step.ByteSize()}")
        step.tag = next(self._tags)
        carried = self._carried[step.tag] = Carried(step.tag, self._tell)
        self._tell(step)
        return carried

    async def close(self) -> None:
        self._call.cancel()
        await asyncio.wait([self._reading])

    def _tell(self, step: carry_pb2.CarryStep) -> None:
        self._unsent.append(step)
        self._asked.set()

    async def _write(self) -> None:
        # grpc.aio forgets why a call was refused when that comes while a message is being written. So it is written
        # to once the daemon has accepted it, or not at all.
        await self._call.initial_metadata()
        while True:
            await self._asked.wait()
            self._asked.clear()
            while self._unsent:
                request = carry_pb2.CarryRequest()
                size_bytes = 0
                while self._unsent and size_bytes < MAX_REQUEST_BYTES:
                    step = self._unsent.popleft()
                    size_bytes += step.ByteSize()
                    request.steps.append(step)
                try:
                    await self._call.write(request)
                except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    return  # The reader meets the same end, and knows what it was.

    async def _read(self) -> None:
        failure = ZksideError("the daemon ended the stream that carries the holds")
        try:
            while isinstance(response := await self._call.read(), carry_pb2.CarryResponse):
                for told in response.updates:
                    # What was let go and is over may still be told of.
                    carried = self._carried.get(told.tag)
                    if carried is not None:
                        carried.hear(told)
                        if carried.is_over:
                            del self._carried[told.tag]
        except grpc.aio.AioRpcError as error:
            failure = fault.of_rpc(error, self._address)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            failure = ZksideError("the client was closed")
        finally:
            self.is_over = True
            self._writing.cancel()
            carried_along, self._carried = self._carried, {}
            for carried in carried_along.values():
                carried.end(failure)


class Carrier:
    """The stream of a client, opened when something is to be held, and anew when it broke."""

    def __init__(self) -> None:
        self._stream: _Stream | None = None

    def begin(self, channel: grpc.aio.Channel, address: str, step: carry_pb2.CarryStep) -> Carried:
        """Ask for a hold; the tag is chosen here. Raises TooLarge."""
        if self._stream is None or self._stream.is_over:
            stub: Any = CarryServiceStub(channel)
            self._stream = _Stream(stub, address)
        return self._stream.begin(step)

    async def close(self) -> None:
        """End the stream: for the daemon it is broken."""
        stream, self._stream = self._stream, None
        if stream is not None and not stream.is_over:
            await stream.close()
