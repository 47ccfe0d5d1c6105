"""LOST by the local clock, proofs and leases, on ZooKeeper in process under a virtual clock."""

from __future__ import annotations

import asyncio

import pytest

from tests.parts.clock import VirtualClock
from tests.session.conftest import Sessions
from tests.session.parts import Heard
from zkside.core.lease import Proof
from zkside.errors import SessionLost, StartError
from zkside.model.operation import AddWatch, Create, CreateMode, Exists
from zkside.model.session import SessionState
from zkside.zk.memory import MemoryZooKeeper, memory_connector
from zkside.zk.session import Session, SessionSettings

CONNECTING, CONNECTED, READ_ONLY, SUSPENDED, LOST, AUTH_FAILED, CLOSED = SessionState

MARGIN_S = 1.5
TIMEOUT_S = 10.0


async def test_lost_is_declared_at_the_lease_when_zookeeper_cannot_be_reached(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    """S3."""
    session, heard = await sessions.open()
    session.need_proofs()
    await clock.advance(3)
    lease_ns = session.lease_boottime_ns
    assert lease_ns >= clock.boottime_ns() + (TIMEOUT_S - MARGIN_S - 0.5) * 1e9
    memory.network.refuse_connections(True)
    memory.network.drop_connections()
    await clock.advance((lease_ns - clock.boottime_ns()) / 1e9 - 0.001)
    assert heard.states == [CONNECTED, SUSPENDED]
    assert session.lease_boottime_ns == lease_ns
    await clock.advance(0.001)
    assert heard.states[:3] == [CONNECTED, SUSPENDED, LOST]
    assert session.lease_boottime_ns == 0
    assert memory.session_ids == [heard.statuses[0].session_id], "declared before the server ended it"


async def test_lost_is_declared_at_the_lease_while_the_connection_looks_well(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    """S3: proofs that are not answered in time count for nothing, connection or not."""
    session, heard = await sessions.open(SessionSettings(margin_s=4.9))
    session.need_proofs()
    await clock.advance(3)
    lease_ns = session.lease_boottime_ns
    memory.network.half_open(True)
    await clock.advance((lease_ns - clock.boottime_ns()) / 1e9)
    assert heard.states[:2] == [CONNECTED, LOST]


async def test_lost_is_declared_after_the_whole_timeout_when_nothing_is_owned(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    """S3."""
    session, heard = await sessions.open()
    memory.network.refuse_connections(True)
    memory.network.drop_connections()
    await clock.advance(TIMEOUT_S - 0.001)
    assert session.status.state is SUSPENDED
    await clock.advance(0.001)
    assert heard.states[:3] == [CONNECTED, SUSPENDED, LOST]


async def test_after_lost_by_the_clock_the_old_session_is_left_alone(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    """S4: although the server would have taken it up again."""
    session, heard = await sessions.open()
    first_id = session.status.session_id
    memory.network.refuse_connections(True)
    memory.network.drop_connections()
    await clock.advance(TIMEOUT_S)
    memory.network.refuse_connections(False)
    assert first_id in memory.session_ids
    await clock.advance(1)
    assert heard.states == [CONNECTED, SUSPENDED, LOST, CONNECTING, CONNECTED]
    assert session.epoch == 2
    assert session.status.session_id != first_id


@pytest.mark.parametrize("first_look", ["status", "epoch", "lease", "call", "within", "wait"])
async def test_whoever_looks_first_after_the_machine_slept_is_told_lost(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock, first_look: str
) -> None:
    """S3: no timer has run yet, and nothing of before is believed."""
    session, heard = await sessions.open()
    session.need_proofs()
    await clock.advance(2)
    clock.jump(60)
    match first_look:
        case "status":
            assert session.status.state is LOST
        case "epoch":
            assert session.epoch == 1
        case "lease":
            assert session.lease_boottime_ns == 0
        case "call":
            before = memory.requests["Exists"]
            with pytest.raises(SessionLost):
                await session.call(Exists("/"))
            assert memory.requests["Exists"] == before
        case "within":
            with pytest.raises(SessionLost):
                async with session.within(1):
                    pytest.fail("entered")
        case "wait":
            waiting = asyncio.ensure_future(session.wait_connected())
            await clock.advance(1)
            await waiting
            assert session.epoch == 2
    assert heard.states[:2] == [CONNECTED, LOST]


async def test_an_answer_that_comes_after_the_deadline_is_not_believed(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    """S3: the process was stopped, and the answer had been waiting in the socket."""
    session, heard = await sessions.open()
    session.need_proofs()
    await clock.advance(2)
    memory.network.half_open(True)
    session.call(Create("/a"))
    await clock.settle()
    clock.jump(60)
    memory.network.half_open(False)
    await clock.settle()
    assert heard.states[:2] == [CONNECTED, LOST]
    assert session.epoch == 1 or session.status.state is CONNECTED


async def test_an_event_that_comes_after_the_deadline_is_not_told(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    """S3, S4."""
    session, heard = await sessions.open()
    other, _ = await sessions.open()
    await session.call(AddWatch("/a"))
    memory.network.half_open(True)
    other.call(Create("/a"))
    clock.jump(60)
    memory.network.half_open(False)
    await clock.settle()
    assert heard.events == []
    assert LOST in heard.states


async def test_events_are_told_to_all_who_listen(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    session, heard = await sessions.open()
    second = Heard(session)
    await session.call(AddWatch("/a"))
    await session.call(Create("/a"))
    await clock.settle()
    assert [event.path for event in heard.events] == ["/a"]
    assert second.events == heard.events


async def test_no_proofs_are_sent_while_nothing_is_owned(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    session, _ = await sessions.open()
    await clock.advance(20)
    assert memory.requests["Sync"] == 0
    one, other = session.need_proofs(), session.need_proofs()
    await clock.advance(10)
    assert 20 <= memory.requests["Sync"] <= 22
    one()
    one()
    await clock.advance(1)
    sent = memory.requests["Sync"]
    assert sent >= 22, "the other still needs them"
    other()
    await clock.advance(10)
    assert memory.requests["Sync"] == sent
    assert session.statistics().proofs_sent == sent


async def test_steady_writes_make_proofs_unnecessary(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    session, _ = await sessions.open()
    session.need_proofs()
    await clock.advance(1)
    sent = memory.requests["Sync"]
    for number in range(50):
        await session.call(Create(f"/a{number}"))
        await clock.advance(0.1)
    assert memory.requests["Sync"] <= sent + 1
    assert session.lease_boottime_ns >= clock.boottime_ns() + (TIMEOUT_S - MARGIN_S - 0.6) * 1e9


@pytest.mark.parametrize(
    ("proof", "request_name"), [(Proof.PING, "Exists"), (Proof.SYNC, "Sync"), (Proof.WRITE, "Transaction")]
)
async def test_the_proof_that_was_chosen_is_sent_and_moves_the_lease(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock, proof: Proof, request_name: str
) -> None:
    session, _ = await sessions.open(SessionSettings(proof=proof))
    session.need_proofs()
    await clock.advance(5)
    assert memory.requests[request_name] >= 10
    assert session.lease_boottime_ns >= clock.boottime_ns() + (TIMEOUT_S - MARGIN_S - 0.6) * 1e9


async def test_reads_and_pings_do_not_move_the_lease(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    """S3: a follower answers them by itself."""
    session, _ = await sessions.open()
    await session.call(Create("/a", mode=CreateMode.EPHEMERAL))
    lease_ns = session.lease_boottime_ns
    for _ in range(8):
        await clock.advance(1)
        await session.call(Exists("/"))
    assert session.lease_boottime_ns == lease_ns
    await clock.advance(2)
    assert session.lease_boottime_ns == 0
    assert session.status.state is CONNECTED, "nothing is held, so nothing is lost"


async def test_a_hold_taken_after_a_quiet_time_is_proven_at_once(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    session, heard = await sessions.open()
    await clock.advance(120)
    session.need_proofs()
    await clock.settle()
    assert session.lease_boottime_ns > clock.boottime_ns()
    await clock.advance(60)
    assert heard.states == [CONNECTED]


async def test_the_lease_goes_on_over_a_short_disconnection(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    session, heard = await sessions.open()
    session.need_proofs()
    await clock.advance(2)
    memory.network.refuse_connections(True)
    memory.network.drop_connections()
    await clock.advance(4)
    lease_ns = session.lease_boottime_ns
    assert lease_ns > clock.boottime_ns()
    memory.network.refuse_connections(False)
    await clock.advance(1)
    assert heard.states == [CONNECTED, SUSPENDED, CONNECTED]
    assert session.lease_boottime_ns > lease_ns


async def test_the_lateness_of_pings_is_measured(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    session, _ = await sessions.open()
    await clock.advance(30)
    assert session.statistics().ping_late_max_s < 0.1
    assert session.statistics().latencies["Ping"].count >= 5


def test_settings_without_sense_are_refused() -> None:
    for wrong in ({"timeout_s": 0.0}, {"auth_retry_s": 0.0}, {"tick_s": 0.0}, {"margin_s": -1.0}):
        with pytest.raises(StartError):
            SessionSettings(**wrong)  # type: ignore[arg-type]


async def test_a_session_that_was_never_started_can_be_closed(memory: MemoryZooKeeper, clock: VirtualClock) -> None:
    session = Session(memory_connector(memory), SessionSettings(), clock=clock)
    await session.close(keep_session=False, within_s=1)
    assert session.status.state is CLOSED


async def test_how_low_the_lease_fell_is_told_for_a_minute_at_least(
    sessions: Sessions, memory: MemoryZooKeeper, clock: VirtualClock
) -> None:
    """S3: a network that is silent for five seconds, then well again; who looks 50 s later sees it all the same."""
    session, heard = await sessions.open()
    await clock.advance(5)
    assert session.statistics().lease_lowest_s is None
    need_no_more = session.need_proofs()
    await clock.advance(3)
    steady_s = session.statistics().lease_lowest_s
    assert steady_s is not None
    assert steady_s >= TIMEOUT_S - MARGIN_S - 2.0
    memory.network.half_open(True)
    await clock.advance(5)
    memory.network.half_open(False)
    await clock.advance(50)
    statistics = session.statistics()
    assert heard.states == [CONNECTED]
    assert statistics.lease_remaining_s >= TIMEOUT_S - MARGIN_S - 1.0
    assert statistics.lease_lowest_s is not None
    assert TIMEOUT_S - MARGIN_S - 6.0 <= statistics.lease_lowest_s <= TIMEOUT_S - MARGIN_S - 5.0
    need_no_more()
    await clock.advance(121)
    assert session.statistics().lease_lowest_s is None
