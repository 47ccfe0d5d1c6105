"""Curator's read-write lock, as it is downgraded: nodes by hand, on real ZooKeeper.

Whoever has the write lock, acquires the read lock and releases the write lock, keeps a plain ephemeral
`__READ__` node with the number of the `__WRIT__` node. (Curator itself: tests/interop/test_downgrade.py.)
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from kazoo.client import KazooClient

from tests.rpc.host import PATIENCE_S, Host, Stubs
from tests.rpc.test_lock import NO_WAIT, Seeker
from zkside.pb.hold_pb2 import HOLD_STATE_HELD, HOLD_STATE_RELEASED
from zkside.pb.lock_pb2 import LOCK_LAYOUT_CURATOR_READ_WRITE, LOCK_MODE_SHARED, GetContendersRequest

EXCLUSIVE: dict[str, Any] = {"layout": LOCK_LAYOUT_CURATOR_READ_WRITE}
SHARED: dict[str, Any] = {**EXCLUSIVE, "mode": LOCK_MODE_SHARED}


class ReadWriteLock:
    """One of Curator's."""

    def __init__(self, client: KazooClient) -> None:
        self._client = client
        self._write = self._read = ""

    def acquire_write(self) -> None:
        self._write = self._client.create("/lock/_c_a-__WRIT__", ephemeral=True, sequence=True, makepath=True)

    def acquire_read(self) -> None:
        self._read = self._client.create(f"/lock/_c_b-__READ__{self._write[-10:]}", ephemeral=True)

    def release_write(self) -> None:
        self._client.delete(self._write)

    def downgrade_at_once(self) -> None:
        """As one who has acquired the read lock, and does not wait between the answer and the release."""
        self._read = f"/lock/_c_b-__READ__{self._write[-10:]}"
        making = self._client.create_async(self._read, ephemeral=True)
        deleting = self._client.delete_async(self._write)
        making.get()
        deleting.get()

    def release_read(self) -> None:
        self._client.delete(self._read)


@pytest.fixture
def curator(stock_client: KazooClient) -> ReadWriteLock:
    lock = ReadWriteLock(stock_client)
    lock.acquire_write()
    return lock


def requests(host: Host) -> int:
    connection = host.session.statistics().connection
    assert connection is not None
    return connection.sent


async def is_held(seeker: Seeker, *, within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            await seeker.held()
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize("company", [None, EXCLUSIVE, SHARED], ids=["alone", "a writer behind", "a reader behind"])
@pytest.mark.parametrize("moment", ["write", "both", "read"])
@pytest.mark.parametrize("mode", [EXCLUSIVE, SHARED], ids=["writer", "reader"])
async def test_who_waits_is_granted_when_it_may_be_and_no_sooner(
    client: Stubs, host: Host, curator: ReadWriteLock, mode: dict[str, Any], moment: str, company: dict[str, Any] | None
) -> None:
    """H1, H7, H8: whenever it came: behind the write lock, behind both, or behind the read lock that is left."""
    steps = {"write": lambda: None, "both": curator.acquire_read, "read": curator.release_write}
    order = list(steps)
    for step in order[: order.index(moment) + 1]:
        steps[step]()
    seeker = Seeker(client, **mode)
    behind = None
    if moment == "read" and mode is SHARED:
        await seeker.held()
    else:
        await seeker.waiting()
    if company is not None:
        behind = Seeker(client, **company)
        if not (moment == "read" and mode is company is SHARED):
            await behind.waiting()
    for step in order[order.index(moment) + 1 :]:
        steps[step]()
    # Only the read lock is left.
    reading = asyncio.ensure_future(seeker.held())
    before = requests(host)
    done, _ = await asyncio.wait([reading], timeout=PATIENCE_S if mode is SHARED else 0.3)
    assert bool(done) == (mode is SHARED)
    if mode is EXCLUSIVE:
        # Ten proofs of the lease a second at most, and the looks of who was woken.
        assert requests(host) - before < 30
        curator.release_read()
        await reading
    else:
        curator.release_read()
    await seeker.release()
    if behind is not None:
        await behind.held()


async def test_it_is_not_granted_between_the_two_however_soon_they_follow(
    client: Stubs, curator: ReadWriteLock
) -> None:
    """H1: the listing of the waiter has the write lock alone, in all of these rounds."""
    for number in range(25):
        if number:
            curator.acquire_write()
        seeker = Seeker(client, **EXCLUSIVE)
        await seeker.waiting()
        granted = asyncio.ensure_future(seeker.held())
        await asyncio.to_thread(curator.downgrade_at_once)
        await asyncio.sleep(number * 0.001)
        assert not granted.done()
        await asyncio.to_thread(curator.release_read)
        await granted
        await seeker.release()


async def test_a_try_beside_a_downgraded_lock_gets_what_it_may_get(client: Stubs, curator: ReadWriteLock) -> None:
    """H1, H6"""
    curator.acquire_read()
    for tried in (Seeker(client, **EXCLUSIVE, wait_timeout=NO_WAIT), Seeker(client, **SHARED, wait_timeout=NO_WAIT)):
        assert (await tried.until(HOLD_STATE_RELEASED)).reason == "WAIT_TIMEOUT"
    curator.release_write()
    refused = Seeker(client, **EXCLUSIVE, wait_timeout=NO_WAIT)
    assert (await refused.until(HOLD_STATE_RELEASED)).reason == "WAIT_TIMEOUT"
    await Seeker(client, **SHARED, wait_timeout=NO_WAIT).until(HOLD_STATE_HELD)


async def test_who_holds_while_it_is_downgraded_is_told(client: Stubs, curator: ReadWriteLock) -> None:
    """H8: the writer and its own reader."""
    curator.acquire_read()
    await Seeker(client, **SHARED).waiting()
    listed = (await client.lock.GetContenders(GetContendersRequest(path="/lock"))).contenders
    assert [(each.is_shared, each.is_holder) for each in listed] == [(False, True), (True, True), (True, False)]
    curator.release_write()
    listed = (await client.lock.GetContenders(GetContendersRequest(path="/lock"))).contenders
    assert [each.is_holder for each in listed] == [True, True]


@pytest.mark.parametrize(("others", "waiters"), [(20, 1), (0, 20), (5, 20)])
async def test_in_a_long_queue_a_late_reader_is_seen_too(
    client: Stubs, host: Host, curator: ReadWriteLock, stock_client: KazooClient, others: int, waiters: int
) -> None:
    """H1, H7: where not everything is listed at every turn, whoever else queues from here or from other hosts."""

    def queue(count: int) -> list[str]:
        return [stock_client.create("/lock/_c_d-__WRIT__", ephemeral=True, sequence=True) for _ in range(count)]

    ahead = queue(others)
    seekers = []
    for _ in range(waiters):
        seekers.append(Seeker(client, **EXCLUSIVE))
        await seekers[-1].waiting()
    behind = queue(20)
    for node in ahead:
        stock_client.delete(node)
    curator.downgrade_at_once()
    first = asyncio.ensure_future(seekers[0].held())
    done, _ = await asyncio.wait([first], timeout=0.3)
    assert not done
    curator.release_read()
    await first
    for seeker in seekers:
        await seeker.held()
        await seeker.release()
    assert await host.session.janitor.drained(PATIENCE_S)
    assert len(stock_client.get_children("/lock")) == len(behind)
