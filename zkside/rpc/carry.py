"""CarryService: many holds over one stream."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, suppress

from zkside.errors import Draining, HoldLost, InvalidArgument, NoAuth, SessionSuspended, ZksideError
from zkside.model.hold import Reason
from zkside.model.session import SessionStatus
from zkside.pb import carry_pb2, hold_pb2
from zkside.recipes.hold import Hold
from zkside.recipes.holds import Holds
from zkside.rpc import convert, status
from zkside.rpc.interceptors import Opening, StreamCall

MAX_UNTAKEN = 1024
"""Updates that wait for the client to read; beyond, each hold keeps its own (recipes/audience.py)."""
MAX_TOGETHER = 256
"""Updates of one message: some 100 kB."""


class CarryServicer:
    """`carry.proto`, which documents the promises."""

    def __init__(self, holds: Holds, opening: Mapping[str, Opening]) -> None:
        """`opening` by the name of the step that begins such a hold."""
        self._holds = holds
        self._opening = opening

    def carry(
        self, requests: AsyncIterator[carry_pb2.CarryRequest], call: StreamCall
    ) -> AsyncGenerator[carry_pb2.CarryResponse, None]:
        return _Carrying(self._holds, self._opening, call).run(requests)


class _Carried:
    """One hold of the stream."""

    __slots__ = ("hold", "hold_id", "is_releasing", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.hold_id = ""
        """As last told; '' before that."""
        self.hold: Hold | None = None
        """Set when it was let go."""
        self.is_releasing = False


class _Carrying:
    """One stream. Tasks: one that reads, and one for each hold, which hands its updates to the stream."""

    def __init__(self, holds: Holds, opening: Mapping[str, Opening], call: StreamCall) -> None:
        self._holds = holds
        self._session = holds.session
        self._opening = opening
        self._call = call
        self._stream = call.stream
        self._carried: dict[int, _Carried] = {}
        self._untaken: deque[carry_pb2.CarriedUpdate] = deque()
        self._filled = asyncio.Event()
        self._taken = asyncio.Event()
        self._asks_no_more = False
        self._failure: Exception | None = None

    async def run(
        self, requests: AsyncIterator[carry_pb2.CarryRequest]
    ) -> AsyncGenerator[carry_pb2.CarryResponse, None]:
        """Cancellation: as a broken stream for every hold."""
        # Accepted: a client that writes before it knows may not hear why it was refused.
        await self._call.context.send_initial_metadata(())
        self._stream.pending = self._untaken.__len__
        self._stream.before_end = self._cut
        reading = asyncio.get_running_loop().create_task(self._read(requests), name="carry")
        unlisten = self._session.listen(status=self._session_changed)
        try:
            while not self._is_over():
                await self._filled.wait()
                self._filled.clear()
                while self._untaken:
                    yield self._response()
                self._taken.set()
                self._stream.ends_by_itself = bool(self._carried)
        finally:
            unlisten()
            if self._failure is not None:
                self._cut()
            carried = [each.task for each in self._carried.values() if each.task is not None]
            self._carried.clear()
            for task in (reading, *carried):
                task.cancel()
            await asyncio.wait([reading, *carried])

    def _cut(self) -> None:
        for carried in self._carried.values():
            self._holds.cut(carried.hold_id)

    def _is_over(self) -> bool:
        if self._failure is not None:
            raise self._failure
        if self._carried or self._untaken:
            return False
        if self._holds.draining:
            raise Draining("the daemon is being drained")
        return self._asks_no_more

    def _response(self) -> carry_pb2.CarryResponse:
        response = carry_pb2.CarryResponse()
        convert.fill_header(response.header, self._session, self._session.last_zxid)
        count = min(len(self._untaken), MAX_TOGETHER)
        response.updates.extend([self._untaken.popleft() for _ in range(count)])
        return response

    # What the client asks for

    async def _read(self, requests: AsyncIterator[carry_pb2.CarryRequest]) -> None:
        try:
            async for request in requests:
                for step in request.steps:
                    self._begin(step)
        except Exception as error:
            # Not swallowed: it ends the stream.
            self._failure = error
        self._asks_no_more = True
        self._filled.set()

    def _begin(self, step: carry_pb2.CarryStep) -> None:
        name = step.WhichOneof("step")
        if name is None:
            raise InvalidArgument("a step says what to do", field="steps.step")
        if name == "release":
            self._release(step.tag)
            return
        if step.tag in self._carried:
            raise InvalidArgument(f"the tag {step.tag} is in use", field="steps.tag")
        carried = self._carried[step.tag] = _Carried()
        self._stream.ends_by_itself = True
        tag = step.tag
        carried.task = asyncio.get_running_loop().create_task(self._follow(carried, step, name), name=f"carry {name}")
        carried.task.add_done_callback(lambda task: self._failed(tag, carried, task))

    def _release(self, tag: int) -> None:
        carried = self._carried.get(tag)
        if carried is None or carried.task is None or carried.is_releasing:
            return
        carried.is_releasing = True
        with suppress(HoldLost):
            carried.hold = self._holds.get(carried.hold_id)
        if carried.hold is None:
            # It has not begun, or begins again.
            carried.task.cancel()
            return
        carried.hold.release(Reason.RELEASED)
        if not self._session.status.state.is_connected:
            self._tell_unseen(tag, carried.hold)

    # What becomes of it

    async def _follow(self, carried: _Carried, step: carry_pb2.CarryStep, name: str) -> None:
        tag = step.tag
        last = carry_pb2.CarriedUpdate(tag=tag)
        while True:
            try:
                asked = self._call.carried(name, self._opening[name], getattr(step, name))
                async with aclosing(asked) as updates:
                    async for update in updates:
                        carried.hold_id = update.hold_id
                        while len(self._untaken) >= MAX_UNTAKEN:
                            self._taken.clear()
                            await self._taken.wait()
                        last = carry_pb2.CarriedUpdate(tag=tag, update=convert.hold_update(update))
                        self._tell(last)
                break
            except SessionSuspended:
                if carried.hold_id or not step.wait_for_ready:
                    raise
                await self._session.wait_connected()
        del self._carried[tag]
        if carried.hold is not None and carried.hold.left_behind:
            last = carry_pb2.CarriedUpdate(tag=tag, failure=convert.failure(_left_behind(carried.hold.path)))
        if not (self._untaken and self._untaken[-1] is last):
            self._tell(last)
        last.ended = True

    def _failed(self, tag: int, carried: _Carried, task: asyncio.Task[None]) -> None:
        """From the task of a hold: it has ended, if only now then by an error or because it was let go."""
        if self._carried.get(tag) is not carried:
            return
        del self._carried[tag]
        last = carry_pb2.CarriedUpdate(tag=tag, ended=True)
        if task.cancelled():
            last.update.state, last.update.reason = hold_pb2.HOLD_STATE_RELEASED, Reason.RELEASED.value
        elif (error := task.exception()) is not None:
            last.failure.CopyFrom(convert.failure(status.known(error, method=self._stream.method)))
        self._tell(last)

    def _session_changed(self, changed: SessionStatus) -> None:
        if not changed.state.is_connected:
            for tag, carried in self._carried.items():
                if carried.hold is not None:
                    self._tell_unseen(tag, carried.hold)

    def _tell_unseen(self, tag: int, hold: Hold) -> None:
        unseen = SessionSuspended(f"{hold.path or 'the node'} will be deleted as soon as the session is back")
        self._tell(carry_pb2.CarriedUpdate(tag=tag, failure=convert.failure(unseen)))

    def _tell(self, update: carry_pb2.CarriedUpdate) -> None:
        self._untaken.append(update)
        self._filled.set()


def _left_behind(path: str) -> ZksideError:
    return NoAuth(f"{path} could not be deleted and stays until the session ends", path=path)
