"""What is handed to the janitor goes, whatever happens to the connection."""

from __future__ import annotations

import asyncio

import pytest

from tests.parts.clock import VirtualClock
from tests.session.conftest import Sessions
from zkside.model.operation import Create, CreateMode, Delete, Exists
from zkside.model.session import SessionState
from zkside.zk import janitor as janitor_module
from zkside.zk.memory import MemoryZooKeeper
from zkside.zk.session import Session


async def created(session: Session, path: str, mode: CreateMode = CreateMode.EPHEMERAL) -> int:
    """Makes the node; returns its czxid."""
    await session.call(Create(path, mode=mode))
    stat = (await session.call(Exists(path))).value
    assert stat is not None
    return stat.czxid


async def is_there(session: Session, path: str) -> bool:
    return (await session.call(Exists(path))).value is not None


async def test_a_node_that_is_handed_over_goes(sessions: Sessions) -> None:
    session, _ = await sessions.open()
    czxid = await created(session, "/e")
    gone = session.janitor.delete("/e", czxid)
    assert session.janitor.statistics().pending == 1
    assert await session.janitor.drained(5)
    assert gone.result() is True
    assert not await is_there(session, "/e")
    assert session.janitor.statistics() == janitor_module.JanitorStatistics(0, 1, 0, 0)


async def test_a_node_that_is_gone_already_is_no_trouble(sessions: Sessions) -> None:
    session, _ = await sessions.open()
    assert await session.janitor.delete("/absent")
    assert await session.janitor.delete("/absent", 7)


async def test_another_node_of_the_same_name_stays(sessions: Sessions) -> None:
    session, _ = await sessions.open()
    czxid = await created(session, "/e")
    await session.call(Delete("/e"))
    await created(session, "/e")
    assert await session.janitor.delete("/e", czxid)
    assert await is_there(session, "/e")
    assert await session.janitor.delete_older("/e", czxid)
    assert await is_there(session, "/e")
    assert await session.janitor.delete("/e")
    assert not await is_there(session, "/e")


async def test_it_waits_for_the_connection_and_deletes_then(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    session, _ = await sessions.open()
    czxid = await created(session, "/e")
    memory.network.refuse_connections(True)
    memory.network.drop_connections()
    await clock.settle()
    session.janitor.delete("/e", czxid)
    await clock.advance(3)
    assert session.janitor.statistics().pending == 1
    memory.network.refuse_connections(False)
    await clock.advance(1)
    assert await session.janitor.drained(5)
    assert not await is_there(session, "/e")


@pytest.mark.parametrize("lost", ["request", "reply"])
async def test_it_tries_again_when_the_answer_was_lost(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock, lost: str
) -> None:
    """H6: and does not take away what was made under the name meanwhile."""
    session, heard = await sessions.open()
    czxid = await created(session, "/e")
    if lost == "request":
        memory.network.lose_next_request(2)
    else:
        memory.network.lose_next_reply(2)
    gone = session.janitor.delete("/e", czxid)
    async with asyncio.timeout(20):
        while not gone.done():
            await clock.advance(0.5)
            await asyncio.sleep(0.01)  # the pause between attempts is in real time
    assert gone.result() is True
    await session.wait_connected()
    assert not await is_there(session, "/e")
    assert heard.states.count(SessionState.SUSPENDED) == 2


async def test_it_is_done_with_everything_when_the_epoch_ends(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    session, _ = await sessions.open()
    await created(session, "/e")
    memory.network.refuse_connections(True)
    memory.network.drop_connections()
    await clock.settle()
    gone = session.janitor.delete("/e")
    clock.jump(60)
    assert session.epoch == 1
    assert gone.result() is True
    assert await session.janitor.drained(0)
    memory.network.refuse_connections(False)
    await clock.advance(60)
    assert session.status.state is SessionState.CONNECTED
    assert memory.requests["Delete"] == 0


async def test_what_zookeeper_refuses_for_good_is_given_up_and_counted(
    sessions: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    session, _ = await sessions.open()
    await created(session, "/p", CreateMode.PERSISTENT)
    await created(session, "/p/child", CreateMode.PERSISTENT)
    assert await session.janitor.delete("/p") is False
    assert session.janitor.statistics().given_up == 1
    assert "/p" in caplog.text


async def test_it_takes_no_more_than_it_can_remember(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    session, _ = await sessions.open()
    monkeypatch.setattr(janitor_module, "MAX_PENDING", 2)
    gone = [session.janitor.delete(f"/e{number}") for number in range(3)]
    assert gone[2].result() is False
    assert await session.janitor.drained(5)
    assert [future.result() for future in gone] == [True, True, False]


async def test_many_are_deleted_together(sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock) -> None:
    session, _ = await sessions.open()
    for number in range(1000):
        session.call(Create(f"/e{number}", mode=CreateMode.EPHEMERAL))
    await clock.settle()
    memory.network.delay(0.01)
    for number in range(1000):
        session.janitor.delete(f"/e{number}")
    await clock.advance(1.0)
    assert session.janitor.statistics().deleted == 1000


async def test_draining_is_given_up_in_time(sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock) -> None:
    session, _ = await sessions.open()
    memory.network.half_open(True)
    session.janitor.delete("/e")
    assert await session.janitor.drained(0.01) is False
    memory.network.half_open(False)
