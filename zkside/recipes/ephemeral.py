"""Ephemeral nodes: one that lives as long as its stream (HoldEphemeral), or as long as the daemon's session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial

from zkside.errors import ConnectionLoss, NotSupported, Quota, SessionLost, SessionSuspended, Unavailable
from zkside.model.hold import HoldUpdate, Reason, Terms
from zkside.model.operation import Create, Created, CreateMode, Exists, GetEphemerals, Reply
from zkside.recipes.hold import Hold
from zkside.recipes.holds import Holds
from zkside.recipes.node import Writes
from zkside.zk.session import Session

RECIPE = "ephemeral"

Creating = Callable[[], Awaitable[Reply[Created]]]


async def hold_ephemeral(
    holds: Holds,
    writes: Writes,
    operation: Create,
    terms: Terms,
    *,
    make_parents: bool,
    parents: CreateMode = CreateMode.PERSISTENT,
    recreate: bool,
    resume_token: str,
    deadline_s: float | None,
) -> AsyncGenerator[HoldUpdate, None]:
    """The updates of one stream, beginning with HELD.

    With `recreate` a LOST by the end of the session is followed by a new hold in the next epoch. Raises before
    the first update: what Writes.create raises; Quota; HoldLost (resume_token). Cancellation: as a broken stream.
    """
    hold = None
    if resume_token:
        hold = holds.take_up(resume_token, terms.recipe, terms.requested_path, terms.identity)
    resumed = hold is not None
    create = partial(writes.create, operation, make_parents=make_parents, parents=parents)
    if hold is None:
        hold = await _create(holds, partial(create, deadline_s=deadline_s), terms)
    while True:
        async with aclosing(hold.updates(resumed=resumed)) as updates:
            async for update in updates:
                yield update
        if not (recreate and hold.state.is_over and hold.reason is Reason.SESSION_LOST):
            return
        hold = await _recreate(holds, create, terms, hold)
        resumed = False


async def _create(holds: Holds, create: Creating, terms: Terms) -> Hold:
    hold = holds.open(terms)
    try:
        epoch = holds.session.epoch
        made = (await create()).value
        if made.stat is None:
            holds.session.janitor.delete(made.path)
            raise NotSupported("this ZooKeeper does not tell the Stat of what it creates: holds need 3.5 or newer")
        hold.grant(made.path, made.stat.czxid, epoch, reason=Reason.CREATED)
    finally:
        hold.forget()
    return hold


async def _recreate(holds: Holds, create: Creating, terms: Terms, lost: Hold) -> Hold:
    """The hold of the next epoch, however long that takes to begin."""
    while True:
        await holds.session.wait_connected()
        try:
            await _outlive(holds, lost)
            return await _create(holds, create, terms)
        except (SessionSuspended, SessionLost, ConnectionLoss):
            continue


async def _outlive(holds: Holds, lost: Hold) -> None:
    """Wait until the old session's node is gone: the server may count its timeout longer than we did."""
    left = (await holds.session.call(Exists(lost.path))).value
    if left is None or left.czxid != lost.czxid:
        return
    gone = asyncio.Event()
    # What cannot be watched is not waited for: the create tells whether it is still there.
    unwatch = holds.hub.on_deleted(lost.path, lost.czxid, gone.set, on_failed=lambda error: gone.set())
    try:
        await gone.wait()
    finally:
        unwatch()


async def create_owned(
    session: Session,
    writes: Writes,
    operation: Create,
    *,
    protected: bool,
    make_parents: bool,
    deadline_s: float | None,
    limit: int,
) -> Reply[Created]:
    """An ephemeral that is nobody's hold and lives as long as the daemon's session, over its restarts too.

    Raises: what Writes.create raises; Quota beyond `limit` of them; Unavailable if the journal cannot be written
    (the node is deleted then).
    """
    journal = session.journal
    if len(journal.owned()) >= limit:
        living = (await session.call(GetEphemerals())).value
        for path in journal.owned().difference(living):
            journal.disown(path)
        if len(journal.owned()) >= limit:
            raise Quota(f"the daemon has {limit} ephemeral nodes with daemon_lifetime, its limit", limit="max_holds")
    reply = await writes.create(operation, protected=protected, make_parents=make_parents, deadline_s=deadline_s)
    try:
        journal.own(reply.value.path)
    except Unavailable:
        session.janitor.delete(reply.value.path)
        raise
    return reply
