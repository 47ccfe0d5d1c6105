"""How the hub asks ZooKeeper of its own accord: one policy for all that it reads and all watches that it sets.

    the connection is gone                    the next one begins anew: keeper, loads and watches wait for it
    refused for now: our own queue is full    tried again, ever more rarely, while the connection lasts
      (Quota), ZooKeeper throttles (Throttled)
    an answer that tells nothing              tried again, a few times
      (OutcomeUnknown: SystemError and such)
    too large, for one request or one answer  asked for in smaller parts, down to one node
    anything else, and what is left of these  told to whoever depends on it

So no error is without a next attempt or without a recipient (GUARANTEES V1).
"""

from __future__ import annotations

import asyncio
import random
from typing import Final, TypeGuard

from zkside.core.backoff import Backoff
from zkside.errors import (
    ConnectionLoss,
    NoAuth,
    NoNode,
    OutcomeUnknown,
    SessionLost,
    TooLarge,
    Unavailable,
    ZksideError,
)
from zkside.model.operation import Operation, ReadResult, Reply, T
from zkside.zk.session import Session

PASSING: Final = (Unavailable, ConnectionLoss, SessionLost)
"""What a request fails with when the connection is to blame, or the moment."""
BACKOFF: Final = Backoff(first_s=0.05, max_s=2.0)
MOST_UNKNOWN: Final = 5
"""So often an answer that tells nothing is asked for again."""


def is_passing(error: BaseException | None) -> bool:
    """Whether the request can be made again, a little later or on the next connection."""
    return isinstance(error, PASSING)


def limit_of(error: TooLarge) -> int:
    """How many bytes would have done; 0 if that is not known."""
    return int(error.metadata.get("limit", "0"))


def is_unreadable(result: ReadResult) -> TypeGuard[ZksideError]:
    """Whether it says neither what the node is, nor that it is absent or not ours to read."""
    return isinstance(result, ZksideError) and not isinstance(result, NoNode | NoAuth)


class Asking:
    """Requests that are made again while they can be."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def ask(self, operation: Operation[T]) -> Reply[T]:
        """Raises: what a lost connection raises, and what is not passing."""
        return await self.answer(operation, self._session.call(operation), self._session.status.sequence)

    async def answer(self, operation: Operation[T], first: asyncio.Future[Reply[T]], sequence: int) -> Reply[T]:
        """As `ask`, for an operation that was sent already, while the session's status had this sequence."""
        call, attempt = first, 0
        while True:
            try:
                return await call
            except (*PASSING, OutcomeUnknown) as error:
                if isinstance(error, OutcomeUnknown) and attempt >= MOST_UNKNOWN:
                    raise
                if not self.lasts(sequence):
                    raise ConnectionLoss(str(error)) from error
            await pause(attempt)
            attempt += 1
            call = self._session.call(operation)

    def lasts(self, sequence: int) -> bool:
        """Whether there is a connection, and has been ever since the status had this sequence."""
        status = self._session.status
        return status.state.is_connected and status.sequence == sequence


async def pause(attempt: int) -> None:
    """Before attempt number `attempt`; 0 is the first after the one that failed."""
    await asyncio.sleep(BACKOFF.delay_s(attempt, random.random()))
