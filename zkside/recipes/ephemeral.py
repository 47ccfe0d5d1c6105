"""Ephemeral nodes: one that lives as long as its stream (HoldEphemeral), or as long as the daemon's session."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from functools import partial
from operator import eq

from zkside.errors import (
    BadVersion,
    ConnectionLoss,
    NoAuth,
    NodeExists,
    NoNode,
    NotSupported,
    OutcomeUnknown,
    Quota,
    SessionLost,
    SessionSuspended,
    Unavailable,
)
from zkside.model import record as records
from zkside.model.hold import HoldUpdate, OnExists, Reason, Terms
from zkside.model.operation import Create, Created, CreateMode, Delete, Exists, GetData, GetEphemerals, Reply
from zkside.recipes.hold import Hold
from zkside.recipes.holds import Holds
from zkside.recipes.node import Writes
from zkside.recipes.waiting import ask, outlast
from zkside.zk.session import Session

RECIPE = "ephemeral"


@dataclass(slots=True)
class _Wish:
    """The node that is wanted, in every epoch anew."""

    holds: Holds
    writes: Writes
    operation: Create
    make_parents: bool
    parents: CreateMode
    on_exists: OnExists
    wait_timeout_s: float
    is_same: Callable[[bytes, bytes], bool]
    """Whether two data of the node say the same, so that one may take the other's place."""

    async def create(self, deadline_s: float | None) -> Reply[Created]:
        return await self.writes.create(
            self.operation, make_parents=self.make_parents, parents=self.parents, deadline_s=deadline_s
        )


async def hold_ephemeral(
    holds: Holds,
    writes: Writes,
    operation: Create,
    terms: Terms,
    *,
    make_parents: bool,
    parents: CreateMode = CreateMode.PERSISTENT,
    recreate: bool,
    on_exists: OnExists = OnExists.FAIL,
    wait_timeout_s: float = math.inf,
    is_same: Callable[[bytes, bytes], bool] = eq,
    resume_token: str,
    deadline_s: float | None,
) -> AsyncGenerator[HoldUpdate, None]:
    """The updates of one stream, beginning with HELD, or with WAITING where `on_exists` says so.

    With `recreate` a LOST by the end of the session is followed by a new hold in the next epoch, whose node has the
    data that the one before had last. Raises before the first update: what Writes.create raises; Quota; HoldLost
    (resume_token). Cancellation: as a broken stream.
    """
    wish = _Wish(holds, writes, operation, make_parents, parents, on_exists, wait_timeout_s, is_same)
    hold = None
    if resume_token:
        hold = holds.take_up(resume_token, terms.recipe, terms.requested_path, terms.identity)
    resumed = hold is not None
    if hold is None:
        hold = await _begin(wish, terms, deadline_s)
    while True:
        async with aclosing(hold.updates(resumed=resumed)) as updates:
            async for update in updates:
                yield update
        if not (recreate and hold.state.is_over and hold.reason is Reason.SESSION_LOST):
            return
        hold = await _recreate(wish, terms, hold)
        resumed = False


async def _begin(wish: _Wish, terms: Terms, deadline_s: float | None, *, is_new: bool = True) -> Hold:
    """A hold that has its node, or that waits for it."""
    hold = wish.holds.open(terms)
    if wish.on_exists is not OnExists.FAIL:
        hold.run(_enter(wish, hold, is_new=is_new))
        return hold
    take = partial(_take, wish, hold, deadline_s)
    try:
        await (take() if is_new else outlast(take))
    finally:
        hold.forget()
    return hold


async def _take(wish: _Wish, hold: Hold, deadline_s: float | None = None) -> None:
    session = wish.holds.session
    async with hold.beginning():
        epoch = session.epoch
        made = (await wish.create(deadline_s)).value
        if made.stat is None:
            session.janitor.delete(made.path)
            raise NotSupported("this ZooKeeper does not tell the Stat of what it creates: holds need 3.5 or newer")
        hold.grant(made.path, made.stat.czxid, epoch, reason=Reason.CREATED)


async def _recreate(wish: _Wish, terms: Terms, lost: Hold) -> Hold:
    """The hold of the next epoch, however long that takes to begin."""
    _follow(wish, lost.data)
    while True:
        await wish.holds.session.wait_connected()
        try:
            await _outlive(wish, lost)
            return await _begin(wish, terms, None, is_new=False)
        except (SessionSuspended, SessionLost, ConnectionLoss):
            continue


def _follow(wish: _Wish, data: bytes | None) -> None:
    if data is not None:
        wish.operation = replace(wish.operation, data=data)


async def _outlive(wish: _Wish, lost: Hold) -> None:
    """Wait until the old session's node is gone: the server may count its timeout longer than we did.

    Until then it shows what was made of its data while nobody here could see it.
    """
    session, record = wish.holds.session, None
    try:
        record = await ask(session, GetData(lost.path))
    except NoNode:
        return
    except NoAuth:
        # Newer servers do not tell whose node it is either; then it is waited for by its name.
        with suppress(NoAuth):
            left = await ask(session, Exists(lost.path))
            if left is None or left.czxid != lost.czxid:
                return
    if record is not None and records.zxids(record)[0] != lost.czxid:
        return
    if record is not None and lost.terms.follows_data:
        _follow(wish, records.data(record))
    gone = asyncio.Event()
    unwatch = wish.holds.hub.on_deleted(
        lost.path,
        lost.czxid,
        gone.set,
        on_data=(lambda data: _follow(wish, data)) if lost.terms.follows_data else None,
        # What cannot be watched is not waited for: the create tells whether it is still there.
        on_failed=lambda error: gone.set(),
    )
    try:
        await gone.wait()
    finally:
        unwatch()


# Where the name is taken


async def _enter(wish: _Wish, hold: Hold, *, is_new: bool) -> None:
    """The flow of a hold that waits until its name is free.

    Raises: NodeExists for a node that is not ephemeral; what Writes.create raises. With `is_new` SessionSuspended if
    there is no connection to begin with, and what refuses the first attempt for the moment.
    """
    session = wish.holds.session
    take = partial(_take, wish, hold)
    until_s = asyncio.get_running_loop().time() + wish.wait_timeout_s
    try:
        async with asyncio.timeout_at(until_s if until_s < math.inf else None) as limit:
            while True:
                try:
                    return await (take() if is_new else outlast(take))
                except NodeExists as taken:
                    await _make_way(wish, hold, taken)
                except (SessionSuspended, SessionLost, ConnectionLoss) as error:
                    if is_new:
                        raise
                    if isinstance(error, SessionLost):
                        hold.forget_seats()
                    await session.wait_connected()
                is_new = False
    except TimeoutError:
        if not limit.expired():
            raise
        hold.release(Reason.WAIT_TIMEOUT)


async def _make_way(wish: _Wish, hold: Hold, taken: NodeExists) -> None:
    """Return when the name may be free. Raises: what a lost connection raises."""
    session, path = wish.holds.session, wish.operation.path
    stat = None
    try:
        record = await ask(session, GetData(path))
    except NoNode:
        return
    except NoAuth:
        pass  # whose it is nobody can see, so it is waited for
    else:
        stat = records.stat(record)
        if not stat.ephemeral_owner:
            raise taken
        if wish.on_exists is OnExists.REPLACE and wish.is_same(records.data(record), wish.operation.data):
            former = wish.holds.at(path)
            if former is not None and not former.attached and former.terms.identity == hold.terms.identity:
                former.release(Reason.TAKEN_OVER)
            elif stat.ephemeral_owner != session.status.session_id:
                # The version guards what was compared, but for a node that was made anew in the meantime of one
                # round trip, with as many changes.
                try:
                    await outlast(partial(wish.writes.delete, Delete(path, stat.version)))
                    return
                except (NoNode, BadVersion, OutcomeUnknown):
                    return  # the next create tells what is there
                except NoAuth:
                    pass
    if hold.reason is not Reason.QUEUED:
        hold.wait(0)
    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    unwatch = wish.holds.hub.on_deleted(
        path,
        stat.czxid if stat is not None else None,
        lambda: gone.set_result(None),
        on_failed=gone.set_exception,
    )
    try:
        await gone
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
