"""Deletes what finished and cancelled flows leave behind, until it is gone or the epoch ends.

A flow that is being cancelled cannot be trusted to await its own cleanup: the next cancellation kills that
too. So it hands its node over synchronously and goes.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, Protocol

from zkside.core.backoff import Backoff
from zkside.errors import (
    BadRequest,
    BadVersion,
    ConnectionLoss,
    NoNode,
    OutcomeUnknown,
    Refused,
    SessionLost,
    Unavailable,
)
from zkside.model.operation import ANY_VERSION, Delete, Exists, Operation, Reply, T

log = logging.getLogger(__name__)

MAX_PENDING = 100_000
_BATCH = 256
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


@dataclass(frozen=True, slots=True)
class JanitorStatistics:
    """For metrics; all but `pending` counted since the start."""

    pending: int
    deleted: int
    retried: int
    given_up: int
    """Refused for good by ZooKeeper (no permission, not empty), or one too many."""


class Janitor:
    """One task, owned by the session, which deletes in batches, oldest first.

    Bounded: beyond MAX_PENDING a hand-over is refused, counted as given up and logged.
    """

    def __init__(self, call: Call, wait_connected: Callable[[], Awaitable[None]]) -> None:
        self._call = call
        self._wait_connected = wait_connected
        self._pending: dict[_Leftover, None] = {}
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._deleted = 0
        self._retried = 0
        self._given_up = 0

    def delete(self, path: str, czxid: int | None = None) -> None:
        """See to it that this node goes, unless the session goes first. Returns at once, never raises.

        With `czxid` only that incarnation is deleted: a node that somebody made under the same name after it
        stays. ZooKeeper has no such operation: the Stat is read and its version guards the delete, so a node
        that a third party deletes and makes again between the two, with as many changes, would still go.
        """
        self._hand_over(_Leftover(path, czxid, None))

    def delete_older(self, path: str, zxid: int) -> None:
        """As `delete`, for an incarnation that was created at this zxid or before."""
        self._hand_over(_Leftover(path, None, zxid))

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
        self._pending.clear()
        self._settle()

    def statistics(self) -> JanitorStatistics:
        return JanitorStatistics(len(self._pending), self._deleted, self._retried, self._given_up)

    async def run(self) -> None:
        """Work until cancelled. What is pending then stays pending."""
        attempt = 0
        while True:
            await self._work.wait()
            await self._wait_connected()
            batch = list(islice(self._pending, _BATCH))
            async with asyncio.TaskGroup() as group:
                settled = [group.create_task(self._attempt(leftover)) for leftover in batch]
            for leftover, task in zip(batch, settled, strict=True):
                if task.result():
                    self._pending.pop(leftover, None)
            self._settle()
            if all(task.result() for task in settled):
                attempt = 0
            else:
                self._retried += 1
                await asyncio.sleep(_BACKOFF.delay_s(attempt, random.random()))
                attempt += 1

    def _hand_over(self, leftover: _Leftover) -> None:
        if len(self._pending) >= MAX_PENDING:
            self._given_up += 1
            log.error("janitor: %d nodes pending, %s is left to the end of the session", MAX_PENDING, leftover.path)
            return
        self._pending[leftover] = None
        self._settle()

    def _settle(self) -> None:
        if self._pending:
            self._work.set()
            self._idle.clear()
        else:
            self._work.clear()
            self._idle.set()

    async def _attempt(self, leftover: _Leftover) -> bool:
        """Whether nothing is left to do."""
        path, czxid, not_after_zxid = leftover
        version = ANY_VERSION
        try:
            if czxid is not None or not_after_zxid is not None:
                stat = (await self._call(Exists(path))).value
                if stat is None or (czxid is not None and stat.czxid != czxid):
                    return True
                if not_after_zxid is not None and stat.czxid > not_after_zxid:
                    return True
                version = stat.version
            await self._call(Delete(path, version))
        except NoNode:
            return True
        except (BadVersion, Unavailable, ConnectionLoss, OutcomeUnknown, SessionLost):
            # Changed under our hands, or not to be known: look again. After SessionLost nothing is pending.
            return False
        except (Refused, BadRequest) as error:
            self._given_up += 1
            log.warning("janitor: %s cannot be deleted and is left to the end of the session: %s", path, error)
            return True
        self._deleted += 1
        return True
