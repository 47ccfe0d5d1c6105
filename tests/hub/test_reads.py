"""Reads: cached, from the server, through the leader."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter

import pytest

from tests.contract.world import Peer, World
from tests.hub.watcher import eventually
from zkside.errors import NoAuth, NoNode, SessionLost, SessionSuspended, TooStale
from zkside.hub.hub import Hub, HubSettings
from zkside.hub.reads import Consistency, Freshness
from zkside.model import record
from zkside.model.operation import Acl, Create, Delete, SetData, Transaction
from zkside.model.session import SessionState
from zkside.model.watch import Scope, Target
from zkside.zk.session import Session

CACHED = Freshness(Consistency.CACHED)
SERVER = Freshness(Consistency.SERVER)
LINEARIZABLE = Freshness(Consistency.LINEARIZABLE)


async def suspended(session: Session, world: World) -> None:
    await world.refuse()
    await world.cut()
    await eventually(lambda: not session.status.state.is_connected)


def requests(session: Session) -> Counter[str]:
    """Operations sent so far, by name."""
    return Counter({name: latency.count for name, latency in session.statistics().latencies.items()})


@pytest.mark.parametrize("freshness", [CACHED, SERVER, LINEARIZABLE], ids=lambda f: f.consistency.value)
async def test_each_consistency_reads_the_node_and_says_how_current_it_is(
    hub: Hub, session: Session, other: Peer, freshness: Freshness
) -> None:
    """R1, R3"""
    await other.do(Create("/a", b"1"))
    await other.do(Create("/a/b", b"2"))
    answer = await hub.reads.get("/a", freshness)
    assert record.data(answer.value) == b"1"
    assert answer.zxid >= record.stat(answer.value).mzxid
    assert not answer.stale
    stat = (await hub.reads.exists("/a", freshness)).value
    assert stat == record.stat(answer.value)
    assert (await hub.reads.exists("/absent", freshness)).value is None
    many = (await hub.reads.get_many(["/a", "/absent", "/a/b"], freshness)).value
    assert [r and record.data(r) for r in many] == [b"1", None, b"2"]  # type: ignore[arg-type]
    listing = (await hub.reads.children("/a", freshness)).value
    assert listing.names == ["b"]
    assert listing.stat == stat
    for read in (hub.reads.get, hub.reads.children):
        with pytest.raises(NoNode):
            await read("/absent", freshness)


async def test_a_cached_read_sees_what_was_written_through_the_same_session(hub: Hub, session: Session) -> None:
    """R1: the watch event of a write comes before its reply."""
    await session.call(Create("/a", b"0"))
    await session.call(Create("/a/b", b"0"))
    for number in range(200):
        data = str(number).encode()
        await session.call(SetData("/a", data))
        assert record.data((await hub.reads.get("/a", CACHED)).value) == data
        await session.call(Create(f"/a/b/{number}"))
        assert len((await hub.reads.children("/a/b", CACHED)).value.names) == number + 1
        assert record.stat((await hub.reads.get("/a/b", CACHED)).value).num_children == number + 1


@pytest.mark.parametrize("freshness", [CACHED, SERVER], ids=lambda f: f.consistency.value)
async def test_a_read_with_somebodys_zxid_sees_what_they_wrote(hub: Hub, other: Peer, freshness: Freshness) -> None:
    """R2: the other one writes in a session of its own, and tells us its zxid."""
    await other.do(Create("/a", b"0"))
    await hub.reads.get("/a", freshness)
    for number in range(100):
        data = str(number).encode()
        written = await other.ask(SetData("/a", data))
        answer = await hub.reads.get("/a", Freshness(freshness.consistency, min_zxid=written.zxid))
        assert record.data(answer.value) == data
        assert answer.zxid >= written.zxid


async def test_a_linearizable_read_sees_every_write_that_was_done_before(hub: Hub, other: Peer) -> None:
    """R1"""
    await other.do(Create("/a", b"0"))
    for number in range(100):
        data = str(number).encode()
        await other.do(SetData("/a", data))
        assert record.data((await hub.reads.get("/a", LINEARIZABLE)).value) == data


async def test_polling_does_not_reach_zookeeper(hub: Hub, session: Session, other: Peer) -> None:
    """R4: of a node, of a missing node, of a list, of a missing node below a watched subtree."""
    await other.do(Create("/a", b"1"))
    subscription = await hub.subscribe((Target("/a", Scope.SUBTREE),))
    for _ in range(2):
        before = requests(session)
        for _ in range(50):
            await hub.reads.get("/a", CACHED)
            assert (await hub.reads.exists("/missing", CACHED)).value is None
            assert (await hub.reads.exists("/a/missing/deep", CACHED)).value is None
            await hub.reads.children("/a", CACHED)
        asked = requests(session) - before
    assert asked - Counter({"Sync": 100}) == Counter()
    await other.do(Create("/missing", b"there"))
    zxid = (await other.ask(SetData("/missing", b"now"))).zxid
    answer = await hub.reads.get("/missing", Freshness(Consistency.CACHED, min_zxid=zxid))
    assert record.data(answer.value) == b"now"
    subscription.close()


async def test_without_a_connection_the_cache_answers_and_says_so(
    hub: Hub, session: Session, other: Peer, world: World
) -> None:
    """R3, R5"""
    await other.do(Create("/a", b"1"))
    await hub.reads.get("/a", CACHED)
    await suspended(session, world)
    answer = await hub.reads.get("/a", CACHED)
    assert record.data(answer.value) == b"1"
    assert answer.stale
    assert answer.age_s >= 0
    with pytest.raises(TooStale):
        await hub.reads.get("/a", Freshness(Consistency.CACHED, max_stale_s=0.0))
    with pytest.raises(TooStale):
        await hub.reads.get("/a", Freshness(Consistency.CACHED, min_zxid=answer.zxid + 1))
    for freshness in (SERVER, LINEARIZABLE):
        with pytest.raises((SessionSuspended, SessionLost)):  # lost, where the machine is slow
            await hub.reads.get("/a", freshness)
    with pytest.raises(SessionSuspended):
        await hub.reads.get("/never-read", CACHED)
    await other.do(SetData("/a", b"2"))
    await world.accept()
    await eventually(lambda: session.status.state is SessionState.CONNECTED)
    # At once, also while the cache is still being compared: then the server answers.
    answer = await hub.reads.get("/a", CACHED)
    assert (record.data(answer.value), answer.stale) == (b"2", False)


async def test_cached_many_are_one_cut_under_transactions(hub: Hub, other: Peer) -> None:
    """R6: forty nodes rewritten by transactions, and never seen half."""
    names = [f"/a/{number}" for number in range(40)]
    await other.do(Create("/a"))
    await other.do(Transaction(tuple(Create(path, b"0") for path in names)))
    subscription = await hub.subscribe((Target("/a", Scope.SUBTREE),))

    seen: set[bytes] = set()

    async def write() -> None:
        for number in itertools.count():
            await other.do(Transaction(tuple(SetData(path, str(number).encode()) for path in names)))
            # However few of them a reader on a busy machine sees.
            if number >= 200 and len(seen) > 10:
                return

    writing = asyncio.create_task(write())
    while not writing.done():
        for freshness in (CACHED, SERVER):
            answer = await hub.reads.get_many(names, freshness)
            data = {record.data(r) for r in answer.value}  # type: ignore[arg-type]
            assert len(data) == 1, "a transaction was seen by half"
            seen |= data
    await writing
    assert len(seen) > 10
    subscription.close()


async def test_an_idle_cache_and_its_watch_go(hub: Hub, session: Session, other: Peer) -> None:
    """W9"""
    await other.do(Create("/a", b"1"))
    await hub.reads.get("/a", CACHED)
    assert hub.statistics().server_watches["persistent"] == 1
    await eventually(lambda: not hub.statistics().server_watches["persistent"])
    await eventually(lambda: hub.statistics().cached_nodes == 0)
    await other.do(Delete("/a"))
    with pytest.raises(NoNode):
        await hub.reads.get("/a", CACHED)


@pytest.mark.parametrize("hub_settings", [HubSettings()], ids=["no idle eviction meanwhile"])
async def test_many_nodes_are_cached_at_once_and_one_that_may_not_be_read_spoils_nothing(
    hub: Hub, session: Session, other: Peer
) -> None:
    """R4, R6"""
    names = [f"/a/{number}" for number in range(600)]
    await other.do(Create("/a"))
    for path in names:
        other.call(Create(path, b"1"))
    await other.do(Create("/secret", b"1", acl=(Acl(31, "digest", "nobody:0000"),)))
    for _ in range(2):
        answer = await hub.reads.get_many([*names, "/absent", "/secret"], CACHED)
        assert [r for r in answer.value[:600] if not isinstance(r, bytes)] == []
        assert answer.value[600] is None
        assert isinstance(answer.value[601], NoAuth)
    before = requests(session)
    await hub.reads.get_many([*names, "/absent"], CACHED)
    assert requests(session) - before - Counter({"Sync": 100}) == Counter()
