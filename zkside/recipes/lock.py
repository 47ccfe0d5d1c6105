"""Locks, read-write locks and semaphores.

A lock is the first place in a queue (Queueing.first). A semaphore is Curator's InterProcessSemaphoreV2: a mutex
around a count, so that whoever has the mutex is the only one who waits for a permit.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from zkside.core.queueing import Kind
from zkside.errors import HoldLost, SessionSuspended
from zkside.model import path as paths
from zkside.model.operation import GetChildren
from zkside.model.watch import Scope, Target
from zkside.recipes.hold import Hold
from zkside.recipes.queueing import Bid, Queueing, Seat, patience
from zkside.recipes.waiting import ask, outlast

RECIPE = "lock"

MUTEX = "locks"
LEASES = "leases"
"""Children of a semaphore's path: the queue, and the permits that are taken."""


async def acquire_permit(queueing: Queueing, hold: Hold, bid: Bid, permits: int) -> None:
    """The flow of a semaphore. Its mutex is held only until the permit is there."""
    leases = paths.join(bid.path, LEASES)

    async def take_permit(epoch: int, seat: Seat, until_s: float) -> None:
        lease = await _take_lease(queueing, hold, leases, bid)
        if not await _is_free(queueing, leases, lease, permits):
            async with patience(until_s):
                await _wait_for_permit(queueing, hold, leases, lease, permits)
        hold.grant(lease.path, lease.czxid, epoch)
        hold.leave(seat.path)

    await queueing.queue(hold, replace(bid, path=paths.join(bid.path, MUTEX), kind=Kind.LOCK), take_permit)


async def _take_lease(queueing: Queueing, hold: Hold, leases: str, bid: Bid) -> Seat:
    take = partial(queueing.take_seat, hold, leases, replace(bid, kind=Kind.LEASE))
    while True:
        try:
            return await outlast(take)
        except SessionSuspended:
            await queueing.session.wait_connected()


async def _wait_for_permit(queueing: Queueing, hold: Hold, leases: str, lease: Seat, permits: int) -> None:
    """Only the holder of the mutex is here: a permit that is given back wakes nobody else (H7)."""
    subscription = await queueing.hub.subscribe((Target(leases, Scope.CHILDREN, False),), is_vital=True)
    try:
        while True:
            await subscription.next()
            if await _is_free(queueing, leases, lease, permits):
                return
            hold.wait(0)
    finally:
        subscription.close()


async def _is_free(queueing: Queueing, leases: str, lease: Seat, permits: int) -> bool:
    """Whether this lease is one of the permits. Leases are only added by the holder of the mutex, so what
    may have changed since the answer makes it more free, not less."""
    names, _ = await ask(queueing.session, GetChildren(leases))
    if lease.contender.name not in names:
        raise HoldLost(f"somebody deleted {lease.path} while it waited", path=lease.path)
    return len(names) <= permits
