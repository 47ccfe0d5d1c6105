"""Kills tasks, as a defect or a stray cancel would."""

from __future__ import annotations

import asyncio

from zkside.supervisor import Permanent


class Killed(Exception):
    """Injected."""


async def kill(permanent: Permanent, how: str) -> bool:
    """`how` is "cancel", or "exception": then what the task waits for fails. Whether it died of it: some tasks deal
    with an exception by themselves."""
    task = permanent.task
    while not task.done():
        waiter = getattr(task, "_fut_waiter", None)
        if how == "exception" and waiter is not None and not isinstance(waiter, asyncio.Task) and not waiter.done():
            waiter.set_exception(Killed())
            break
        if how == "cancel" or isinstance(waiter, asyncio.Task):
            task.cancel()
            break
        await asyncio.sleep(0)  # it is about to run
    await asyncio.wait([task], timeout=0.1)
    return task.done()
