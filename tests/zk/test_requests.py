"""What leaves in which write, and when; without a server."""

from __future__ import annotations

import asyncio
import struct

import pytest

from zkside.errors import Quota, SessionSuspended
from zkside.model.operation import Reply, Sync
from zkside.zk.requests import ENOUGH, GATHER_S, Limits, Requests, Traffic


class Wire:
    """Requests over a connection on which the test answers; `writes` holds the xids of each write."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.requests = Requests("", limits or Limits(), Traffic())
        self.requests.write = self._write
        self.writes: list[list[int]] = []
        self.is_written = asyncio.Event()

    def _write(self, frames: bytes) -> None:
        xids, at = [], 0
        while at < len(frames):
            length, xid = struct.unpack_from("!ii", frames, at)
            xids.append(xid)
            at += 4 + length
        self.writes.append(xids)
        self.is_written.set()

    async def wait_written(self) -> None:
        self.is_written.clear()
        await asyncio.wait_for(self.is_written.wait(), 10)

    def ask(self) -> asyncio.Future[Reply[None]]:
        return self.requests.call(Sync("/"))

    def answer(self, xid: int) -> None:
        self.requests.answer(struct.pack("!iqi", xid, xid, 0), xid, xid, 0)


def quota_of(future: asyncio.Future[Reply[None]]) -> Quota:
    error = future.exception()
    assert isinstance(error, Quota)
    return error


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def gathering() -> Wire:
    """The request with xid 1 is under way, and those to come are to be gathered."""
    wire = Wire()
    wire.ask()
    await wire.wait_written()
    wire.requests.pacing.gathers = True
    return wire


async def test_what_is_asked_in_one_turn_leaves_in_one_write() -> None:
    wire = Wire()
    wire.ask()
    wire.ask()
    await turns(1)
    wire.ask()
    await turns(1)
    assert wire.writes == [[1, 2], [3]]


async def test_gathered_requests_leave_together_and_in_order() -> None:
    wire = await gathering()
    start_s = asyncio.get_running_loop().time()
    asked = []
    for _ in range(3):
        asked.append(wire.ask())
        await turns(2)
    wire.answer(1)
    wire.requests.flush()  # as after every read
    assert wire.writes == [[1]]
    await wire.wait_written()
    assert wire.writes == [[1], [2, 3, 4]]
    assert asyncio.get_running_loop().time() - start_s >= GATHER_S * 0.9
    for xid in (2, 3, 4):
        wire.answer(xid)
    assert [(await each).zxid for each in asked] == [2, 3, 4]


async def test_nobody_waits_while_nothing_is_under_way() -> None:
    wire = await gathering()
    wire.answer(1)
    wire.ask()
    await turns(1)
    assert wire.writes == [[1], [2]]


async def test_enough_requests_wait_no_longer() -> None:
    wire = await gathering()
    for _ in range(ENOUGH):
        wire.ask()
        await turns(1)
    await turns(1)
    assert wire.writes == [[1], list(range(2, ENOUGH + 2))]


async def test_a_gathered_request_whose_caller_has_gone_is_never_sent() -> None:
    """S6."""
    wire = await gathering()
    gone, stays = wire.ask(), wire.ask()
    await turns(2)
    gone.cancel()
    await wire.wait_written()
    assert wire.writes == [[1], [2]]
    wire.answer(1)
    wire.answer(2)
    assert (await stays).zxid == 2


async def test_what_was_gathered_when_the_connection_was_lost_is_surely_not_sent() -> None:
    """S6: and says so."""
    wire = await gathering()
    gathered = wire.ask()
    await turns(2)
    wire.requests.fail("cut", None)
    with pytest.raises(SessionSuspended):
        await gathered
    await asyncio.sleep(2 * GATHER_S)
    assert wire.writes == [[1]]


async def test_the_sessions_own_requests_overtake_those_that_yield() -> None:
    """V4: a proof does not wait for what clients have asked for."""
    wire = Wire()
    theirs = [wire.requests.call(Sync(f"/{number}"), yields=True) for number in range(3)]
    own = wire.ask()
    await turns(1)
    assert wire.writes == [[1, 2, 3, 4]]
    wire.answer(1)
    assert own.done()
    assert not any(each.done() for each in theirs)
    for xid in (2, 3, 4):
        wire.answer(xid)
        assert [each.done() for each in theirs] == [number < xid - 1 for number in range(3)]


async def test_what_yields_leaves_room_for_the_sessions_own() -> None:
    """V4: neither what is in flight nor what is queued of clients keeps a proof out."""
    wire = Wire(Limits(max_in_flight=10, max_queued=20, max_queued_bytes=1000))
    theirs = [wire.requests.call(Sync("/"), yields=True) for _ in range(40)]
    await turns(2)
    assert [len(each) for each in wire.writes] == [9]
    refused = [each for each in theirs if each.done()]
    assert refused
    assert all(isinstance(each.exception(), Quota) for each in refused)
    assert [error.metadata for error in map(quota_of, refused)] == [{"limit": "max_queued"}] * len(refused)
    wire.ask()
    await turns(1)
    assert wire.writes[1:] == [[10]]
