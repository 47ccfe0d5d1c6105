"""Locks, read-write locks and semaphores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zkside.client.calls import Calls
from zkside.client.contender import Contenders, LockLayout, contender_of
from zkside.client.hold import Held
from zkside.client.holding import Terms
from zkside.client.value import Acl, Consistency, HoldStatus, acl_messages, header_of, optional_duration
from zkside.errors import InvalidArgument
from zkside.pb import lock_pb2
from zkside.pb.lock_pb2_grpc import LockServiceStub


class LockCalls(Calls):
    """LockService, for one link."""

    def lock(
        self,
        path: str,
        *,
        shared: bool = False,
        permits: int = 0,
        wait_timeout_s: float | None = None,
        owner: str = "",
        value: bytes = b"",
        layout: LockLayout = LockLayout.CURATOR,
        acl: Sequence[Acl] | None = None,
        reconnect_grace_s: float | None = None,
        heartbeat_timeout_s: float | None = None,
        revocable: bool = False,
        cancel_on_loss: bool = True,
        timeout_s: float | None = None,
        wait_for_ready: bool = False,
        on_update: Callable[[HoldStatus], None] | None = None,
    ) -> Held:
        """Hold a lock inside `async with`: see Held. First come, first served over all hosts (H7).

        `shared`: with other readers; `permits`: a semaphore of so many. `wait_timeout_s`: then WaitTimeout, 0
        tries once, None waits as long as it takes. `timeout_s` bounds the daemon's first answer.
        """
        request = lock_pb2.AcquireRequest(
            path=path,
            mode=_mode(shared, permits),
            permits=permits,
            wait_timeout=optional_duration(wait_timeout_s),
            owner=owner,
            value=value,
            layout=layout.number,
            acl=acl_messages(list(acl) if acl else None),
            reconnect_grace=optional_duration(reconnect_grace_s),
            heartbeat_timeout=optional_duration(heartbeat_timeout_s),
            revocable=revocable,
        )
        terms = Terms(
            cancel_on_loss=cancel_on_loss,
            reconnect_grace_s=reconnect_grace_s,
            wait_timeout_s=wait_timeout_s,
            timeout_s=timeout_s,
            wait_for_ready=wait_for_ready,
            on_update=on_update,
        )
        return Held(self._link, "acquire", request, terms)

    async def contenders(
        self,
        path: str,
        *,
        semaphore: bool = False,
        consistency: Consistency | None = None,
        min_zxid: int = 0,
        max_stale_s: float | None = None,
        timeout_s: float | None = None,
        wait_for_ready: bool = False,
    ) -> Contenders:
        """Who holds a lock and who waits, in the order of the queue; none for an absent path.

        `semaphore`: the permits that are taken, then the queue for the next. Raises NoAuth, TooStale."""
        request = lock_pb2.GetContendersRequest(
            path=path,
            mode=lock_pb2.LOCK_MODE_SEMAPHORE if semaphore else lock_pb2.LOCK_MODE_UNSPECIFIED,
            options=self._options(consistency, min_zxid, max_stale_s),
        )
        answer = await self._link.call(
            LockServiceStub(self._link.channel).GetContenders,
            request,
            timeout_s=timeout_s,
            wait_for_ready=wait_for_ready,
        )
        return Contenders(header_of(answer.header), tuple(contender_of(each) for each in answer.contenders))


def _mode(shared: bool, permits: int) -> lock_pb2.LockMode.ValueType:
    if shared and permits:
        raise InvalidArgument("a lock is shared, or has permits, not both", field="permits")
    if permits:
        return lock_pb2.LOCK_MODE_SEMAPHORE
    return lock_pb2.LOCK_MODE_SHARED if shared else lock_pb2.LOCK_MODE_EXCLUSIVE
