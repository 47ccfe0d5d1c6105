"""Work that runs inside an epoch ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.parts.clock import VirtualClock
from tests.session.conftest import Sessions
from zkside.errors import NoNode, SessionLost
from zkside.model.operation import GetData
from zkside.model.session import SessionState
from zkside.zk.memory import MemoryZooKeeper
from zkside.zk.session import Session


async def inside(session: Session, body: Callable[[], Awaitable[object]]) -> None:
    async with session.within(session.epoch):
        await body()


async def forever() -> None:
    await asyncio.Event().wait()


async def test_the_body_is_cancelled_when_its_epoch_ends(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    """S4."""
    session, _ = await sessions.open()
    cleaned_up = []

    async def body() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            cleaned_up.append(session.status.epoch)
            raise

    work = asyncio.ensure_future(inside(session, body))
    await clock.settle()
    memory.expire(session.status.session_id)
    await clock.advance(0.2)
    with pytest.raises(SessionLost, match="epoch 1 is over"):
        await work
    assert cleaned_up


async def test_a_reconnection_leaves_the_body_alone(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    session, _ = await sessions.open()
    go_on = asyncio.Event()
    work = asyncio.ensure_future(inside(session, go_on.wait))
    await clock.settle()
    memory.network.drop_connections()
    await clock.advance(1)
    go_on.set()
    await work


async def test_a_body_that_comes_to_its_end_in_time_is_left_alone(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    session, _ = await sessions.open()
    await inside(session, lambda: asyncio.sleep(0))
    memory.expire(session.status.session_id)
    await clock.advance(1)
    assert session.epoch == 2


async def test_an_epoch_that_is_over_lets_nobody_in(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    """S4."""
    session, _ = await sessions.open()
    memory.expire(session.status.session_id)
    await clock.advance(1)
    for epoch in (0, 1, 3):
        with pytest.raises(SessionLost):
            async with session.within(epoch):
                pytest.fail("entered")
    async with session.within(2):
        pass


async def test_cancellation_from_outside_goes_through(sessions: Sessions, clock: VirtualClock) -> None:
    session, _ = await sessions.open()
    work = asyncio.ensure_future(inside(session, forever))
    await clock.settle()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work


async def test_cancellation_from_outside_goes_through_when_the_epoch_ends_too(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    session, _ = await sessions.open()
    work = asyncio.ensure_future(inside(session, forever))
    await clock.settle()
    work.cancel()
    clock.jump(60)
    assert session.status.state is SessionState.LOST
    with pytest.raises(asyncio.CancelledError):
        await work


async def test_a_body_that_finds_out_by_itself_is_ended_inside_the_block_and_not_later(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    """The body looks at the status, which declares LOST, and returns: the block still raises, and nothing
    strikes what is awaited after it."""
    session, _ = await sessions.open()

    async def work() -> str:
        try:
            async with session.within(session.epoch):
                clock.jump(60)
                assert session.status.state is SessionState.LOST
        except SessionLost:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return "told"
        return "not told"

    task = asyncio.ensure_future(work())
    assert await task == "told"
    assert task.cancelling() == 0


async def test_what_the_body_raised_itself_is_kept_as_the_cause(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    session, _ = await sessions.open()

    async def body() -> None:
        clock.jump(60)
        await session.call(GetData("/absent"))

    with pytest.raises(SessionLost) as lost:
        await inside(session, body)
    assert isinstance(lost.value.__cause__, SessionLost)
    await clock.advance(1)
    with pytest.raises(NoNode):
        await inside(session, lambda: session.call(GetData("/absent")))


async def test_nested_blocks_end_together_and_say_so_once_each(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    session, _ = await sessions.open()
    ended = []

    async def work() -> None:
        try:
            async with session.within(1):
                try:
                    async with session.within(1):
                        await forever()
                finally:
                    ended.append("inner")
        finally:
            ended.append("outer")

    task = asyncio.ensure_future(work())
    await clock.settle()
    memory.expire(session.status.session_id)
    await clock.advance(1)
    with pytest.raises(SessionLost):
        await task
    assert ended == ["inner", "outer"]
    assert task.cancelling() == 0


async def test_closing_ends_the_epoch_too(sessions: Sessions, clock: VirtualClock) -> None:
    session, _ = await sessions.open()
    work = asyncio.ensure_future(inside(session, forever))
    await clock.settle()
    await session.close(keep_session=True, within_s=1)
    with pytest.raises(SessionLost):
        await work
