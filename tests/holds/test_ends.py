"""What schedules have found: several ends of a hold at one instant, and what is left of one."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from tests.parts.clock import VirtualClock
from tests.session.conftest import Sessions
from zkside.core.queueing import Kind
from zkside.errors import ZksideError
from zkside.hub.hub import Hub
from zkside.model.hold import HoldState, HoldUpdate, Reason, Terms
from zkside.model.operation import OPEN_ACL
from zkside.model.session import SessionStatus
from zkside.recipes.hold import Hold
from zkside.recipes.holds import REFRESHED_AT_ONCE, Holds
from zkside.recipes.node import Writes
from zkside.recipes.queueing import Bid, Queueing
from zkside.recipes.turnstile import Turnstile
from zkside.zk.memory import MemoryZooKeeper
from zkside.zk.session import Session

BID = Bid("/lock", Kind.LOCK, b"", OPEN_ACL)


@pytest.fixture
async def session(sessions: Sessions) -> Session:
    return (await sessions.open())[0]


@pytest.fixture
async def hub(session: Session) -> AsyncIterator[Hub]:
    hub = Hub(session)
    hub.start()
    yield hub
    await hub.close()


@pytest.fixture
def holds(session: Session, hub: Hub) -> Holds:
    holds = Holds(session, hub)
    holds.start()
    return holds


@pytest.fixture
def queueing(session: Session, hub: Hub) -> Queueing:
    return Queueing(session, hub, Writes(session), Turnstile())


class Listener:
    """Reads one stream to its end."""

    def __init__(self, holds: Holds, queueing: Queueing, terms: Terms) -> None:
        self.heard: list[HoldUpdate] = []
        self.task = asyncio.ensure_future(self._listen(holds, queueing, terms))

    async def _listen(self, holds: Holds, queueing: Queueing, terms: Terms) -> None:
        async with aclosing(holds.wait_for(terms, "", lambda hold: queueing.first(hold, BID))) as updates:
            async for update in updates:
                self.heard.append(update)


async def test_a_missed_heartbeat_that_finds_the_session_lost_ends_the_hold_once(
    holds: Holds, queueing: Queueing, clock: VirtualClock
) -> None:
    """H5: a daemon that was stopped finds both overdue, the heartbeat first; deleting the node asks the session,
    which declares itself lost and ends all holds."""
    terms = Terms("lock", "/lock", heartbeat_timeout_s=0.1, is_exclusive=True)
    listener = Listener(holds, queueing, terms)
    await clock.settle()
    assert [update.state for update in listener.heard] == [HoldState.HELD]
    clock.jump(60)
    await clock.settle()
    await listener.task
    assert [(update.state, update.reason) for update in listener.heard[1:]] == [
        (HoldState.LOST, Reason.HEARTBEAT_MISSED)
    ]
    assert len(holds) == 0


async def test_a_watch_that_was_given_up_before_its_answer_was_lost_troubles_nobody(
    hub: Hub, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    memory.network.delay(0.01)
    stop = hub.on_deleted("/lock", None, lambda: None, on_failed=lambda error: None)
    await clock.settle()
    stop()
    memory.network.drop_connections()
    await clock.settle()
    gc.collect()
    assert reported == []


async def test_a_daemon_that_stops_leaves_what_owners_of_the_one_before_may_still_believe_in(
    holds: Holds, queueing: Queueing, session: Session, sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    """H1, S5, O3: the owner asked for a grace, so it goes on until the lease ends that the first daemon told. The
    second one cannot ask it to let go, and must neither delete the node nor close the session."""
    terms = Terms("lock", "/lock", reconnect_grace_s=8.0, is_exclusive=True)
    listener = Listener(holds, queueing, terms)
    await clock.settle()
    (held,) = listener.heard
    await holds.close(keep=True, within_s=0.0)
    listener.task.cancel()
    await clock.settle()
    await session.close(keep_session=True, within_s=0.0)

    successor, _ = await sessions.open(journal=session.journal)
    hub = Hub(successor)
    hub.start()
    its_holds = Holds(successor, hub)
    its_holds.start()
    closing = asyncio.ensure_future(its_holds.close(keep=False, within_s=0.05))
    assert await closing == 0
    await clock.settle()
    assert held.path in memory.tree.nodes
    assert its_holds.are_believed()
    await successor.close(keep_session=its_holds.are_believed(), within_s=0.0)
    believed_s = (held.lease_boottime_ns - clock.boottime_ns()) / 1e9
    assert believed_s > 5.0
    await clock.advance(believed_s)
    assert held.path in memory.tree.nodes
    await clock.advance(20.0)
    assert held.path not in memory.tree.nodes


async def test_waiters_whose_session_ends_queue_again_in_the_order_in_which_they_came(
    holds: Holds, queueing: Queueing, session: Session, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    """H7: among those who lose their places at the same instant."""
    listeners = []
    for _ in range(9):
        listeners.append(Listener(holds, queueing, Terms("lock", "/lock", is_exclusive=True)))
        await clock.settle()
    memory.expire(session.status.session_id)
    await clock.advance(1.0)
    assert listeners[0].heard[-1].state is HoldState.LOST
    for listener in listeners[1:]:
        assert listener.heard[-1].state is HoldState.HELD
        listener.task.cancel()
        await clock.settle()


async def test_the_leases_of_many_holds_are_told_a_few_in_a_turn(
    holds: Holds, queueing: Queueing, clock: VirtualClock
) -> None:
    """O4: thousands of streams that hear of their lease at once would keep all others waiting."""
    count = 4 * REFRESHED_AT_ONCE
    told_at_ns: list[int] = []

    async def listen(bid: Bid) -> None:
        terms = Terms("lock", bid.path, is_exclusive=True)
        async with aclosing(holds.wait_for(terms, "", lambda hold: queueing.first(hold, bid))) as updates:
            first = await anext(updates)
            assert first.state is HoldState.HELD
            assert (await anext(updates)).lease_boottime_ns > first.lease_boottime_ns
            told_at_ns.append(clock.boottime_ns())

    listening = [asyncio.ensure_future(listen(replace(BID, path=f"/lock{number}"))) for number in range(count)]
    await clock.settle()
    while not all(each.done() for each in listening):
        await clock.advance(0.01)
    await asyncio.gather(*listening)
    # As many as are due by the clock, which may be some more.
    assert max(Counter(told_at_ns).values()) < count / 2


async def test_what_goes_wrong_with_one_hold_keeps_no_other_from_hearing_of_the_session(
    holds: Holds,
    queueing: Queueing,
    memory: MemoryZooKeeper,
    clock: VirtualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """V1, H5"""
    heard: dict[str, list[HoldState]] = {"/first": [], "/second": []}

    async def listen(path: str) -> None:
        flow = holds.wait_for(Terms("lock", path), "", lambda hold: queueing.first(hold, replace(BID, path=path)))
        async with aclosing(flow) as updates:
            async for update in updates:
                heard[path].append(update.state)

    listening = [asyncio.ensure_future(listen(path)) for path in heard]
    await clock.settle()
    session_changed = Hold.session_changed

    def fails_for_the_first(hold: Hold, status: SessionStatus) -> None:
        if hold.path.startswith("/first"):
            raise RuntimeError("injected")
        session_changed(hold, status)

    monkeypatch.setattr(Hold, "session_changed", fails_for_the_first)
    memory.network.refuse_connections(True)
    memory.network.drop_connections()
    await clock.settle()
    assert heard == {"/first": [HoldState.HELD], "/second": [HoldState.HELD, HoldState.JEOPARDY]}
    for task in listening:
        task.cancel()


async def test_a_stream_whose_work_somebody_cancelled_hears_of_it(
    holds: Holds, queueing: Queueing, clock: VirtualClock
) -> None:
    """V1, H6: it would wait for ever, and its node keep others waiting."""
    first = Listener(holds, queueing, Terms("lock", "/lock"))
    await clock.settle()
    second = Listener(holds, queueing, Terms("lock", "/lock"))
    await clock.settle()
    waiting = next(hold for hold in holds._holds.values() if hold.state is HoldState.WAITING)
    assert waiting._work is not None
    waiting._work.cancel()
    with pytest.raises(ZksideError, match="cancelled"):
        await second.task
    assert len(holds) == 1
    first.task.cancel()
