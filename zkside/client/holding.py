"""How something is held: the flow that asks for it, follows its stream over breaks, and notices its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from zkside.client import fault, forked
from zkside.client.belief import Belief
from zkside.client.carry import Carried
from zkside.client.clock import lease_left_s, lease_ns, now_ns
from zkside.client.link import Link
from zkside.client.loss import Body, Loss, Revocation
from zkside.client.retry import Delays, is_final
from zkside.client.value import HoldState, HoldStatus, duration, hold_of
from zkside.errors import DeadlineExceeded, HoldLost, NodeExists, WaitTimeout, ZksideError
from zkside.pb import carry_pb2, hold_pb2
from zkside.pb.hold_pb2_grpc import HoldServiceStub

Request: TypeAlias = Any
"""The message that asks for it; it has `path`, `resume_token`, and `wait_timeout` if there is a queue."""

LAST_WORD_S = 1.0
"""How much longer than its wait_timeout the daemon has to say that it is over."""
WHY_S = 0.25
"""How long a hold whose lease is over waits for the daemon's word of the reason. It is not held meanwhile."""

_QUEUES = ("acquire", "campaign")
"""The steps of CarryStep that queue for a turn; the others wait for another's node to go."""
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


class Holding:
    """One hold, from the request to its end. Task: its own, from `start` to `finish`."""

    def __init__(self, link: Link, step: str, request: Request, terms: Terms) -> None:
        """`step`: the field of CarryStep that takes the request."""
        self._link = link
        self._step = step
        self._carried: Carried | None = None
        self._request = request
        self._terms = terms
        self._timeout_s = link.timeout_s if terms.timeout_s is None else terms.timeout_s
        self._belief = Belief(link.pulse, terms.reconnect_grace_s or 0.0)
        self._resume_token = ""
        self._releasing = False
        self._queued = False
        self._limit: asyncio.Timeout | None = None
        self._wait_until_s = 0.0
        self._granted: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._lease_timer: asyncio.TimerHandle | None = None
        self.status: HoldStatus | None = None
        """The newest that was told."""
        self.lost = Loss()
        self.revoke_requested = Revocation()
        self.body: Body | None = None
        """Whom to cancel when it is lost."""
        forked.track(self)

    def forked(self) -> None:
        """Nothing is held in a child: it is the parent's."""
        if self.status is None or self.status.state in _ENDED:
            return
        self.status = replace(self.status, state=HoldState.LOST, reason=forked.REASON)
        self.body = None
        self._end_belief()
        self.lost.set(forked.REASON)

    @property
    def is_owned(self) -> bool:
        """Whether the daemon has it, as far as is known."""
        return self.status is not None and self.status.state in _OWNED

    def left_s(self) -> float:
        """How long it may be believed in without hearing more; 0 when it is not held."""
        if not self.is_owned or self._releasing or self.lost.is_set():
            return 0.0
        return max(0.0, (self._belief.until_ns - now_ns()) / 1e9)

    async def start(self) -> None:
        """Ask for it, and wait until it is granted and may be believed in.

        Raises what refused it, WaitTimeout, DeadlineExceeded; nothing is left then. Cancellation: the same.
        """
        if self._task is not None:
            raise RuntimeError("a hold is entered once; ask the client for another")
        loop = asyncio.get_running_loop()
        granted = self._granted = loop.create_future()
        self._wait_until_s = loop.time() + (self._terms.wait_timeout_s or 0.0)
        self._link.pulse.join()
        self._task = asyncio.create_task(self._run(granted), name=f"zkside hold {self._request.path}")
        self._task.add_done_callback(self._ended)
        try:
            # Bounds the first answer; once that is WAITING, the wait.
            async with asyncio.timeout(self._timeout_s) as self._limit:
                await asyncio.shield(granted)
            async with asyncio.timeout(self._timeout_s):
                while not (self._belief.is_proved or self.lost.is_set()):
                    await self._link.pulse.wait_beat()
        except BaseException as error:
            await self.finish()
            if isinstance(error, TimeoutError):
                raise self._late(granted) from None
            raise
        finally:
            self._limit = None

    async def finish(self) -> None:
        """Release what the daemon may still have, and end the stream. Nothing is believed from here on."""
        self._releasing = True
        self._end_belief()
        try:
            if self.is_owned and self._carried is not None and not self._carried.is_over:
                await self._carried.release(self._timeout_s)
            elif self.is_owned:
                await self._link.call(
                    HoldServiceStub(self._link.channel).Release,
                    hold_pb2.ReleaseRequest(hold_id=self.status.hold_id if self.status else ""),
                    timeout_s=self._timeout_s,
                )
        except (ZksideError, TimeoutError):
            # It was let go all the same, and the node goes as soon as ZooKeeper can be reached.
            pass
        finally:
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait([self._task])

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._link.pulse.leave()
        self._end_belief()
        failure = None if task.cancelled() else task.exception()
        if self._granted is not None and failure is not None and not self._granted.done():
            self._granted.set_exception(failure)
            return
        # A task that was not ended by `finish` was cancelled with its loop, or failed.
        self._lose("CLIENT_CLOSED" if failure is None else "INTERNAL")
        if failure is not None:
            raise failure

    def _end_belief(self) -> None:
        self._belief.end()
        if self._lease_timer is not None:
            self._lease_timer.cancel()
            self._lease_timer = None

    def _late(self, granted: asyncio.Future[None]) -> ZksideError:
        if self._queued and not granted.done():
            return self._waited()
        return fault.late(self._link.address, "the hold was not granted, and was given up")

    def _waited(self) -> ZksideError:
        path, limit_s = self._request.path, self._terms.wait_timeout_s
        is_queue = self._step in _QUEUES
        if self._step == "join" and self._request.member_id:
            path = f"{path.rstrip('/')}/{self._request.member_id}"
        left = "nothing is left in the queue" if is_queue else "no node was made"
        if limit_s is None:
            return DeadlineExceeded(f"{path} was not to be had in time; {left}")
        if not limit_s:
            return WaitTimeout(f"{path} is another's, and was not to be waited for; {left}", path=path)
        what = "was not granted in" if is_queue else "was still another's node after"
        return WaitTimeout(f"{path} {what} {limit_s:g} s; {left}", path=path)

    def remember_data(self, data: bytes) -> None:
        """Ask for this data when it has to be asked for anew."""
        if self._step == "join" and not self._request.member_id:
            self._request.member_id = self._request.service.id
        self._request.data = data

    # Streams, one after the other

    async def _run(self, granted: asyncio.Future[None]) -> None:
        delays = Delays()
        while not (self.lost.is_set() or self._releasing):
            failure = await self._follow(granted, delays)
            self._belief.detach()
            if granted.done():
                self._weigh(failure)
            elif not self._queued or is_final(failure) or isinstance(failure, WaitTimeout) or self._link.is_closed:
                granted.set_exception(failure)
                return
            if not self.lost.is_set():
                await asyncio.sleep(delays.next_s())

    def _weigh(self, failure: ZksideError) -> None:
        """What the end of its stream means for a hold that was granted."""
        if self.lost.is_set() or self._releasing or self.status is None:
            return
        if isinstance(failure, HoldLost):
            self._let_go(failure.metadata.get("reason") or failure.reason)
        elif self._link.is_closed:
            self._let_go("CLIENT_CLOSED")
        elif lease_left_s(self.status) <= 0:
            self._let_go("LEASE_OVER")
        elif is_final(failure) and not (self._terms.recreate and isinstance(failure, NodeExists)):
            self._let_go(failure.reason)

    async def _follow(self, granted: asyncio.Future[None], delays: Delays) -> ZksideError:
        """Follow one stream to its end: the error that ended it, a HoldLost after its last word."""
        patient = self._terms.wait_for_ready or granted.done() or self._queued
        is_first = True
        try:
            if patient:
                # What is sent before there is a daemon proves nothing by the time when it is answered.
                await self._link.wait_connected()
            sent_ns = now_ns()
            step = carry_pb2.CarryStep(wait_for_ready=patient, **{self._step: self._next_request()})
            carried = self._carried = self._link.hold(step)
            while (update := await carried.read()) is not None:
                if update.state != HoldState.WAITING.number:
                    delays.succeeded()
                if is_first:
                    is_first = False
                    self._belief.attach(sent_ns)
                    if not self._belief.is_proved:
                        # It was opened a while ago.
                        self._link.pulse.hurry()
                self._receive(update, granted)
        except ZksideError as error:
            return error
        finally:
            if self._carried is not None:
                self._carried.let_go()
                self._carried = None
        return self._last_word()

    def _next_request(self) -> Request:
        request = type(self._request)()
        request.CopyFrom(self._request)
        request.resume_token = self._resume_token
        if self._terms.wait_timeout_s is not None and self._granted is not None and not self._granted.done():
            left_s = self._wait_until_s - asyncio.get_running_loop().time()
            request.wait_timeout.CopyFrom(duration(max(0.0, left_s)))
        return request

    def _last_word(self) -> ZksideError:
        status = self.status
        if status is None or status.state not in _ENDED:
            return ZksideError("the daemon ended the stream without a last word")
        if status.reason == WaitTimeout.reason:
            return self._waited()
        return HoldLost(f"the hold on {self._request.path} was ended: {status.reason}", reason=status.reason)

    # What the daemon tells

    def _receive(self, update: hold_pb2.HoldUpdate, granted: asyncio.Future[None]) -> None:
        self.status = status = hold_of(update.hold, update.state, reason=update.reason, position=update.position)
        if status.state is HoldState.WAITING:
            self._wait()
        elif status.state in _OWNED:
            # A place in the queue is not taken up again: it went with its stream.
            self._resume_token = update.hold.resume_token or self._resume_token
            self._own(status, granted)
        elif granted.done():
            self._let_go(status.reason)
        self._tell(status)

    def _wait(self) -> None:
        self._link.pulse.begin()
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
            # Asked back: the block is left now, and that releases it.
            self._lose(status.reason or "DRAINED")
        elif self._lease_timer is None:
            self._watch_lease()
        if status.reason == "REVOKE_REQUESTED":
            self.revoke_requested.set()

    def _watch_lease(self) -> None:
        """A lease that nobody moves forward ends the hold."""
        left_s = 0.0 if self.status is None else lease_left_s(self.status)
        if left_s > 0:
            self._lease_timer = asyncio.get_running_loop().call_later(left_s, self._watch_lease)
            return
        if self.body is not None:
            self.body.cancel()
        # A daemon that is there has given it up in the same moment, and knows why.
        wait_s = WHY_S if self._belief.is_attached else 0.0
        self._end_belief()
        self._lease_timer = asyncio.get_running_loop().call_later(wait_s, self._let_go, "LEASE_OVER")

    def _let_go(self, reason: str) -> None:
        """The present node is lost or released."""
        self._resume_token = ""
        self._belief.tell(0)
        if self.status is not None and self.status.state not in _ENDED:
            self.status = replace(self.status, state=HoldState.LOST, reason=reason)
        if not (self._terms.recreate and reason in _MADE_AGAIN):
            self._lose(reason)

    def _lose(self, reason: str) -> None:
        """The hold is over, unasked: whoever relies on it is to stop."""
        if self._releasing or self.lost.is_set():
            return
        self._end_belief()
        self.lost.set(reason)
        if self.body is not None:
            self.body.cancel()

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
