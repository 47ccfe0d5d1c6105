"""R6: a ReadMany sees a transaction as a whole or not at all."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest

from tests.contract.conftest import Join
from tests.contract.world import Peer
from tests.parts.ensemble import Ensemble
from zkside.model import record
from zkside.model.operation import AddWatch, Create, GetData, ReadMany, SetData, Transaction
from zkside.zk.kazoo import KazooSettings, kazoo_connector

PATHS = tuple(f"/n{number:02}" for number in range(40))


READ_ALL = ReadMany(tuple(GetData(path) for path in PATHS))


def rewrite(number: int) -> Transaction:
    return Transaction(tuple(SetData(path, b"%d" % number) for path in PATHS))


async def count_torn(reader: Peer, writer: Peer, *, reads: int) -> tuple[int, int]:
    """While the writer rewrites all nodes again and again the reader reads them all, again and again.

    Returns how many reads saw nodes of different transactions, and how many different transactions were seen.
    """
    await writer.do(Transaction(tuple(Create(path) for path in PATHS)))
    last = await writer.ask(rewrite(0))
    while (await reader.catch_up()) < last.zxid:
        pass
    done = asyncio.Event()

    async def write() -> None:
        for number in itertools.count(1):
            await asyncio.gather(writer.ask(rewrite(number)), writer.ask(rewrite(-number)))
            if done.is_set():
                return

    torn = 0
    seen: set[int] = set()
    writing = asyncio.create_task(write())
    try:
        for _ in range(reads // 4):
            for reply in await asyncio.gather(*(reader.ask(READ_ALL) for _ in range(4))):
                records = [one for one in reply.value if isinstance(one, bytes)]
                assert len(records) == len(PATHS)
                written = {record.stat(one).mzxid for one in records}
                torn += len(written) > 1 or len({record.data(one) for one in records}) > 1
                assert max(written) <= reply.zxid
                seen |= written
    finally:
        done.set()
        await writing
    return torn, len(seen)


async def test_no_read_is_torn(join: Join) -> None:
    """R6"""
    torn, seen = await count_torn(await join(), await join(), reads=400)
    assert torn == 0
    assert seen >= 50


async def test_what_a_transaction_changed_is_there_when_its_first_event_arrives(join: Join) -> None:
    """R6, W6: whoever reads on an event sees all of the transaction that fired it."""
    reader, writer = await join(), await join()
    await writer.do(Transaction(tuple(Create(path) for path in PATHS)))
    await reader.do(AddWatch("/", recursive=True))
    for number in range(50):
        heard = len(reader.events)
        writing = writer.call(rewrite(number))
        await reader.wait_for("event", heard + 1)
        records = await reader.do(READ_ALL)
        assert {record.data(one) for one in records if isinstance(one, bytes)} == {b"%d" % number}
        await writing


@pytest.fixture
async def leader_and_follower(ensemble: Ensemble) -> AsyncIterator[tuple[Peer, Peer]]:
    peers = []
    for server in (ensemble.leader, ensemble.followers[0]):
        peer = Peer()
        peer.connection = kazoo_connector(KazooSettings(server.hosts))(peer, None)
        peer.connection.start()
        await peer.wait_for("connected")
        peers.append(peer)
    yield peers[0], peers[1]
    for peer in peers:
        await peer.connection.close(within_s=5)


@pytest.mark.faults
async def test_no_read_is_torn_on_a_follower(leader_and_follower: tuple[Peer, Peer]) -> None:
    """R6: the reader talks to a follower, which applies the leader's transactions."""
    writer, reader = leader_and_follower
    torn, seen = await count_torn(reader, writer, reads=4000)
    print(f"4000 reads on a follower saw {seen} transactions; {torn} reads were torn")
    assert torn == 0
    assert seen >= 50
