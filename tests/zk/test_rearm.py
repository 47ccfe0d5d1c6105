"""Persistent watches on servers that have none: those with WatchManagerOptimized, and older releases.

The contract's tests of watches run here too, but for the few that need every single event: several changes may
merge into one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.contract import conftest as contract
from tests.contract import test_watches as watches
from tests.contract.test_connection import test_watches_survive_a_reconnection
from tests.contract.world import WITHIN_S, Peer, RealWorld
from tests.hub.watcher import eventually
from tests.parts.proxy import Proxy
from tests.zk.conftest import Connect
from tests.zk.scripted import THROTTLED, older_release, refusing
from zkside import errors
from zkside.cli.zookeeper import ZooKeeperServer
from zkside.model.event import EventType, WatchedEvent
from zkside.model.operation import (
    AddWatch,
    Create,
    Delete,
    Exists,
    GetChildren,
    GetData,
    Operation,
    ReadMany,
    ReadResult,
    RemoveWatch,
    Reply,
    SetData,
    Transaction,
)
from zkside.model.record import Record

CREATED, DELETED = EventType.NODE_CREATED, EventType.NODE_DELETED
DATA, CHILDREN = EventType.NODE_DATA_CHANGED, EventType.NODE_CHILDREN_CHANGED

join, peer, other = contract.join, contract.peer, contract.other

__all__ = ["join", "other", "peer", "test_watches_survive_a_reconnection"]


@pytest.fixture
def world(optimized_zookeeper: ZooKeeperServer, optimized_hosts: str) -> Iterator[RealWorld]:
    chroot = optimized_hosts[optimized_hosts.index("/") :]
    with Proxy(optimized_zookeeper.port) as proxy:
        yield RealWorld(optimized_zookeeper.hosts, chroot, proxy)


def watch_counts(server: ZooKeeperServer) -> int:
    return int(server.mntr()["watch_count"])


@pytest.mark.parametrize(
    ("path", "recursive", "change", "expected"),
    [row for row in watches.TABLE if not isinstance(row[2], Transaction)],
    ids=repr,
)
async def test_a_single_change_fires_what_a_persistent_watch_fires(
    peer: Peer,
    other: Peer,
    path: str,
    recursive: bool,
    change: Operation[object],
    expected: list[tuple[EventType, str]],
) -> None:
    """W10"""
    await watches.test_a_change_fires_exactly_what_zookeeper_defines(peer, other, path, recursive, change, expected)


async def test_recursive_replaces_plain(peer: Peer, other: Peer) -> None:
    await peer.do(Create("/a"))
    await peer.do(AddWatch("/a"))
    await peer.do(AddWatch("/a", recursive=True))
    await other.do(Create("/a/b"))
    await peer.catch_up()
    await other.do(SetData("/a", b""))
    await peer.catch_up()
    assert peer.events == [(CREATED, "/a/b"), (DATA, "/a")]


async def test_one_transaction_is_found_in_one_piece(peer: Peer, other: Peer) -> None:
    """W6"""
    await peer.do(AddWatch("/", recursive=True))
    creates = tuple(Create(f"/n{number:02}") for number in range(40))
    reply = await other.ask(Transaction(creates))
    await peer.catch_up()
    assert peer.events == [(CREATED, create.path) for create in creates]
    assert all(event.since <= reply.zxid for event in peer.all("event"))


async def test_a_whole_tree_is_heard_of_from_its_birth_to_its_end(peer: Peer, other: Peer) -> None:
    await peer.do(AddWatch("/root", recursive=True))
    for path in ("/root", "/root/a", "/root/a/b", "/root/a/b/c"):
        await other.do(Create(path))
        await peer.catch_up()
    await other.do(SetData("/root/a/b/c", b"1"))
    await peer.catch_up()
    for path in ("/root/a/b/c", "/root/a/b", "/root/a", "/root"):
        await other.do(Delete(path))
    await peer.catch_up()
    down = ["/root", "/root/a", "/root/a/b", "/root/a/b/c"]
    assert peer.events == [
        *((CREATED, path) for path in down),
        (DATA, "/root/a/b/c"),
        *((DELETED, path) for path in reversed(down)),
    ]


@pytest.mark.parametrize("recursive", [False, True])
async def test_a_removed_watch_leaves_nothing_on_the_server(
    peer: Peer, other: Peer, optimized_zookeeper: ZooKeeperServer, recursive: bool
) -> None:
    """W9"""
    before = watch_counts(optimized_zookeeper)
    for path in ("/w", "/w/a", "/w/a/b"):
        await other.do(Create(path))
    await peer.do(AddWatch("/w", recursive))
    await peer.do(AddWatch("/w/a"))
    assert watch_counts(optimized_zookeeper) - before == (6 if recursive else 4)
    await peer.do(RemoveWatch("/w"))
    await other.do(SetData("/w/a", b""))
    await other.do(SetData("/w/a/b", b""))
    await peer.catch_up()
    assert peer.events == [(DATA, "/w/a")]
    await peer.do(RemoveWatch("/w/a"))
    await peer.do(RemoveWatch("/w/a"))
    await other.do(SetData("/w/a", b""))
    await peer.catch_up()
    assert peer.events == [(DATA, "/w/a")]
    assert watch_counts(optimized_zookeeper) == before


async def test_what_changed_while_cut_off_is_known_after_it(world: RealWorld, join: contract.Join) -> None:
    """Nodes that came meanwhile are watched, and those that went are not waited for."""
    peer, other = await join(faulty=True), await join()
    for path in ("/w", "/w/kept", "/w/gone", "/w/gone/below"):
        await other.do(Create(path))
    await peer.do(AddWatch("/w", recursive=True))
    await world.refuse()
    await world.cut()
    await peer.wait_for("suspended")
    await other.do(Create("/w/new"))
    await other.do(Create("/w/new/below"))
    await other.do(Delete("/w/gone/below"))
    await other.do(Delete("/w/gone"))
    await world.accept()
    await peer.wait_for("connected", 2)
    await peer.catch_up()
    await peer.catch_up()
    before = len(peer.events)
    for path in ("/w/new/below", "/w/kept"):
        await other.do(SetData(path, b""))
        await peer.catch_up()
    await other.do(Create("/w/gone"))
    await peer.catch_up()
    assert peer.events[before:] == [(DATA, "/w/new/below"), (DATA, "/w/kept"), (CREATED, "/w/gone")]


class Mirror(Peer):
    """Follows one node as a cache does: an event before a reply says that the reply may miss it only if it is
    newer than the reply."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, Record | None] = {}
        self._wanted: dict[str, int] = {}
        self._reading = ""
        self.idle = asyncio.Event()

    def event(self, event: WatchedEvent) -> None:
        super().event(event)
        newest = max(event.since, event.zxid)
        self._wanted[event.path] = max(self._wanted.get(event.path, 0), newest)
        self.idle.clear()
        if not self._reading:
            self._read_next()

    def _read_next(self) -> None:
        if not self._wanted:
            self.idle.set()
            return
        self._reading = next(iter(self._wanted))
        del self._wanted[self._reading]
        self.call(ReadMany((GetData(self._reading),))).add_done_callback(self._read)

    def _read(self, future: asyncio.Future[Reply[list[ReadResult]]]) -> None:
        zxid, (result,) = future.result()
        path, self._reading = self._reading, ""
        self.seen[path] = result if isinstance(result, bytes) else None
        if self._wanted.get(path, zxid + 1) <= zxid:
            del self._wanted[path]
        self._read_next()


@pytest.mark.parametrize("recursive", [False, True])
async def test_however_fast_it_changes_the_newest_state_arrives(world: RealWorld, other: Peer, recursive: bool) -> None:
    """W3, in the gap between an event and the new watch too."""
    mirror = Mirror()
    mirror.connection = world.connector()(mirror, None)
    mirror.connection.start()
    await mirror.wait_for("connected")
    chance = random.Random(1)
    try:
        await other.do(Create("/w"))
        paths = [f"/w/{number}" for number in range(5)]
        for path in ("/w",) if recursive else paths:
            await mirror.do(AddWatch(path, recursive))
        for _ in range(20):
            changes: list[Operation[object]] = []
            for _ in range(chance.randrange(1, 60)):
                path = chance.choice(paths)
                changes.append(chance.choice([Create(path, b"new"), SetData(path, b"set"), Delete(path)]))
            await asyncio.gather(*(other.call(change) for change in changes), return_exceptions=True)
            for _ in range(3):  # a made-up event may follow by a round trip
                await mirror.catch_up()
            async with asyncio.timeout(WITHIN_S):
                if mirror.seen:
                    await mirror.idle.wait()
            for path in paths:
                (now,) = await other.do(ReadMany((GetData(path),)))
                assert mirror.seen.get(path) == (now if isinstance(now, bytes) else None)
    finally:
        await mirror.connection.close(within_s=2)


# --- older releases


@pytest.fixture
async def old_hosts(zookeeper: ZooKeeperServer, chroot: str) -> AsyncIterator[str]:
    """Without addWatch, SetWatches2 and multiRead: ZooKeeper 3.5."""
    async with older_release(zookeeper.port, frozenset({106, 105, 22})) as hosts:
        yield hosts + chroot


async def test_an_older_release_has_watches_and_reads_many(connect: Connect, hosts: str, old_hosts: str) -> None:
    peer, other = await connect(old_hosts), await connect(hosts)
    await other.do(Create("/a", b"1"))
    await other.do(Create("/a/b", b"2"))
    await peer.do(AddWatch("/a", recursive=True))
    results = await peer.do(ReadMany((GetData("/a"), GetChildren("/a"), GetData("/absent"), GetData("/a/b"))))
    assert results[0] == await other.do(GetData("/a"))
    assert results[1] == ["b"]
    assert type(results[2]) is errors.NoNode
    assert results[3] == await other.do(GetData("/a/b"))
    await other.do(SetData("/a/b", b"3"))
    await peer.catch_up()
    assert peer.events == [(DATA, "/a/b")]


async def test_a_session_may_move_to_an_older_release(
    connect: Connect, zookeeper: ZooKeeperServer, hosts: str, chroot: str
) -> None:
    """A rolling downgrade: the watches that were persistent are re-armed there."""
    unknown: set[int] = set()
    async with older_release(zookeeper.port, unknown) as through:
        peer, other = await connect(through + chroot), await connect(hosts)
        await other.do(Create("/a"))
        await peer.do(AddWatch("/a", recursive=True))
        await peer.do(AddWatch("/b"))
        unknown |= {106, 105, 22}
        ticket = peer.ticket
        thief = await connect(hosts, ticket=ticket)  # takes the session over, so the first loses it
        thief.connection.abandon()
        await peer.wait_for("connected", 2)
        for path in ("/a/new", "/b"):
            await other.do(Create(path))
            await peer.catch_up()
        assert peer.events == [(CREATED, "/a/new"), (CREATED, "/b")]
        assert await peer.do(Exists("/b")) is not None


@pytest.mark.parametrize("opcode", [3, 12])  # exists, getChildren2
async def test_a_watch_that_is_throttled_while_it_is_set_again_is_set_a_little_later(
    connect: Connect, old_hosts: str, hosts: str, opcode: int
) -> None:
    """V1: no event would say when."""
    port, _, chroot = old_hosts.partition(":")[2].partition("/")
    left: dict[int, int] = {}
    async with refusing(int(port), left, THROTTLED) as through:
        peer, other = await connect(f"{through}/{chroot}"), await connect(hosts)
        await other.do(Create("/a"))
        await peer.do(AddWatch("/a"))
        left[opcode] = 1
        for number in range(2):
            await other.do(Create(f"/a/{number}"))
            await other.do(SetData("/a", b""))
            await eventually(lambda: {(DATA, "/a"), (CHILDREN, "/a")} <= set(peer.events), 5)
            peer.log.clear()
        assert left[opcode] == 0
