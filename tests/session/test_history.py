"""The history to which a session's zxids belong, over sessions and daemons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.parts.clock import VirtualClock
from tests.session.conftest import Sessions
from zkside.errors import Quota, Unavailable
from zkside.model.operation import Create
from zkside.model.session import SessionState
from zkside.zk.history import History
from zkside.zk.journal import Journal
from zkside.zk.line import Line
from zkside.zk.memory import MemoryZooKeeper, memory_connector


async def test_what_is_read_and_cannot_be_ends_the_session_and_with_it_the_history(
    sessions: Sessions, clock: VirtualClock
) -> None:
    """V2, S4: a new one begins with the next session, and its zxids count anew."""
    session, heard = await sessions.open()
    await session.call(Create("/a"))
    before = (session.epoch, session.last_zxid)
    session.doubt_history("/a is older than it was")
    session.doubt_history("and once more")
    await clock.advance(1)
    assert (session.history.number, session.epoch) == (2, before[0] + 1)
    assert session.history.former_zxid == before[1]
    assert session.statistics().history_changes == 1
    lost = next(status for status in heard.statuses if status.state is SessionState.LOST)
    assert (lost.history, lost.reason) == (1, "/a is older than it was")
    assert heard.statuses[-1].history == 2


async def test_an_expired_session_is_followed_by_another_of_the_same_history(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    """V2."""
    session, _ = await sessions.open()
    await session.call(Create("/a"))
    memory.expire(session.status.session_id)
    await clock.advance(1)
    assert (session.history.number, session.epoch) == (1, 2)


async def test_the_next_daemon_knows_the_history_and_what_was_seen_of_it(
    sessions: Sessions, clock: VirtualClock, tmp_path: Path
) -> None:
    """V2: also where the session before was closed, so that there is none to take up."""
    first, _ = await sessions.open(journal=Journal.open(tmp_path))
    for number in range(9):
        await first.call(Create(f"/{number}"))
    first.doubt_history("for this test")
    await clock.advance(3)
    seen = first.last_zxid
    journal = first.journal
    await clock.advance(1)
    assert (journal.history, journal.zxid) == (2, seen)
    await first.close(keep_session=False, within_s=1.0)
    empty = MemoryZooKeeper(clock=clock)
    second, _ = await sessions.open(journal=Journal.open(tmp_path), connector=memory_connector(empty))
    assert second.history.number == 3
    assert second.history.former_zxid >= seen
    assert second.last_zxid < seen


def test_a_refused_sync_is_judged_by_its_own_zxid_and_one_that_was_never_sent_is_not() -> None:
    """V2: a throttled request is answered with the server's zxid; a refusal of our own says nothing."""

    class Answering:
        last_zxid = 0

    connection: Any = Answering()
    history = History(Journal())
    history.has_seen(42)
    reports: Any = None
    line = Line(lambda listener, ticket: connection, reports, history)
    line.connection = connection
    with pytest.raises(Quota):
        line.judge(Quota("too many"))
    assert history.number == 1
    connection.last_zxid = 43
    line.judge(Unavailable("throttled"))
    assert history.number == 1
    connection.last_zxid = 41
    line.judge(Unavailable("throttled"))
    assert (history.number, history.former_zxid, line.last_zxid) == (2, 42, 41)
