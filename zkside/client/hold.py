"""What this process owns through the daemon, as its users hold it."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from zkside.client import forked
from zkside.client.holding import Holding, Request, Terms
from zkside.client.link import Link
from zkside.client.loss import Body, Loss, Revocation
from zkside.client.value import HoldState, HoldStatus, seconds
from zkside.errors import HoldLost
from zkside.pb import hold_pb2
from zkside.pb.hold_pb2_grpc import HoldServiceStub


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
    InvalidArgument, Quota, SessionSuspended, Unavailable, DeadlineExceeded. Leaving the block releases: the node
    is gone when it is left, if the daemon and ZooKeeper can be reached; otherwise it goes as soon as they can.
    Cancellation while waiting leaves nothing in the queue.
    """

    def __init__(self, link: Link, step: str, request: Request, terms: Terms) -> None:
        self._link = link
        self._path: str = request.path
        self._cancel_on_loss = terms.cancel_on_loss
        self._holding = Holding(link, step, request, terms)
        self.lost: Loss = self._holding.lost
        """Set when the hold has ended without being released here: `reason = await held.lost`."""
        self.revoke_requested: Revocation = self._holding.revoke_requested
        """Set when somebody asks for a lock that is `revocable`. Letting go is up to you."""

    @property
    def status(self) -> HoldStatus:
        """The newest that is known. Raises HoldLost before the block is entered."""
        status = self._holding.status
        if status is None:
            raise HoldLost("not held: enter the `async with` block first")
        return status

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
        return self._holding.left_s() > 0

    def lease_left_s(self) -> float:
        """How long that may be believed without hearing more; 0 when it is not held. From any thread."""
        return self._holding.left_s()

    async def heartbeat(self) -> float:
        """Feed a hold that has a `heartbeat_timeout_s`; in how many seconds the next is due.

        Raises HoldLost."""
        answer = await self._link.call(
            HoldServiceStub(self._link.channel).Heartbeat, hold_pb2.HeartbeatRequest(hold_id=self.hold_id)
        )
        return seconds(answer.due_in)

    async def __aenter__(self) -> Self:
        await self._holding.start()
        if self._cancel_on_loss:
            self._holding.body = Body()
            if self.lost.is_set():
                await self._holding.finish()
                raise self._error(self.lost.reason)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._link.is_inherited:
            self._leave_inherited(error)
            return
        body, self._holding.body = self._holding.body, None
        if body is None or not body.is_cancelled:
            await self._holding.finish()
            return
        try:
            error = await body.leave(error)
            # There at once, or in a moment if the daemon is silent.
            reason = await self.lost
        finally:
            await self._holding.finish()
        if error is None or isinstance(error, Exception | asyncio.CancelledError):
            raise self._error(reason) from error

    def _leave_inherited(self, error: BaseException | None) -> None:
        """A child that was forked inside the block leaves it. Raises HoldLost; an exit of the process goes on."""
        if error is None or isinstance(error, Exception):
            raise self._error(forked.REASON) from error

    def _error(self, reason: str) -> HoldLost:
        return HoldLost(f"the hold on {self._path} was lost ({reason}): stop what relies on it", reason=reason)
