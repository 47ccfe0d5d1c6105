"""What this process owns through the daemon: an ephemeral node that lives as long as its stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from types import TracebackType

import grpc
import grpc.aio

from zkside.client import fault
from zkside.client.link import Link
from zkside.client.retry import Delays, is_final
from zkside.client.value import Acl, HoldState, HoldStatus, acl_messages, duration, hold_of
from zkside.errors import HoldLost, NodeExists, ZksideError
from zkside.pb import hold_pb2, node_pb2
from zkside.pb.hold_pb2_grpc import HoldServiceStub
from zkside.pb.node_pb2_grpc import NodeServiceStub

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)
_OWNED = (HoldState.HELD, HoldState.JEOPARDY)
_ENDED = (HoldState.RELEASED, HoldState.LOST)


def lease_left_s(hold: HoldStatus) -> float:
    """How long this hold may still be believed without hearing more; negative once it is over."""
    if _BOOTTIME is not None:
        return (hold.lease_boottime_ns - time.clock_gettime_ns(_BOOTTIME)) / 1e9
    return (hold.lease_monotonic_ns - time.monotonic_ns()) / 1e9


class Loss:
    """The end of a hold: `await` it for the reason."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.reason = ""

    def is_set(self) -> bool:
        return self._event.is_set()

    def set(self, reason: str) -> None:
        if not self._event.is_set():
            self.reason = reason
            self._event.set()

    def __await__(self) -> Generator[object, None, str]:
        yield from self._event.wait().__await__()
        return self.reason


class HeldEphemeral:
    """An ephemeral node, owned inside the `async with` block.

        async with client.hold_ephemeral("/members/a", b"here") as held:
            protect(held.fencing_token)
            while held.is_held(): ...

    `is_held` compares the lease with the clock: no call, and right also when this process or the daemon was
    stopped for a while. What makes work safe is `fencing_token`: pass it on to what you protect.

    A stream that breaks is taken up again with the resume token as long as the lease lasts; after that the
    hold counts as lost. With `recreate` a hold whose session was lost is made again, with a new token, and
    `lost` comes only at the very end.

    Raises (on entering): NodeExists, NoNode, NoChildrenForEphemerals, InvalidAcl, TooLarge, Quota,
    SessionSuspended, Unavailable. Leaving the block releases: the node is gone when it is left, if the
    daemon and ZooKeeper can be reached; otherwise it goes as soon as they can.
    """

    def __init__(
        self,
        link: Link,
        path: str,
        data: bytes = b"",
        *,
        sequential: bool = False,
        acl: Sequence[Acl] | None = None,
        make_parents: bool = False,
        recreate: bool = False,
        reconnect_grace_s: float | None = None,
        heartbeat_timeout_s: float | None = None,
        timeout_s: float | None = None,
        wait_for_ready: bool = False,
        on_update: Callable[[HoldStatus], None] | None = None,
    ) -> None:
        self._link = link
        self._request = node_pb2.HoldEphemeralRequest(
            path=path,
            data=data,
            sequential=sequential,
            acl=acl_messages(list(acl) if acl else None),
            make_parents=make_parents,
            recreate=recreate,
            reconnect_grace=None if reconnect_grace_s is None else duration(reconnect_grace_s),
            heartbeat_timeout=None if heartbeat_timeout_s is None else duration(heartbeat_timeout_s),
        )
        self._recreate = recreate
        self._timeout_s = link.timeout_s if timeout_s is None else timeout_s
        self._wait_for_ready = wait_for_ready
        self._on_update = on_update
        self._resume_token = ""
        self._releasing = False
        self._status: HoldStatus | None = None
        self._granted: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self.lost = Loss()
        """Set when the hold has ended without being released here: `reason = await held.lost`."""

    @property
    def status(self) -> HoldStatus:
        """The newest that is known. Raises HoldLost before the block is entered."""
        if self._status is None:
            raise HoldLost("not held: enter the `async with` block first")
        return self._status

    @property
    def path(self) -> str:
        """With the sequence number that was added."""
        return self.status.path

    @property
    def hold_id(self) -> str:
        """For `client.transaction(guard_hold_id=…)`."""
        return self.status.hold_id

    @property
    def fencing_token(self) -> int:
        """The node's czxid: grows with every grant on this path, on every host (H2)."""
        return self.status.fencing_token

    @property
    def state(self) -> HoldState:
        return self.status.state

    def is_held(self) -> bool:
        """Whether this host may believe now that it owns the node. Costs a look at the clock."""
        status = self._status
        return status is not None and not self.lost.is_set() and status.state in _OWNED and lease_left_s(status) > 0

    async def heartbeat(self) -> float:
        """Feed a hold that has a `heartbeat_timeout_s`; in how many seconds the next is due.

        Raises HoldLost."""
        answer = await self._link.call(
            HoldServiceStub(self._link.channel).Heartbeat, hold_pb2.HeartbeatRequest(hold_id=self.hold_id)
        )
        return answer.due_in.seconds + answer.due_in.nanos / 1e9

    async def __aenter__(self) -> HeldEphemeral:
        self._granted = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(self._granted), name=f"zkside hold {self._request.path}")
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.shield(self._granted)
        except TimeoutError:
            await self._stop()
            raise fault.late(self._link.address, "the hold was not granted, and was given up") from None
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._releasing = True
        try:
            if self._status is not None and not self.lost.is_set():
                await self._link.call(
                    HoldServiceStub(self._link.channel).Release,
                    hold_pb2.ReleaseRequest(hold_id=self.hold_id),
                    timeout_s=self._timeout_s,
                )
        except ZksideError:
            # The stream ends all the same, and with it the node as soon as ZooKeeper can be reached.
            pass
        finally:
            await self._stop()

    async def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self, granted: asyncio.Future[None]) -> None:
        delays = Delays()
        while not (self.lost.is_set() or self._releasing):
            failure = await self._follow(granted, delays)
            if failure is not None and not granted.done():
                granted.set_exception(failure)
                return
            if failure is not None and not self._releasing:
                self._weigh(failure)
            if not self.lost.is_set():
                await asyncio.sleep(delays.next_s())

    def _weigh(self, failure: ZksideError) -> None:
        """What a broken stream means for a hold that was granted."""
        status = self.status
        if isinstance(failure, HoldLost):
            self._let_go(failure.reason)
        elif lease_left_s(status) <= 0:
            self._let_go("LEASE_OVER")
        elif is_final(failure) and not (self._recreate and isinstance(failure, NodeExists)):
            self._let_go(failure.reason)

    def _let_go(self, reason: str) -> None:
        self._resume_token = ""
        if self.state not in _ENDED:
            self._status = replace(self.status, state=HoldState.LOST, reason=reason)
        if not (self._recreate or self._releasing):
            self.lost.set(reason)

    async def _follow(self, granted: asyncio.Future[None], delays: Delays) -> ZksideError | None:
        """Follow one stream to its end; the error that ended it, None after its last word."""
        request = node_pb2.HoldEphemeralRequest()
        request.CopyFrom(self._request)
        request.resume_token = self._resume_token
        again = granted.done()
        call = NodeServiceStub(self._link.channel).HoldEphemeral(
            request,
            wait_for_ready=self._wait_for_ready or again,
            metadata=(("zkside-wait-for-ready", "true"),) if self._wait_for_ready or again else None,
            # What is taken up again has only as long as the lease lasts.
            timeout=None,
        )
        lease_guard: asyncio.TimerHandle | None = None
        if again and self._resume_token:
            lease_guard = asyncio.get_running_loop().call_later(max(0.0, lease_left_s(self.status)), call.cancel)
        try:
            while isinstance(update := await call.read(), hold_pb2.HoldUpdate):
                if lease_guard is not None:
                    lease_guard.cancel()
                delays.succeeded()
                self._receive(update, granted)
                if self.lost.is_set():
                    return None
        except grpc.aio.AioRpcError as error:
            return fault.of_rpc(error, self._link.address)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if call.cancelled() and task is not None and not task.cancelling():
                return HoldLost("the daemon did not come back before the lease was over")
            raise
        finally:
            if lease_guard is not None:
                lease_guard.cancel()
            call.cancel()
        return ZksideError("the daemon ended the stream without a last word")

    def _receive(self, update: hold_pb2.HoldUpdate, granted: asyncio.Future[None]) -> None:
        status = hold_of(update.hold, update.state, reason=update.reason, position=update.position)
        self._status = status
        if update.hold.resume_token:
            self._resume_token = update.hold.resume_token
        if status.state is HoldState.HELD and not granted.done():
            granted.set_result(None)
        if status.state in _ENDED:
            self._let_go(status.reason)
        if self._on_update is not None:
            self._on_update(status)
