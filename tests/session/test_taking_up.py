"""A daemon goes on with the session of the one before it, on ZooKeeper in process under a virtual clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.parts.clock import VirtualClock
from tests.session.conftest import Sessions, close
from zkside.core.lease import Proof
from zkside.model.hold import HoldRow
from zkside.model.operation import Create, CreateMode, Exists
from zkside.model.session import SessionState
from zkside.zk.journal import Journal
from zkside.zk.memory import MemoryZooKeeper, memory_connector
from zkside.zk.port import Connection, Connector, Listener, Ticket
from zkside.zk.session import Session, SessionSettings

CONNECTING, CONNECTED, READ_ONLY, SUSPENDED, LOST, AUTH_FAILED, CLOSED = SessionState


async def kill(session: Session) -> None:
    """As near to kill -9 as can be had in process: the connection breaks, nothing else is written or sent."""
    session.journal.note_zxid = lambda zxid: None  # type: ignore[method-assign]
    await session.close(keep_session=True, within_s=0)


async def with_holds(sessions: Sessions, state_dir: Path) -> Session:
    """A session with a hold, a node of the daemon itself, and a node that nobody knows of."""
    session, _ = await sessions.open(journal=Journal.open(state_dir))
    for path in ("/hold", "/own", "/orphan"):
        await session.call(Create(path, mode=CreateMode.EPHEMERAL))
    session.journal.put_hold(HoldRow("h1", "ephemeral", "/hold", 1, "t", 5.0))
    session.journal.own("/own")
    return session


async def is_there(session: Session, path: str) -> bool:
    return (await session.call(Exists(path))).value is not None


async def test_the_session_goes_on_with_its_epoch_and_its_ephemerals(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock, tmp_path: Path
) -> None:
    """S5."""
    first = await with_holds(sessions, tmp_path)
    session_id = first.status.session_id
    await kill(first)
    await clock.advance(5)
    second, heard = await sessions.open(journal=Journal.open(tmp_path))
    assert heard.states == [CONNECTED]
    assert (second.status.session_id, second.epoch) == (session_id, 1)
    assert [row.hold_id for row in second.journal.holds()] == ["h1"]
    assert memory.session_ids == [session_id]
    assert await second.janitor.drained(5)
    assert await is_there(second, "/hold")
    assert await is_there(second, "/own")


@pytest.mark.parametrize("proof", Proof)
async def test_what_was_held_has_a_lease_again_when_that_is_announced(
    memory: MemoryZooKeeper, sessions: Sessions, clock: VirtualClock, tmp_path: Path, proof: Proof
) -> None:
    """S3, S5: a lease of 0 would tell its owner to let go."""
    await kill(await with_holds(sessions, tmp_path))
    second = Session(memory_connector(memory), SessionSettings(proof=proof), Journal.open(tmp_path), clock)
    second.need_proofs()
    leases: list[int] = []
    second.listen(status=lambda status: leases.append(second.lease_boottime_ns))
    second.start()
    await clock.settle()
    assert second.status.state is CONNECTED
    assert len(leases) == 1
    assert leases[0] > clock.boottime_ns()
    await close(second, clock)


async def test_what_the_journal_does_not_know_is_deleted(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock, tmp_path: Path
) -> None:
    """S5."""
    await kill(await with_holds(sessions, tmp_path))
    second, _ = await sessions.open(journal=Journal.open(tmp_path))
    assert await second.janitor.drained(5)
    assert not await is_there(second, "/orphan")
    assert second.janitor.statistics().deleted == 1


async def test_what_is_made_after_the_start_is_no_orphan(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock, tmp_path: Path
) -> None:
    """S5: nobody can create anything before the orphans are known; the same name is free soon after."""
    await kill(await with_holds(sessions, tmp_path))
    second, heard = await sessions.open(journal=Journal.open(tmp_path))
    await second.call(Create("/new", mode=CreateMode.EPHEMERAL))
    await second.janitor.drained(5)
    await second.call(Create("/orphan", mode=CreateMode.EPHEMERAL))
    memory.network.drop_connections()
    await clock.advance(5)
    assert heard.states == [CONNECTED, SUSPENDED, CONNECTED]
    assert await is_there(second, "/new")
    assert await is_there(second, "/orphan")


async def test_a_connection_that_breaks_while_orphans_are_looked_for_is_followed_by_another_look(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock, tmp_path: Path
) -> None:
    """S5."""
    await kill(await with_holds(sessions, tmp_path))
    memory.network.lose_next_request(1)
    second, heard = await sessions.open(journal=Journal.open(tmp_path))
    await clock.advance(3)
    assert heard.states == [CONNECTED]
    await second.janitor.drained(5)
    assert not await is_there(second, "/orphan")
    assert await is_there(second, "/hold")


async def test_an_expired_session_is_told_as_lost_before_the_next_epoch(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock, tmp_path: Path
) -> None:
    """S4, S5: the holds of the journal are there until then, so that their owners can be told."""
    first = await with_holds(sessions, tmp_path)
    session_id = first.status.session_id
    await kill(first)
    memory.expire(session_id)
    memory.network.refuse_connections(True)
    second, heard = await sessions.open(journal=Journal.open(tmp_path))
    assert (second.status.state, second.epoch, second.status.session_id) == (CONNECTING, 1, session_id)
    assert len(second.journal.holds()) == 1
    memory.network.refuse_connections(False)
    await clock.advance(1)
    assert heard.states == [LOST, CONNECTING, CONNECTED]
    assert [(status.epoch, status.session_id) for status in heard.statuses[:2]] == [(1, session_id), (1, 0)]
    assert second.epoch == 2
    assert second.journal.holds() == ()


async def test_a_session_that_cannot_be_reached_within_its_timeout_is_lost(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock, tmp_path: Path
) -> None:
    """S3, S5: the local clock decides for a taken up session too."""
    await kill(await with_holds(sessions, tmp_path))
    memory.network.refuse_connections(True)
    second, heard = await sessions.open(journal=Journal.open(tmp_path))
    await clock.advance(9.9)
    assert heard.states == []
    await clock.advance(0.2)
    assert heard.states[0] is LOST
    assert second.journal.ticket is None


async def test_epochs_grow_over_restarts(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock, tmp_path: Path
) -> None:
    """S4."""
    for epoch in (1, 2, 3):
        session, _ = await sessions.open(journal=Journal.open(tmp_path))
        assert session.epoch == epoch
        await session.close(keep_session=False, within_s=1)


async def test_a_session_that_was_lost_is_not_taken_up_by_the_next_daemon(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock, tmp_path: Path
) -> None:
    """S4: killed between LOST and the next session."""
    first = await with_holds(sessions, tmp_path)
    session_id = first.status.session_id
    memory.network.refuse_connections(True)
    memory.network.drop_connections()
    clock.jump(11)
    assert first.status.state is LOST
    await kill(first)
    memory.network.refuse_connections(False)
    second, heard = await sessions.open(journal=Journal.open(tmp_path))
    assert heard.states == [CONNECTED]
    assert second.epoch == 2
    assert second.status.session_id != session_id


async def test_the_server_is_told_what_was_seen_already(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock, tmp_path: Path
) -> None:
    """R2: so that a server that lags behind is not taken after a restart or a rebuilt connection."""
    tickets: list[Ticket | None] = []

    def connector(listener: Listener, ticket: Ticket | None) -> Connection:
        tickets.append(ticket)
        return inner(listener, ticket)

    inner: Connector = memory_connector(memory)
    first, _ = await sessions.open(journal=Journal.open(tmp_path), connector=connector)
    await first.call(Create("/a"))
    await clock.advance(2)
    zxid = first.last_zxid
    await kill(first)
    second, _ = await sessions.open(journal=Journal.open(tmp_path), connector=connector)
    assert tickets[1] is not None
    assert tickets[1].last_zxid == zxid
    assert second.last_zxid >= zxid


async def test_a_journal_that_cannot_be_written_does_not_end_the_session(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """S7."""
    state_dir = tmp_path / "state"
    session, _ = await sessions.open(journal=Journal.open(state_dir))
    for file in state_dir.iterdir():
        file.unlink()
    state_dir.rmdir()
    state_dir.write_text("in the way")
    memory.expire(session.status.session_id)
    await clock.advance(1)
    assert session.status.state is CONNECTED
    assert session.epoch == 2
    assert session.statistics().journal.errors >= 1
    assert "journal cannot be written" in caplog.text
