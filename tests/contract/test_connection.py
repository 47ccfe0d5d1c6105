"""The life of a connection and of its session: order, loss, resuming, the end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.contract.conftest import Join
from tests.contract.world import WITHIN_S, Peer, World
from zkside import errors
from zkside.model import record
from zkside.model.event import EventType
from zkside.model.operation import (
    AddWatch,
    Create,
    CreateMode,
    Delete,
    Exists,
    GetChildren,
    GetData,
    Operation,
    RemoveWatch,
    SetData,
)
from zkside.zk.port import Ending, Ticket


async def failure(future: asyncio.Future[Any]) -> type[BaseException]:
    """What it failed with."""
    await asyncio.wait([future], timeout=WITHIN_S)
    error = future.exception()
    assert error is not None
    return type(error)


async def test_a_new_session_says_what_was_agreed(join: Join) -> None:
    peer = await join(timeout_s=5.0)
    connected = peer.all("connected")[0]
    assert connected.negotiated_timeout_s == pytest.approx(5.0, abs=1.0)
    assert connected.ticket.session_id
    assert len(connected.ticket.password) == 16
    assert connected.server
    assert not connected.resumed
    assert not connected.read_only


async def test_operations_are_applied_and_answered_in_the_order_of_the_calls(peer: Peer) -> None:
    """N3"""
    await peer.do(Create("/a", b"0"))
    order: list[int] = []
    futures: list[asyncio.Future[Any]] = []
    for number in range(1, 1500):
        operation: Operation[Any] = SetData("/a", b"%d" % number) if number % 2 else GetData("/a")
        future = peer.call(operation)
        future.add_done_callback(lambda _, number=number: order.append(number))  # type: ignore[misc]
        futures.append(future)
    replies = await asyncio.gather(*futures)
    assert order == list(range(1, 1500))
    for number, reply in enumerate(replies, 1):
        if number % 2 == 0:
            assert record.data(reply.value) == b"%d" % (number - 1)


async def test_a_request_cancelled_before_it_was_sent_is_never_carried_out(peer: Peer) -> None:
    """S6"""
    first = peer.call(Create("/first"))
    cancelled = peer.call(Create("/cancelled"))
    last = peer.call(Create("/last"))
    cancelled.cancel()
    await first
    await last
    assert sorted((await peer.do(GetChildren("/")))[0]) == ["first", "last"]


async def test_a_request_cancelled_after_it_was_sent_is_carried_out_and_its_answer_dropped(
    world: World, join: Join
) -> None:
    peer = await join(faulty=True)
    await world.half_open()
    future = peer.call(Create("/a"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    future.cancel()
    await world.heal()
    assert await peer.do(Exists("/a")) is not None


async def test_what_exceeds_the_limits_is_refused_and_the_rest_is_done(join: Join) -> None:
    peer = await join(max_in_flight=4, max_queued=10)
    futures = [peer.call(Create(f"/n{number}")) for number in range(20)]
    done = await asyncio.gather(*futures, return_exceptions=True)
    assert [type(one) for one in done[14:]] == [errors.Quota] * 6
    assert {one.metadata["limit"] for one in done[14:] if isinstance(one, errors.Quota)} == {"max_queued"}
    assert not any(isinstance(one, BaseException) for one in done[:14])
    assert len((await peer.do(GetChildren("/")))[0]) == 14


async def test_without_a_connection_nothing_is_sent(world: World, join: Join) -> None:
    """S6"""
    await world.refuse()
    peer = await join(faulty=True, connected=False)
    assert await failure(peer.call(Create("/a"))) is errors.SessionSuspended
    await world.accept()
    await peer.wait_for("connected")
    assert await peer.do(Exists("/a")) is None


async def test_a_lost_connection_is_told_before_requests_fail_and_comes_back(world: World, join: Join) -> None:
    peer = await join(faulty=True, max_in_flight=1)
    await peer.do(Create("/a"))
    await world.refuse()
    await world.half_open()
    sent, waiting = peer.call(GetData("/a")), peer.call(SetData("/a", b"never"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    undone_at_suspension: list[bool] = []
    peer.before_failures = lambda: undone_at_suspension.extend([sent.done(), waiting.done()])
    await world.cut()
    assert await failure(sent) is errors.ConnectionLoss
    assert await failure(waiting) is errors.SessionSuspended
    assert undone_at_suspension == [False, False]
    assert len(peer.all("suspended")) == 1
    await world.heal()
    await world.accept()
    again = await peer.wait_for("connected", 2)
    assert again.resumed
    assert again.ticket.session_id == peer.ticket.session_id
    assert record.data(await peer.do(GetData("/a"))) == b""


async def test_a_lost_request_was_not_carried_out(world: World, join: Join) -> None:
    peer = await join(faulty=True)
    future = await world.lose_request(peer, Create("/a"))
    assert await failure(future) is errors.ConnectionLoss
    await peer.wait_for("connected", 2)
    assert await peer.do(Exists("/a")) is None


async def test_a_request_whose_answer_is_lost_was_carried_out(world: World, join: Join) -> None:
    peer = await join(faulty=True)
    future = await world.lose_reply(peer, Create("/a", b"made"))
    assert await failure(future) is errors.ConnectionLoss
    await peer.wait_for("connected", 2)
    assert await peer.do(Exists("/a")) is not None


async def test_a_silent_connection_is_given_up_within_two_thirds_of_the_timeout(world: World, join: Join) -> None:
    """S3: under traffic too."""
    peer = await join(faulty=True, timeout_s=3.0)
    await peer.do(Create("/a"))
    loop = asyncio.get_running_loop()
    await world.half_open()
    began = loop.time()
    suspended = asyncio.ensure_future(peer.wait_for("suspended"))
    calls = []
    while not suspended.done():
        calls.append(peer.call(GetData("/a")))
        await asyncio.wait([suspended], timeout=0.1)
    assert loop.time() - began <= 2.0 + 0.5
    assert {await failure(call) for call in calls} <= {errors.ConnectionLoss, errors.SessionSuspended}
    await world.cut()
    await world.heal()
    await peer.wait_for("connected", 2)


async def test_an_idle_session_is_kept_alive(world: World, join: Join, other: Peer) -> None:
    peer = await join(timeout_s=1.0)
    await peer.do(Create("/e", mode=CreateMode.EPHEMERAL))
    await peer.wait_for("acknowledged", len(peer.all("acknowledged")) + 6)
    assert peer.all("acknowledged")[-1] is None
    assert await other.do(Exists("/e")) is not None
    assert not peer.all("suspended")


@pytest.mark.parametrize("recursive", [False, True])
async def test_watches_survive_a_reconnection(world: World, join: Join, other: Peer, recursive: bool) -> None:
    peer = await join(faulty=True)
    await peer.do(Create("/a"))
    await peer.do(AddWatch("/a", recursive))
    await peer.do(AddWatch("/absent", recursive))
    await peer.do(AddWatch("/removed"))
    await peer.do(RemoveWatch("/removed"))
    await world.cut()
    await peer.wait_for("connected", 2)
    before = len(peer.events)
    await other.do(SetData("/a", b""))
    await other.do(Create("/absent"))
    await other.do(Create("/removed"))
    await peer.catch_up()
    assert peer.events[before:] == [
        (EventType.NODE_DATA_CHANGED, "/a"),
        (EventType.NODE_CREATED, "/absent"),
    ]


async def test_a_ticket_takes_up_the_session_with_all_that_it_owns(join: Join, other: Peer) -> None:
    """S5"""
    first = await join()
    written = await first.ask(Create("/e", mode=CreateMode.EPHEMERAL))
    ticket = first.ticket
    assert ticket.last_zxid >= written.zxid
    pending = first.call(GetData("/e"))
    first.connection.abandon()
    assert await failure(pending) in (errors.ConnectionLoss, errors.SessionSuspended)
    second = await join(ticket=ticket)
    connected = second.all("connected")[0]
    assert connected.resumed
    assert connected.ticket.session_id == ticket.session_id
    stat = await second.do(Exists("/e"))
    assert stat is not None
    assert stat.ephemeral_owner == ticket.session_id
    assert second.connection.last_zxid >= written.zxid
    assert await failure(first.call(Exists("/e"))) is errors.SessionLost
    assert not first.all("ended")


async def test_a_refused_ticket_ends_the_connection(join: Join) -> None:
    """S4"""
    first = await join()
    ticket = first.ticket
    await first.connection.close(within_s=10)
    for bad in (ticket, Ticket(ticket.session_id, bytes(16), 0), Ticket(12345, bytes(16), 0)):
        peer = await join(ticket=bad, connected=False)
        assert await peer.wait_for("ended") is Ending.EXPIRED
        assert not peer.all("connected")
        assert await failure(peer.call(Exists("/"))) is errors.SessionLost


async def test_closing_deletes_the_ephemerals_at_once(join: Join, other: Peer) -> None:
    peer = await join()
    await peer.do(Create("/e", mode=CreateMode.EPHEMERAL))
    await peer.connection.close(within_s=10)
    assert peer.all("ended") == [Ending.CLOSED]
    await other.catch_up()
    assert await other.do(Exists("/e")) is None
    assert await failure(peer.call(Exists("/"))) is errors.SessionLost
    await peer.connection.close(within_s=10)


async def test_what_was_asked_before_closing_is_done(join: Join, other: Peer) -> None:
    peer = await join()
    last = peer.call(Create("/kept"))
    await peer.connection.close(within_s=10)
    assert (await last).value.path == "/kept"
    await other.catch_up()
    assert await other.do(Exists("/kept")) is not None


async def test_closing_without_a_connection_is_given_up_in_time(world: World, join: Join) -> None:
    peer = await join(faulty=True)
    await world.half_open()
    loop = asyncio.get_running_loop()
    began = loop.time()
    await peer.connection.close(within_s=0.3)
    assert loop.time() - began < 2.0
    assert await failure(peer.call(Exists("/"))) is errors.SessionLost


async def test_an_abandoned_session_lives_until_it_expires(join: Join, other: Peer) -> None:
    peer = await join(timeout_s=1.0)
    await peer.do(Create("/e", mode=CreateMode.EPHEMERAL))
    await other.do(AddWatch("/e"))
    assert await other.do(Exists("/e")) is not None
    peer.connection.abandon()
    peer.connection.abandon()
    await other.catch_up()
    assert await other.do(Exists("/e")) is not None
    await other.wait_for("event")
    assert other.events == [(EventType.NODE_DELETED, "/e")]


async def test_a_session_that_expired_while_cut_off_ends(world: World, join: Join, other: Peer) -> None:
    """S4"""
    peer = await join(faulty=True, timeout_s=1.0)
    await peer.do(Create("/e", mode=CreateMode.EPHEMERAL))
    await other.do(AddWatch("/e"))
    await world.refuse()
    await world.cut()
    await other.wait_for("event")
    await world.accept()
    assert await peer.wait_for("ended") is Ending.EXPIRED
    assert [kind for kind, _ in peer.log if kind in ("connected", "suspended", "ended")] == [
        "connected",
        "suspended",
        "ended",
    ]
    assert await failure(peer.call(Exists("/"))) is errors.SessionLost


async def test_a_session_has_one_connection_and_the_newest_wins(join: Join) -> None:
    first = await join()
    await first.do(Create("/e", mode=CreateMode.EPHEMERAL))
    ticket = first.ticket
    second = await join(ticket=ticket)
    await first.wait_for("suspended")
    first.connection.abandon()
    assert await second.do(Exists("/e")) is not None
    await second.do(Delete("/e"))


async def test_answers_are_acknowledged_with_the_time_of_their_request(join: Join) -> None:
    """What the lease is counted from."""
    peer = await join()
    before = len(peer.all("acknowledged"))
    await peer.do(Create("/a"))
    await peer.do(GetData("/a"))
    acknowledged = [operation for operation in peer.all("acknowledged")[before:] if operation is not None]
    assert acknowledged == [Create("/a"), GetData("/a")]
