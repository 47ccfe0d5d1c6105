"""What this process owns through the daemon, whatever it is: it lives as long as its stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self, TypeAlias

import grpc
import grpc.aio

from zkside.client import fault
from zkside.client.belief import Belief
from zkside.client.clock import lease_left_s, lease_ns, now_ns
from zkside.client.link import WAIT_FOR_READY_METADATA, Link
from zkside.client.loss import Body, Loss, hold_lost
from zkside.client.retry import Delays, is_final
from zkside.client.value import HoldState, HoldStatus, duration, hold_of, seconds
from zkside.errors import DeadlineExceeded, HoldLost, NodeExists, WaitTimeout, ZksideError
from zkside.pb import hold_pb2
from zkside.pb.hold_pb2_grpc import HoldServiceStub

Request: TypeAlias = Any
"""The message that opens the stream; it has `resume_token`, and `wait_timeout` if there is a queue."""
Stream: TypeAlias = "grpc.aio.UnaryStreamMultiCallable[Any, hold_pb2.HoldUpdate]"

LAST_WORD_S = 1.0
"""How much longer than its wait_timeout the daemon has to say that it is over."""
WHY_S = 0.25
"""How long a hold whose lease is over waits for the daemon's word of the reason. It is not held meanwhile."""

_OWNED = (HoldState.HELD, HoldState.JEOPARDY)
_ENDED = (HoldState.RELEASED, HoldState.LOST)
_MADE_AGAIN = ("SESSION_LOST", "DRAINED", "HOLD_LOST", "LEASE_OVER")
"""The ends after which a hold with `recreate` is made again: nobody meant this one."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the client's side of a hold goes by."""

    recreate: bool = False
    cancel_on_loss: bool = True
    reconnect_grace_s: float | None = None
    wait_timeout_s: float | None = None
    timeout_s: float | None = None
    wait_for_ready: bool = False
    on_update: Callable[[HoldStatus], None] | None = None


class Held:
    """Something that is owned inside the `async with` block: a lock, a leadership, a membership, a node.

        async with client.lock("/locks/a") as held:
            protect(held.fencing_token)
            while held.is_held(): ...

    Entering waits until it is granted. `is_held` compares the lease with the clock: no call, and right also when
    this process or the daemon was stopped for a while. What makes work safe is `fencing_token`: pass it on to
    what you protect.

    A stream that breaks while waiting queues again; one that breaks while it is held is taken up again with
    the resume token as long as the lease lasts; after that the hold is lost. Then the body is cancelled and
    the block raises HoldLost, with the reason in its metadata; with `cancel_on_loss=False` only `lost` is set.
    With `recreate` a hold whose session was lost is made again, with a new token, and `lost` comes only at the
    very end.

    Raises (on entering): WaitTimeout, what stands in the way of the node (NodeExists, NoNode, NoAuth, …),
    InvalidArgument, Quota, SessionSuspended, Unavailable. Leaving the block releases: the node is gone when it
    is left, if the daemon and ZooKeeper can be reached; otherwise it goes as soon as they can.
    Cancellation while waiting leaves nothing in the queue.
    """

    def __init__(self, link: Link, stream: Callable[[], Stream], request: Request, terms: Terms) -> None:
        self._link = link
        self._stream = stream
        self._request = request
        self._terms = terms
        self._timeout_s = link.timeout_s if terms.timeout_s is None else terms.timeout_s
        self._belief = Belief(link.pulse, terms.reconnect_grace_s or 0.0)
        self._resume_token = ""
        self._releasing = False
        self._status: HoldStatus | None = None
        self._limit: asyncio.Timeout | None = None
        self._wait_until_s = 0.0
        self._queued = False
        self._granted: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._body: Body | None = None
        self._lease_timer: asyncio.TimerHandle | None = None
        self.lost = Loss()
        """Set when the hold has ended without being released here: `reason = await held.lost`."""
        self.revoke_requested = asyncio.Event()
        """Set when somebody asks for a lock that is `revocable`. Letting go is up to you."""

    @property
    def status(self) -> HoldStatus:
        """The newest that is known. Raises HoldLost before the block is entered."""
        if self._status is None:
            raise HoldLost("not held: enter the `async with` block first")
        return self._status

    @property
    def path(self) -> str:
        """The znode, with what ZooKeeper added to its name."""
        return self.status.path

    @property
    def hold_id(self) -> str:
        """For `client.transaction(guard_hold_id=…)`."""
        return self.status.hold_id

    @property
    def epoch(self) -> int:
        """The epoch of the daemon's session that owns it."""
        return self.status.epoch

    @property
    def fencing_token(self) -> int:
        """The node's czxid: grows with every grant on this path, on every host (H2)."""
        return self.status.fencing_token

    @property
    def state(self) -> HoldState:
        return self.status.state

    def is_held(self) -> bool:
        """Whether this process may believe now that it owns it. Costs a look at the clock; from any thread."""
        return self.lease_left_s() > 0

    def lease_left_s(self) -> float:
        """How long that may be believed without hearing more; 0 when it is not held."""
        status = self._status
        if status is None or self._releasing or self.lost.is_set() or status.state not in _OWNED:
            return 0.0
        return max(0.0, (self._belief.until_ns - now_ns()) / 1e9)

    async def heartbeat(self) -> float:
        """Feed a hold that has a `heartbeat_timeout_s`; in how many seconds the next is due.

        Raises HoldLost."""
        answer = await self._link.call(
            HoldServiceStub(self._link.channel).Heartbeat, hold_pb2.HeartbeatRequest(hold_id=self.hold_id)
        )
        return seconds(answer.due_in)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._granted = loop.create_future()
        self._wait_until_s = loop.time() + (self._terms.wait_timeout_s or 0.0)
        self._link.pulse.join()
        self._task = asyncio.create_task(self._run(self._granted), name=f"zkside hold {self._request.path}")
        self._task.add_done_callback(lambda _: self._link.pulse.leave())
        try:
            await self._wait_granted(self._granted)
        except BaseException:
            await self._leave()
            raise
        if self._terms.cancel_on_loss:
            self._body = Body()
            if self.lost.is_set():
                await self._leave()
                raise hold_lost(self._request.path, self.lost.reason)
        return self

    async def _wait_granted(self, granted: asyncio.Future[None]) -> None:
        try:
            # Bounds the first answer; once that is WAITING, the wait.
            async with asyncio.timeout(self._timeout_s) as self._limit:
                await asyncio.shield(granted)
            async with asyncio.timeout(self._timeout_s):
                while not (self._belief.is_proved or self.lost.is_set()):
                    await self._link.pulse.wait_beat()
        except TimeoutError:
            raise self._late(granted) from None
        finally:
            self._limit = None

    def _late(self, granted: asyncio.Future[None]) -> ZksideError:
        if self._queued and not granted.done():
            return wait_timeout(self._request.path, self._terms.wait_timeout_s)
        return fault.late(self._link.address, "the hold was not granted, and was given up")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        body, self._body = self._body, None
        if body is None or not body.is_cancelled:
            await self._leave()
            return
        try:
            error = await body.leave(error)
            # At once, but for a daemon that is silent.
            reason = await self.lost
        finally:
            await self._leave()
        if error is None or isinstance(error, Exception | asyncio.CancelledError):
            raise hold_lost(self._request.path, reason) from error

    async def _leave(self) -> None:
        """Release what the daemon may still have, and end the stream. Nothing is believed from here on."""
        self._releasing = True
        self._end_belief()
        try:
            if self._status is not None and self._status.state in _OWNED:
                await self._link.call(
                    HoldServiceStub(self._link.channel).Release,
                    hold_pb2.ReleaseRequest(hold_id=self.hold_id),
                    timeout_s=self._timeout_s,
                )
        except ZksideError:
            # The stream ends all the same, and with it the node as soon as ZooKeeper can be reached.
            pass
        finally:
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait([self._task])

    def _end_belief(self) -> None:
        self._belief.end()
        if self._lease_timer is not None:
            self._lease_timer.cancel()
            self._lease_timer = None

    async def _run(self, granted: asyncio.Future[None]) -> None:
        delays = Delays()
        try:
            while not (self.lost.is_set() or self._releasing):
                failure = await self._follow(granted, delays)
                self._belief.detach()
                if granted.done():
                    self._weigh(failure)
                elif not self._queued or is_final(failure) or isinstance(failure, WaitTimeout):
                    granted.set_exception(failure)
                    return
                if not self.lost.is_set():
                    await asyncio.sleep(delays.next_s())
        finally:
            self._end_belief()

    def _weigh(self, failure: ZksideError) -> None:
        """What the end of its stream means for a hold that was granted."""
        if self.lost.is_set() or self._releasing:
            return
        recreate = self._terms.recreate
        if isinstance(failure, HoldLost):
            self._let_go(failure.metadata.get("reason") or failure.reason)
        elif lease_left_s(self.status) <= 0:
            self._let_go("LEASE_OVER")
        elif is_final(failure) and not (recreate and isinstance(failure, NodeExists)):
            self._let_go(failure.reason)

    def _let_go(self, reason: str) -> None:
        """The present node is lost or released."""
        self._resume_token = ""
        self._belief.tell(0)
        if self.state not in _ENDED:
            self._status = replace(self.status, state=HoldState.LOST, reason=reason)
        if not (self._terms.recreate and reason in _MADE_AGAIN):
            self._lose(reason)

    def _lose(self, reason: str) -> None:
        """The hold is over, unasked: whoever relies on it is to stop."""
        if self._releasing or self.lost.is_set():
            return
        self._end_belief()
        self.lost.set(reason)
        if self._body is not None:
            self._body.cancel()

    async def _follow(self, granted: asyncio.Future[None], delays: Delays) -> ZksideError:
        """Follow one stream to its end; the error that ended it, a HoldLost after its last word."""
        request = self._next_request()
        patient = self._terms.wait_for_ready or granted.done() or self._queued
        sent_ns = now_ns()
        call = self._stream()(
            request,
            wait_for_ready=patient,
            metadata=WAIT_FOR_READY_METADATA if patient else None,
        )
        is_first = True
        try:
            while isinstance(update := await call.read(), hold_pb2.HoldUpdate):
                if update.state != HoldState.WAITING.number:
                    delays.succeeded()
                if is_first:
                    is_first = False
                    self._belief.attach(sent_ns)
                self._receive(update, granted)
        except grpc.aio.AioRpcError as error:
            return fault.of_rpc(error, self._link.address)
        finally:
            call.cancel()
        return self._last_word()

    def _next_request(self) -> Request:
        request = type(self._request)()
        request.CopyFrom(self._request)
        request.resume_token = self._resume_token
        if self._terms.wait_timeout_s is not None and not self._resume_token:
            left_s = self._wait_until_s - asyncio.get_running_loop().time()
            request.wait_timeout.CopyFrom(duration(max(0.0, left_s)))
        return request

    def _last_word(self) -> ZksideError:
        status = self._status
        if status is None or status.state not in _ENDED:
            return ZksideError("the daemon ended the stream without a last word")
        if status.reason == WaitTimeout.reason:
            return wait_timeout(self._request.path, self._terms.wait_timeout_s)
        return HoldLost(f"the hold on {self._request.path} was ended: {status.reason}", reason=status.reason)

    def _receive(self, update: hold_pb2.HoldUpdate, granted: asyncio.Future[None]) -> None:
        self._status = status = hold_of(update.hold, update.state, reason=update.reason, position=update.position)
        if update.hold.resume_token:
            self._resume_token = update.hold.resume_token
        if status.state is HoldState.WAITING:
            self._wait()
        elif status.state in _OWNED:
            self._own(status, granted)
        elif granted.done():
            self._let_go(status.reason)
        self._tell(status)

    def _wait(self) -> None:
        self._link.pulse.hurry()
        if not self._queued and self._limit is not None:
            waits = self._terms.wait_timeout_s is not None
            self._limit.reschedule(self._wait_until_s + LAST_WORD_S if waits else None)
        self._queued = True

    def _own(self, status: HoldStatus, granted: asyncio.Future[None]) -> None:
        told_ns = lease_ns(status)
        self._belief.tell(told_ns)
        if not granted.done():
            granted.set_result(None)
        if self._terms.recreate or self.lost.is_set():
            return
        if told_ns == 0:
            # Asked back. The block is left now, and releases.
            self._lose(status.reason)
        elif self._lease_timer is None:
            self._watch_lease()
        if status.reason == "REVOKE_REQUESTED":
            self.revoke_requested.set()

    def _watch_lease(self) -> None:
        """A lease that nobody moves forward ends the hold."""
        left_s = lease_left_s(self.status)
        if left_s > 0:
            self._lease_timer = asyncio.get_running_loop().call_later(left_s, self._watch_lease)
            return
        self._end_belief()
        if self._body is not None:
            self._body.cancel()
        # A daemon that is there has given it up in the same moment, and knows why.
        wait_s = WHY_S if self._belief.is_attached else 0.0
        asyncio.get_running_loop().call_later(wait_s, self._let_go, "LEASE_OVER")

    def _tell(self, status: HoldStatus) -> None:
        if self._terms.on_update is None:
            return
        try:
            self._terms.on_update(status)
        except Exception as error:
            # The caller's bug does not end what it holds; it is told to the loop.
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a hold's on_update raised", "exception": error}
            )


def wait_timeout(path: str, waited_s: float | None) -> ZksideError:
    """The error for who waited long enough."""
    if waited_s is None:
        return DeadlineExceeded(f"{path} was not granted in time; nothing is left in the queue")
    return WaitTimeout(f"{path} was not granted in {waited_s:g} s; nothing is left in the queue", path=path)
