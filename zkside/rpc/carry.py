"""CarryService: many holds over one stream."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, suppress

from zkside.errors import Draining, HoldLost, InvalidArgument, NoAuth, Quota, SessionSuspended, ZksideError
from zkside.model.hold import HoldState, Reason
from zkside.model.session import SessionStatus
from zkside.pb import carry_pb2, hold_pb2
from zkside.recipes.admission import CALLER
from zkside.recipes.hold import Hold
from zkside.recipes.holds import Holds
from zkside.recipes.turnstile import Turnstile
from zkside.rpc import convert, status
from zkside.rpc.interceptors import Opening, StreamCall

MAX_UNTAKEN = 1024
"""Updates that wait for the client to read; beyond, each hold keeps its own (recipes/audience.py)."""
MAX_UNHEARD = 2 * MAX_UNTAKEN
"""With so many, refusals among them, no further step is begun before the client has read."""
MAX_TOGETHER = 256
"""Updates of one message: some 100 kB."""
MAX_STEPS = 10_000
"""Steps of one message; those behind are refused."""
SLICE_S = 0.002
"""So long the steps of a message are looked at, then everybody else has a turn of the event loop."""


class CarryServicer:
    """`carry.proto`, which documents the promises."""

    def __init__(self, holds: Holds, opening: Mapping[str, Opening]) -> None:
        """`opening` by the name of the step that begins such a hold."""
        self.holds = holds
        self.opening = opening
        self.carried = 0
        """Holds of all streams, with those that are asked for and not opened yet."""

    def carry(
        self, requests: AsyncIterator[carry_pb2.CarryRequest], call: StreamCall
    ) -> AsyncGenerator[carry_pb2.CarryResponse, None]:
        return _Carrying(self, call).run(requests)


class _Carried:
    """One hold of the stream."""

    __slots__ = ("field", "hold", "hold_id", "is_held", "is_releasing", "task")

    def __init__(self, field: str) -> None:
        self.field = field
        """Of the message that asked for it, with a dot behind it."""
        self.task: asyncio.Task[None] | None = None
        self.is_held = False
        self.hold_id = ""
        """As last told; '' before that."""
        self.hold: Hold | None = None
        """Set when it was let go."""
        self.is_releasing = False


class _Carrying:
    """One stream. Tasks: one that reads, and one for each hold, which hands its updates to the stream."""

    def __init__(self, servicer: CarryServicer, call: StreamCall) -> None:
        self._servicer = servicer
        self._holds = servicer.holds
        self._session = servicer.holds.session
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
        # One of many streams, over a Unix socket: they take turns too.
        CALLER.set(f"{CALLER.get()} {id(self)}")
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
                self._failure = None  # a cycle: it leads to this stream
            # Who holds goes first; of those who wait the last, so that none of them gets what others let go here.
            carried = list(self._carried.values())
            self._servicer.carried -= len(carried)
            self._carried.clear()
            ending = [each for each in carried if each.is_held] + [each for each in carried[::-1] if not each.is_held]
            await _end([reading, *(each.task for each in ending if each.task is not None)], self._holds.turnstile)

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
                await self._begin_all(request.steps)
        except Exception as error:
            # Not swallowed: it ends the stream.
            self._failure = error
        self._asks_no_more = True
        self._filled.set()

    async def _begin_all(self, steps: Sequence[carry_pb2.CarryStep]) -> None:
        """A few in each turn of the event loop: what they begin runs in the next one."""
        if len(steps) == 1:
            await self._begin_each(steps)
            return
        with self._holds.turnstile.crowded(len(steps)):
            await self._begin_each(steps)

    async def _begin_each(self, steps: Sequence[carry_pb2.CarryStep]) -> None:
        since_s = time.monotonic()
        for number, step in enumerate(steps):
            try:
                if number >= MAX_STEPS:
                    raise Quota(f"a message has at most {MAX_STEPS} steps, this one {len(steps)}", limit="max_steps")
                if self._begin(step, f"steps[{number}]"):
                    await self._holds.turnstile.through()
                    since_s = time.monotonic()
            except ZksideError as error:
                self._refuse(step.tag, error)
            while len(self._untaken) >= MAX_UNHEARD:
                self._taken.clear()
                await self._taken.wait()
            if (took_s := time.monotonic() - since_s) > SLICE_S:
                await self._holds.turnstile.rest(took_s)
                since_s = time.monotonic()

    def _refuse(self, tag: int, error: ZksideError) -> None:
        """A step of which nothing comes. A hold that has its tag is not concerned."""
        is_free = tag not in self._carried
        self._tell(carry_pb2.CarriedUpdate(tag=tag, failure=convert.failure(error), ended=is_free))

    def _begin(self, step: carry_pb2.CarryStep, field: str) -> bool:
        """Whether it began a hold. Raises: InvalidArgument, Quota."""
        name = step.WhichOneof("step")
        if name is None:
            raise InvalidArgument("a step says what to do", field=f"{field}.step")
        if name == "release":
            self._release(step.tag)
            return False
        if step.tag in self._carried:
            raise InvalidArgument(f"the tag {step.tag} is in use", field=f"{field}.tag")
        self._check_room()
        carried = self._carried[step.tag] = _Carried(f"{field}.{name}.")
        self._servicer.carried += 1
        self._stream.ends_by_itself = True
        tag = step.tag
        carried.task = asyncio.get_running_loop().create_task(self._follow(carried, step, name), name=f"carry {name}")
        carried.task.add_done_callback(lambda task: self._failed(tag, carried, task))
        return True

    def _check_room(self) -> None:
        """Also for those that wait for the session before they are opened, and count among no holds yet."""
        most = self._holds.settings.max_holds
        if self._servicer.carried >= most:
            self._holds.count_refused()
            raise Quota(f"{most} holds are carried or asked for, the daemon's limit", limit="max_holds")
        over = self._call.over_carried(len(self._carried))
        if over is not None:
            raise over

    def _forget(self, tag: int) -> None:
        del self._carried[tag]
        self._servicer.carried -= 1

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
                asked = self._call.carried(name, self._servicer.opening[name], getattr(step, name))
                async with aclosing(asked) as updates:
                    async for update in updates:
                        carried.hold_id = update.hold_id
                        carried.is_held = update.state is not HoldState.WAITING
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
        self._forget(tag)
        if carried.hold is not None and carried.hold.left_behind:
            last = carry_pb2.CarriedUpdate(tag=tag, failure=convert.failure(_left_behind(carried.hold.path)))
        if not (self._untaken and self._untaken[-1] is last):
            self._tell(last)
        last.ended = True

    def _failed(self, tag: int, carried: _Carried, task: asyncio.Task[None]) -> None:
        """From the task of a hold: it has ended, if only now then by an error or because it was let go."""
        carried.task = None  # its error leads to this hold: a cycle
        if self._carried.get(tag) is not carried:
            return
        self._forget(tag)
        last = carry_pb2.CarriedUpdate(tag=tag, ended=True)
        if task.cancelled():
            last.update.state, last.update.reason = hold_pb2.HOLD_STATE_RELEASED, Reason.RELEASED.value
        elif (error := task.exception()) is not None:
            last.failure.CopyFrom(convert.failure(status.known(error, method=self._stream.method)))
            if last.failure.field:
                last.failure.field = carried.field + last.failure.field
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


async def _end(tasks: Sequence[asyncio.Task[None]], turnstile: Turnstile) -> None:
    """Cancel all, in this order and a few in each turn of the event loop; return when they have ended.

    Cancellation: they are all cancelled.
    """
    left = deque(tasks)
    try:
        with turnstile.crowded(len(tasks)):
            while left:
                left.popleft().cancel()
                await turnstile.through()
    finally:
        for task in left:
            task.cancel()
    if ending := [task for task in tasks if not task.done()]:
        await asyncio.wait(ending)


def _left_behind(path: str) -> ZksideError:
    return NoAuth(f"{path} could not be deleted and stays until the session ends", path=path)
