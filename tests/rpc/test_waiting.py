"""What the waiters of one daemon share, on real ZooKeeper."""

from __future__ import annotations

import asyncio

import pytest

from tests.rpc.host import PATIENCE_S, Host
from zkside.core.queueing import Contender, contender
from zkside.model import path as paths
from zkside.model.operation import Create, CreateMode, Delete, Exists
from zkside.recipes import waiting
from zkside.recipes.turnstile import Turnstile
from zkside.recipes.waiting import WaitingRoom

READER = "__READ__"
WRITER = "__WRIT__"


async def seat(host: Host, name: str) -> Contender:
    made = await host.session.call(Create(f"/queue/{name}", b"", CreateMode.EPHEMERAL_SEQUENTIAL))
    found = contender(paths.name(made.value.path))
    assert found is not None
    return found


async def take_turn(room: WaitingRoom, me: Contender, before: int) -> None:
    await room.settle(me, before)
    await room.turn(me, lambda position: None)


async def test_a_queue_that_takes_long_to_list_is_not_listed_all_the_time(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """O4: whoever comes during the pause shares the next listing, and nobody is forgotten."""
    monkeypatch.setattr(waiting, "LONG_S", -1.0)
    monkeypatch.setattr(waiting, "PAUSE", 1e9)
    await host.session.call(Create("/queue", b""))
    room = WaitingRoom(host.session, host.hub, "/queue", Turnstile())

    async def settled() -> Contender:
        seating = asyncio.ensure_future(seat(host, READER))
        await asyncio.sleep(0)  # its create is sent
        before = room.look()
        me = await seating
        await room.settle(me, before)
        return me

    async with asyncio.timeout(PATIENCE_S):
        first = await settled()
        before, coming = room.look(), []
        for _ in range(30):
            coming.append(asyncio.ensure_future(settled()))
            await asyncio.sleep(0.01)
        others = await asyncio.gather(*coming)
        assert room.look() - before < 15
        await room.turn(first, lambda position: None)
        await room.turn(others[-1], lambda position: None)


async def test_a_listing_from_before_a_release_leaves_nobody_waiting(host: Host) -> None:
    """H7: the listing that still has the writer and the event of its end come together, in most of the rounds."""
    await host.session.call(Create("/queue", b""))
    room = WaitingRoom(host.session, host.hub, "/queue", Turnstile())
    for _ in range(50):
        writer = await seat(host, WRITER)
        one = await seat(host, READER)
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as waiters:
            waiters.create_task(take_turn(room, one, room.look()))
            while not host.hub.statistics().server_watches:
                await host.session.call(Exists("/queue"))
            other = await seat(host, READER)
            before = room.look()
            released = host.session.call(Delete(paths.join("/queue", writer.name)))
            waiters.create_task(take_turn(room, other, before))
            await released
        for reader in (one, other):
            await host.session.call(Delete(paths.join("/queue", reader.name)))
