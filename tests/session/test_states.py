"""The session's states and who is told of them, on ZooKeeper in process under a virtual clock."""

from __future__ import annotations

import asyncio
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.parts.clock import VirtualClock
from tests.session.conftest import Sessions, running
from tests.session.parts import Heard
from zkside.errors import NoNode, SessionLost, SessionSuspended
from zkside.model.event import KeeperState
from zkside.model.operation import Create, CreateMode, Exists, GetData, Operation, Reply, Sync, T
from zkside.model.session import SessionState, SessionStatus
from zkside.zk.memory import MemoryZooKeeper, memory_connector
from zkside.zk.port import Connection, Listener, Ticket
from zkside.zk.session import Session, SessionSettings

CONNECTING, CONNECTED, READ_ONLY, SUSPENDED, LOST, AUTH_FAILED, CLOSED = SessionState


async def test_the_first_connection_begins_the_first_epoch(sessions: Sessions, memory: MemoryZooKeeper) -> None:
    session, heard = await sessions.open()
    (status,) = heard.statuses
    assert status == session.status
    assert (status.state, status.epoch, status.sequence) == (CONNECTED, 1, 1)
    assert status.keeper_state is KeeperState.SYNC_CONNECTED
    assert [status.session_id] == memory.session_ids
    assert status.timeout_s == 10.0
    assert status.server == "memory:0"


async def test_before_the_first_connection_there_is_no_epoch(sessions: Sessions, memory: MemoryZooKeeper) -> None:
    memory.network.refuse_connections(True)
    session, heard = await sessions.open()
    assert heard.statuses == []
    assert (session.status.state, session.epoch, session.status.session_id) == (CONNECTING, 0, 0)
    with pytest.raises(SessionSuspended):
        await session.call(Exists("/"))


async def test_a_lost_connection_suspends_and_a_new_one_goes_on_with_the_epoch(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    session, heard = await sessions.open()
    memory.network.refuse_connections(True)
    memory.network.drop_connections()
    await clock.settle()
    assert session.status.state is SUSPENDED
    memory.network.refuse_connections(False)
    await clock.advance(1)
    assert heard.states == [CONNECTED, SUSPENDED, CONNECTED]
    assert {(status.epoch, status.session_id) for status in heard.statuses} == {(1, memory.session_ids[0])}


async def test_an_expired_session_is_lost_and_the_next_has_a_higher_epoch(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    """S4."""
    session, heard = await sessions.open()
    first_id = session.status.session_id
    memory.expire(first_id)
    await clock.advance(1)
    assert heard.states == [CONNECTED, SUSPENDED, LOST, CONNECTING, CONNECTED]
    lost, connecting, connected = heard.statuses[2:]
    assert (lost.epoch, lost.session_id) == (1, first_id)
    assert (connecting.epoch, connecting.session_id) == (1, 0)
    assert (connected.epoch, connected.session_id) == (2, memory.session_ids[0])
    assert connected.session_id != first_id


async def test_every_listener_hears_every_change_in_order(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    """S2."""
    session, heard = await sessions.open()
    second = Heard(session)
    for _ in range(3):
        memory.network.drop_connections()
        await clock.advance(0.5)
        memory.expire(session.status.session_id)
        await clock.advance(0.5)
    assert [status.sequence for status in heard.statuses] == list(range(1, len(heard.statuses) + 1))
    assert second.statuses == heard.statuses[1:]


async def test_a_listener_that_raises_disturbs_nobody(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """S2."""
    session, _ = await sessions.open()

    def fail(status: SessionStatus) -> None:
        raise RuntimeError("a listener's own trouble")

    session.listen(status=fail)
    after = Heard(session)
    with caplog.at_level(logging.ERROR, "zkside"):
        memory.network.drop_connections()
        await clock.advance(1)
    assert after.states == [SUSPENDED, CONNECTED]
    assert session.statistics().listener_errors == 2
    assert "a listener's own trouble" in caplog.text


async def test_a_change_that_a_listener_causes_is_told_when_all_have_heard_the_one_before(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    """S2: the first listener looks at the clock so late that LOST is due; the second hears SUSPENDED first."""
    session, _ = await sessions.open()

    def look(status: SessionStatus) -> None:
        if status.state is SUSPENDED:
            clock.jump(60)
            assert session.status.state is LOST

    session.listen(status=look)
    after = Heard(session)
    memory.network.drop_connections()
    await clock.settle()
    assert after.states[:2] == [SUSPENDED, LOST]


async def test_who_stopped_listening_hears_no_more(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    session, heard = await sessions.open()
    session.listen(status=lambda status: other.stop())
    other = Heard(session)
    memory.network.drop_connections()
    await clock.advance(1)
    other.stop()
    assert heard.states == [CONNECTED, SUSPENDED, CONNECTED]
    assert other.states == [], "stopped by another listener while being told"


async def test_nothing_is_sent_while_suspended(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    """S6: refused at once, and not sent later either."""
    session, _ = await sessions.open()
    memory.network.refuse_connections(True)
    memory.network.drop_connections()
    await clock.settle()
    call = session.call(Exists("/"))
    assert call.done()
    with pytest.raises(SessionSuspended, match="nothing was sent"):
        await call
    memory.network.refuse_connections(False)
    await clock.advance(2)
    assert memory.requests["Exists"] == 0


async def test_who_waits_for_the_connection_is_woken_by_it(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    """S6."""
    memory.network.refuse_connections(True)
    session, _ = await sessions.open()
    waiting = asyncio.ensure_future(session.wait_connected())
    given_up = asyncio.ensure_future(session.wait_connected())
    await clock.advance(5)
    assert not waiting.done()
    given_up.cancel()
    memory.network.refuse_connections(False)
    await clock.advance(1)
    assert waiting.done()
    assert given_up.cancelled()
    await waiting


async def test_who_waits_for_the_connection_learns_that_it_will_not_come(sessions: Sessions) -> None:
    session, _ = await sessions.open()
    await session.close(keep_session=False, within_s=1)
    with pytest.raises(SessionLost):
        await session.wait_connected()
    with pytest.raises(SessionLost):
        await session.call(Exists("/"))


async def test_a_server_that_only_reads_is_read_and_not_written(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    session, heard = await sessions.open(connector=memory_connector(memory, read_only=True))
    memory.set_read_only(True)
    await clock.advance(1)
    assert session.status.state is READ_ONLY
    assert session.status.read_only
    await_read = session.call(Exists("/"))
    await clock.settle()
    assert await_read.result().value is not None
    with pytest.raises(SessionSuspended, match="only reads"):
        await session.call(Create("/a"))
    memory.set_read_only(False)
    await clock.advance(1)
    assert heard.states == [CONNECTED, SUSPENDED, READ_ONLY, SUSPENDED, CONNECTED]
    assert session.epoch == 1


async def test_a_session_begun_on_a_server_that_only_reads_is_an_epoch_without_a_lease(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    """S4: the quorum does not know it, so it ends when a server that writes is found."""
    memory.set_read_only(True)
    session, heard = await sessions.open(connector=memory_connector(memory, read_only=True))
    session.need_proofs()
    await clock.advance(60)
    assert (heard.states, session.epoch, session.lease_boottime_ns) == ([READ_ONLY], 1, 0)
    memory.set_read_only(False)
    await clock.advance(2)
    assert heard.states == [READ_ONLY, SUSPENDED, LOST, CONNECTING, CONNECTED]
    assert session.epoch == 2


async def test_refused_credentials_are_tried_again_slowly_with_fresh_connections(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    auth = [("no-such-scheme", "x")]
    tries = 0

    def connector(listener: Listener, ticket: Ticket | None) -> Connection:
        nonlocal tries
        tries += 1
        return memory_connector(memory, auth=tuple(auth))(listener, ticket)

    session, heard = await sessions.open(SessionSettings(auth_retry_s=8.0), connector=connector)
    assert session.status.state is AUTH_FAILED
    assert session.status.keeper_state is KeeperState.AUTH_FAILED
    with pytest.raises(SessionSuspended):
        await session.call(Exists("/"))
    await clock.advance(60)
    assert 7 <= tries <= 25
    auth[:] = [("digest", "user:right")]
    await clock.advance(10)
    assert session.status.state is CONNECTED
    assert heard.states[:4] == [AUTH_FAILED, CONNECTING, AUTH_FAILED, CONNECTING]


async def test_a_session_whose_credentials_are_refused_later_is_lost_first(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    """S4: an epoch ends in LOST, so nobody has to know that there is another way."""
    auth = [("digest", "user:right")]

    def connector(listener: Listener, ticket: Ticket | None) -> Connection:
        return memory_connector(memory, auth=tuple(auth))(listener, ticket)

    session, heard = await sessions.open(connector=connector)
    auth[:] = [("no-such-scheme", "x")]
    memory.expire(session.status.session_id)
    await clock.advance(0.5)
    assert heard.states == [CONNECTED, SUSPENDED, LOST, CONNECTING, AUTH_FAILED]


async def test_what_a_dead_connection_still_reports_is_not_heard(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    """S4."""
    listeners: list[Listener] = []

    def connector(listener: Listener, ticket: Ticket | None) -> Connection:
        listeners.append(listener)
        return memory_connector(memory)(listener, ticket)

    session, heard = await sessions.open(connector=connector)
    memory.expire(session.status.session_id)
    await clock.advance(1)
    before, lease_ns = list(heard.statuses), session.lease_boottime_ns
    dead, _ = listeners
    dead.suspended("too late")
    dead.acknowledged(Create("/a"), clock.boottime_ns())
    await clock.advance(0.1)
    assert heard.statuses == before
    assert session.lease_boottime_ns == lease_ns


class Stubborn:
    """A connection that fails in a chosen way: a backend with a bug."""

    def __init__(self, inner: Connection, failing: type[Operation[object]] | None) -> None:
        self._inner = inner
        self._failing = failing
        self.last_zxid = 0
        self.start = inner.start
        self.abandon = inner.abandon
        self.close = inner.close
        self.statistics = inner.statistics

    def call(self, operation: Operation[T], *, yields: bool = False) -> asyncio.Future[Reply[T]]:
        if self._failing is not None and isinstance(operation, self._failing):
            raise RuntimeError("a bug in the backend")
        return self._inner.call(operation, yields=yields)


async def test_an_error_in_the_timer_ends_in_a_new_connection_of_the_same_session(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """S7."""
    made: list[Stubborn] = []

    def connector(listener: Listener, ticket: Ticket | None) -> Connection:
        inner = memory_connector(memory)(listener, ticket)
        made.append(Stubborn(inner, None if made else Sync))
        return made[-1]

    session, heard = await sessions.open(connector=connector)
    session.need_proofs()
    await clock.advance(2)
    assert heard.states == [CONNECTED, SUSPENDED, CONNECTED]
    assert session.epoch == 1
    assert len(made) == 2
    assert session.statistics().rebuilds == 1
    assert "a bug in the backend" in caplog.text


async def test_a_backend_that_cannot_be_made_is_tried_again(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    """S7."""
    failures = [OSError("no such host"), ValueError("x")]

    def connector(listener: Listener, ticket: Ticket | None) -> Connection:
        if failures:
            raise failures.pop()
        return memory_connector(memory)(listener, ticket)

    session, _ = await sessions.open(connector=connector)
    await clock.advance(5)
    assert session.status.state is CONNECTED


async def test_a_connection_that_never_says_anything_is_replaced(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    """S7."""
    made = 0

    def connector(listener: Listener, ticket: Ticket | None) -> Connection:
        nonlocal made
        made += 1
        connection = memory_connector(memory)(listener, ticket)
        if made == 1:
            connection.start = lambda: None  # type: ignore[method-assign]
        return connection

    session, _ = await sessions.open(connector=connector)
    await clock.advance(29)
    assert made == 1
    await clock.advance(5)
    assert session.status.state is CONNECTED


async def test_a_connection_that_contradicts_itself_is_replaced(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    """S7: an input that the machine does not know is a bug, and not the end."""
    listeners: list[Listener] = []

    def connector(listener: Listener, ticket: Ticket | None) -> Connection:
        listeners.append(listener)
        return memory_connector(memory)(listener, ticket)

    session, heard = await sessions.open(connector=connector)
    connected = session._connected
    assert connected is not None
    listeners[0].connected(connected)
    await clock.advance(1)
    assert heard.states == [CONNECTED, SUSPENDED, CONNECTED]
    assert session.epoch == 1


async def test_closing_ends_the_session_and_its_ephemerals_at_once(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    session, heard = await sessions.open()
    await session.call(Create("/e", mode=CreateMode.EPHEMERAL))
    await session.close(keep_session=False, within_s=5)
    assert heard.states == [CONNECTED, CLOSED]
    assert memory.session_ids == []
    assert memory.tree.ephemerals == {}
    await session.close(keep_session=False, within_s=5)


async def test_closing_can_leave_the_session_to_a_successor(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    session, _ = await sessions.open()
    await session.call(Create("/e", mode=CreateMode.EPHEMERAL))
    await session.close(keep_session=True, within_s=5)
    await clock.advance(5)
    assert memory.session_ids == [session.status.session_id]
    await clock.advance(10)
    assert memory.session_ids == []


async def test_closing_without_a_connection_ends_in_time(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    session, _ = await sessions.open()
    memory.network.refuse_connections(True)
    memory.network.drop_connections()
    await clock.settle()
    closing = asyncio.ensure_future(session.close(keep_session=False, within_s=1))
    await clock.advance(1)
    assert closing.done()
    assert session.status.state is CLOSED
    await closing


async def test_statistics_tell_what_happened(sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock) -> None:
    session, _ = await sessions.open()
    memory.network.drop_connections()
    await clock.advance(1)
    with pytest.raises(NoNode):
        await session.call(GetData("/absent"))
    measured = session.statistics()
    assert measured.transitions == {
        (CONNECTING, CONNECTED): 1,
        (CONNECTED, SUSPENDED): 1,
        (SUSPENDED, CONNECTED): 1,
    }
    assert measured.latencies["GetData"].count == 1
    assert measured.connection is not None
    assert measured.connection.connects == 2
    assert measured.rebuilds == measured.journal.errors == 0


FAULTS = ["drop", "refuse", "accept", "half-open", "heal", "expire", "read-only", "writable", "jump", "hold", "let go"]


@settings(max_examples=60, deadline=None)
@given(faults=st.lists(st.tuples(st.sampled_from(FAULTS), st.floats(0, 15)), max_size=25))
def test_whatever_happens_changes_are_numbered_epochs_grow_and_leases_hold(
    faults: list[tuple[str, float]],
) -> None:
    """S2, S3, S4, S7: and in the end, when all is well again, the session is connected."""

    async def scenario() -> None:
        clock = VirtualClock()
        memory = MemoryZooKeeper(clock=clock)
        connector = memory_connector(memory, read_only=True)
        async with running(connector, clock=clock) as (session, heard):
            await clock.settle()
            releases = []
            for fault, pause_s in faults:
                match fault:
                    case "drop":
                        memory.network.drop_connections()
                    case "refuse" | "accept":
                        memory.network.refuse_connections(fault == "refuse")
                    case "half-open":
                        memory.network.half_open(True)
                    case "heal":
                        memory.network.half_open(False)
                    case "expire" if session.status.session_id in memory.session_ids:
                        memory.expire(session.status.session_id)
                    case "read-only" | "writable":
                        memory.set_read_only(fault == "read-only")
                    case "jump":
                        clock.jump(pause_s)
                    case "hold":
                        releases.append(session.need_proofs())
                    case "let go" if releases:
                        releases.pop()()
                check(session, memory, clock)
                for _ in range(3):
                    await clock.advance(pause_s / 3)
                    check(session, memory, clock)
            memory.network.half_open(False)
            memory.network.refuse_connections(False)
            memory.set_read_only(False)
            await clock.advance(60)
            assert session.status.state is CONNECTED
            assert session.statistics().rebuilds == 0
            assert [status.sequence for status in heard.statuses] == list(range(1, len(heard.statuses) + 1))
            epochs = [status.epoch for status in heard.statuses]
            assert epochs == sorted(epochs)
            over = {status.epoch for status in heard.statuses if status.state is LOST and status.session_id}
            for status in heard.statuses:
                if status.state in (CONNECTED, SUSPENDED) and status.epoch in over:
                    lost_at = next(s.sequence for s in heard.statuses if s.state is LOST and s.epoch == status.epoch)
                    assert status.sequence < lost_at, "something of a lost epoch came back to life"

    def check(session: Session, memory: MemoryZooKeeper, clock: VirtualClock) -> None:
        lease_ns = session.lease_boottime_ns
        if lease_ns:
            assert session.status.session_id in memory.session_ids or "expire" in dict(faults)
            assert lease_ns > clock.boottime_ns()
        if session.statistics().proofs_needed and session.status.state is CONNECTED and lease_ns:
            assert lease_ns <= clock.boottime_ns() + 10 * 10**9

    asyncio.run(scenario())
