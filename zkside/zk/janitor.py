"""Deletes what finished and cancelled flows leave behind, until it is gone or the epoch ends.

A flow that is being cancelled cannot be trusted to await its own cleanup: the next cancellation kills that
too. So it hands its node over synchronously and goes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import NamedTuple, Protocol

from zkside import log
from zkside.core.backoff import Backoff
from zkside.errors import (
    BadRequest,
    BadVersion,
    NoNode,
    Refused,
    SessionLost,
    ZksideError,
)
from zkside.model.operation import ANY_VERSION, Delete, Exists, Operation, Reply, T
from zkside.supervisor import Permanent, Supervisor, nothing

MAX_PENDING = 100_000
_BATCH = 32
"""Deleted at the same time by the task: some milliseconds of work in a turn of the event loop."""
_MOST_UNDER_WAY = 64
"""Deleted as they are handed over; what is beyond is left to the task."""
_BACKOFF = Backoff(first_s=0.05, max_s=2.0)


class Call(Protocol):
    """Session.call."""

    def __call__(self, operation: Operation[T]) -> asyncio.Future[Reply[T]]: ...


class _Leftover(NamedTuple):
    """A node to delete, if it is the one that is meant."""

    path: str
    czxid: int | None
    """Only the incarnation that this zxid created."""
    not_after_zxid: int | None
    """Only an incarnation that was created by then."""

    @property
    def is_whatever(self) -> bool:
        """Whatever node has the path is meant."""
        return self.czxid is None and self.not_after_zxid is None


@dataclass(frozen=True, slots=True)
class JanitorStatistics:
    """For metrics; all but `pending` counted since the start."""

    pending: int
    deleted: int
    retried: int
    given_up: int
    """Refused for good by ZooKeeper (no permission, not empty), or one too many."""


class Janitor:
    """What nothing has to be read for is deleted as it is handed over; for all else, and to try again, there is one
    task, from `start` to `stop`, which deletes in batches, oldest first.

    Bounded: beyond MAX_PENDING a hand-over is refused, counted as given up and logged.
    """

    def __init__(self, call: Call, wait_connected: Callable[[], Awaitable[None]]) -> None:
        self._call = call
        self._wait_connected = wait_connected
        self._pending: dict[_Leftover, asyncio.Future[bool]] = {}
        self._under_way: set[_Leftover] = set()
        """Of the pending ones: sent as they were handed over, and not answered yet."""
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: Permanent | None = None
        self._deleted = 0
        self._retried = 0
        self._given_up = 0

    def delete(self, path: str, czxid: int | None = None) -> asyncio.Future[bool]:
        """See to it that this node goes, unless the session goes first. Returns at once, never raises.

        What is returned need not be awaited: it is done, and True, when the node is gone or its session is
        over, and False if it was given up. Cancelling it changes nothing.

        With `czxid` only that incarnation is deleted: a node that somebody made under the same name after it
        stays. ZooKeeper has no such operation: the Stat is read and its version guards the delete, so a node
        that a third party deletes and makes again between the two, with as many changes, would still go.
        """
        return self._hand_over(_Leftover(path, czxid, None))

    def delete_older(self, path: str, zxid: int) -> asyncio.Future[bool]:
        """As `delete`, for an incarnation that was created at this zxid or before."""
        return self._hand_over(_Leftover(path, None, zxid))

    async def drained(self, within_s: float) -> bool:
        """Wait until nothing is pending; False if that takes longer."""
        try:
            async with asyncio.timeout(within_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def epoch_ended(self) -> None:
        """The session's ephemerals are gone with it."""
        for leftover in list(self._pending):
            self._done(leftover, gone=True)
        self._settle()

    def statistics(self) -> JanitorStatistics:
        return JanitorStatistics(len(self._pending), self._deleted, self._retried, self._given_up)

    def start(self, supervisor: Supervisor) -> None:
        """Work until `stop`. What is pending outlives a death of the task: nothing is stale by it."""
        self._task = supervisor.start("janitor", self._run, nothing)

    async def stop(self) -> None:
        """Work no more. What is pending stays pending."""
        if self._task is not None:
            self._task.stop()
            await self._task.wait()

    async def _run(self) -> None:
        attempt = 0
        while True:
            await self._work.wait()
            try:
                await self._wait_connected()
            except SessionLost:
                return  # the session was closed, and nobody waits for it any more
            batch = list(islice((each for each in self._pending if each not in self._under_way), _BATCH))
            async with asyncio.TaskGroup() as group:
                for leftover in batch:
                    group.create_task(self._attempt(leftover))
            self._settle()
            if not any(leftover in self._pending for leftover in batch):
                attempt = 0
            else:
                self._retried += 1
                await asyncio.sleep(_BACKOFF.delay_s(attempt, random.random()))
                attempt += 1

    def _hand_over(self, leftover: _Leftover) -> asyncio.Future[bool]:
        gone = self._pending.get(leftover)
        if gone is None or gone.cancelled():
            gone = asyncio.get_running_loop().create_future()
            if len(self._pending) >= MAX_PENDING:
                self._give_up(leftover, f"{MAX_PENDING} nodes are pending already")
                gone.set_result(False)
            else:
                self._pending[leftover] = gone
                if leftover.is_whatever and len(self._under_way) < _MOST_UNDER_WAY:
                    self._under_way.add(leftover)
                    deleting = self._call(Delete(leftover.path, ANY_VERSION))
                    deleting.add_done_callback(partial(self._answered, leftover, gone))
                self._settle()
        return gone

    def _answered(self, leftover: _Leftover, gone: asyncio.Future[bool], deleting: asyncio.Future[Reply[None]]) -> None:
        # Looked at in any case, lest asyncio report it as overlooked.
        error = None if deleting.cancelled() else deleting.exception()
        if self._pending.get(leftover) is not gone:
            return  # the epoch is over, or it was handed over anew
        self._under_way.discard(leftover)
        if not deleting.cancelled():
            self._take(leftover, error)
        self._settle()

    def _done(self, leftover: _Leftover, *, gone: bool) -> None:
        self._under_way.discard(leftover)
        future = self._pending.pop(leftover, None)
        if future is not None and not future.done():
            future.set_result(gone)

    def _give_up(self, leftover: _Leftover, why: object) -> None:
        self._given_up += 1
        log.janitor_gave_up(path=leftover.path, reason=str(why))

    def _settle(self) -> None:
        for event, is_set in (
            (self._work, len(self._pending) > len(self._under_way)),
            (self._idle, not self._pending),
        ):
            if is_set:
                event.set()
            else:
                event.clear()

    async def _attempt(self, leftover: _Leftover) -> None:
        """Leaves it pending if it is to be tried again."""
        try:
            version = await self._version(leftover)
            if version is None:
                self._done(leftover, gone=True)
            else:
                await self._call(Delete(leftover.path, version))
                self._take(leftover, None)
        except ZksideError as error:
            self._take(leftover, error)

    def _take(self, leftover: _Leftover, error: BaseException | None) -> None:
        """The answer to a delete; what passes leaves it pending."""
        self._deleted += error is None
        if error is None or isinstance(error, NoNode):
            self._done(leftover, gone=True)
        elif isinstance(error, Refused | BadRequest) and not isinstance(error, BadVersion):
            self._give_up(leftover, error)
            self._done(leftover, gone=False)
        # Whatever else it was passes: the connection, a queue that is full, a version that changed under our hands.
        # After SessionLost nothing is pending.

    async def _version(self, leftover: _Leftover) -> int | None:
        """Of the node that is meant, to guard its delete; None if it is gone."""
        if leftover.is_whatever:
            return ANY_VERSION
        stat = (await self._call(Exists(leftover.path))).value
        if stat is None or (leftover.czxid is not None and stat.czxid != leftover.czxid):
            return None
        if leftover.not_after_zxid is not None and stat.czxid > leftover.not_after_zxid:
            return None
        return stat.version
