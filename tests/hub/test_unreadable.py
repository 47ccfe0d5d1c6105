"""A node that exists and may not be read: neither absent nor unchanged (docs/adr/0020)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from kazoo.security import make_digest_acl_credential

from tests.contract.world import Peer, World
from tests.hub.watcher import Watcher, eventually
from zkside.errors import NoAuth, NoNode, ZksideError
from zkside.hub.hub import Hub, HubSettings
from zkside.hub.reads import Consistency, Freshness
from zkside.hub.subscription import SnapshotChunk
from zkside.model import record as records
from zkside.model.operation import OPEN_ACL, Acl, Create, Delete, Exists, GetData, SetAcl, SetData
from zkside.model.watch import ChangeType, Scope, Target
from zkside.zk.session import Session

CACHED = Freshness(Consistency.CACHED)
SERVER = Freshness(Consistency.SERVER)
INTERVAL_S = 0.2
WITHIN_S = 10 * INTERVAL_S
THEIRS = (Acl(31, "digest", make_digest_acl_credential("them", "secret")),)


@pytest.fixture
def hub_settings() -> HubSettings:
    return HubSettings(idle_eviction_s=30.0, revalidate_interval_s=INTERVAL_S)


@pytest.fixture
async def them(join: Callable[..., Awaitable[Peer]]) -> Peer:
    """Somebody who may read and write what nobody else may."""
    return await join(auth=(("digest", "them:secret"),))


async def refused(reading: Awaitable[object]) -> bool:
    try:
        await reading
    except NoAuth:
        return True
    return False


async def until(true: Callable[[], Awaitable[bool]], within_s: float = WITHIN_S) -> None:
    async with asyncio.timeout(within_s):
        while not await true():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def types(watcher: Watcher) -> list[tuple[ChangeType, str]]:
    return [(c.type, c.path) for cut in watcher.cuts for _, part in cut.cuts for c in part.changes]


async def test_what_was_changed_under_an_acl_is_told_when_that_is_given_back(hub: Hub, them: Peer) -> None:
    """V3: no event tells it (from 3.8.4 and 3.9.2 on not even the change)."""
    await them.do(Create("/cfg", b"v1"))
    with Watcher(await hub.subscribe((Target("/cfg", Scope.NODE),))) as watcher:
        await watcher.until(lambda: watcher.data() == {"/cfg": b"v1"})
        assert records.data((await hub.reads.get("/cfg", CACHED)).value) == b"v1"
        await them.do(SetAcl("/cfg", THEIRS))
        await them.do(SetData("/cfg", b"v2"))
        await them.do(SetAcl("/cfg", OPEN_ACL))
        await watcher.until(lambda: watcher.data() == {"/cfg": b"v2"}, WITHIN_S)
        answer = await hub.reads.get("/cfg", CACHED)
        assert (records.data(answer.value), answer.stale) == (b"v2", False)


async def test_what_may_not_be_read_any_more_is_not_served_and_a_watch_says_so(hub: Hub, them: Peer) -> None:
    """V3: NO_AUTH, neither the old value nor NO_NODE; UNREADABLE, and CHANGED when it may be read again."""
    await them.do(Create("/cfg", b"v1"))
    with Watcher(await hub.subscribe((Target("/cfg", Scope.NODE),))) as watcher:
        await watcher.until(lambda: watcher.data() == {"/cfg": b"v1"})
        await them.do(SetAcl("/cfg", THEIRS))
        await until(lambda: refused(hub.reads.get("/cfg", CACHED)))
        await watcher.until(lambda: types(watcher) == [(ChangeType.UNREADABLE, "/cfg")], WITHIN_S)
        many = (await hub.reads.get_many(["/cfg"], CACHED)).value
        assert isinstance(many[0], NoAuth)
        await them.do(SetAcl("/cfg", OPEN_ACL))
        await watcher.until(lambda: watcher.data() == {"/cfg": b"v1"}, WITHIN_S)
        assert types(watcher)[1:] == [(ChangeType.CHANGED, "/cfg")]
        assert records.data((await hub.reads.get("/cfg", CACHED)).value) == b"v1"


async def test_a_read_from_the_server_teaches_the_cache(session: Session, them: Peer) -> None:
    """V3: before the next look is due."""
    hub = Hub(session, HubSettings(revalidate_interval_s=3600.0))
    hub.start()
    try:
        await them.do(Create("/cfg", b"v1"))
        await hub.reads.get("/cfg", CACHED)
        await them.do(SetAcl("/cfg", THEIRS))
        assert records.data((await hub.reads.get("/cfg", CACHED)).value) == b"v1"
        assert await refused(hub.reads.get("/cfg", SERVER))
        assert await refused(hub.reads.get("/cfg", CACHED))
        await them.do(SetData("/cfg", b"v2"))
        await them.do(SetAcl("/cfg", OPEN_ACL))
        assert records.data((await hub.reads.get("/cfg", CACHED)).value) == b"v2", "asked while it may not be read"
    finally:
        await hub.close()


async def test_a_subtree_with_unreadable_nodes_is_answered_as_by_the_server(
    hub: Hub, them: Peer, session: Session
) -> None:
    """V3: Get, Exists, GetMany and List from the cache say what the server says, nowhere that a node is absent."""
    await them.do(Create("/a", b"a"))
    await them.do(Create("/a/open", b"o"))
    await them.do(Create("/a/secret", b"s"))
    await them.do(Create("/a/secret/below", b"b"))
    await them.do(SetAcl("/a/secret", THEIRS))
    with Watcher(await hub.subscribe((Target("/a", Scope.SUBTREE),))) as watcher:
        await watcher.until(lambda: bool(watcher.snapshots))
        assert watcher.data() == {"/a": b"a", "/a/open": b"o"}
        assert watcher.unreadable == {"/a/secret"}
        for freshness in (CACHED, SERVER):
            assert await refused(hub.reads.get("/a/secret", freshness))
            assert await refused(hub.reads.children("/a/secret", freshness))
            assert (await hub.reads.children("/a", freshness)).value.names == ["open", "secret"]
            states = (await hub.reads.get_many(["/a/open", "/a/secret", "/a/none"], freshness)).value
            assert [type(each) for each in states] == [bytes, NoAuth, type(None)]
            assert str(states[1]) == str(NoAuth.at("/a/secret")), "in the same words"
            assert records.data((await hub.reads.get("/a/secret/below", freshness)).value) == b"b"
            with pytest.raises(NoNode) as absent:
                await hub.reads.get("/a/secret/none", freshness)
            assert (str(absent.value), absent.value.metadata) == (
                "/a/secret/none: no such node",
                {"path": "/a/secret/none"},
            )
        try:
            says_server: object = (await session.call(Exists("/a/secret"))).value
        except NoAuth:
            assert await refused(hub.reads.exists("/a/secret", CACHED))
        else:
            assert (await hub.reads.exists("/a/secret", CACHED)).value == says_server is not None


async def test_a_reconnect_while_forbidden_tells_no_deletion(hub: Hub, them: Peer, world: World) -> None:
    """V3, W3"""
    await them.do(Create("/a", b"a"))
    await them.do(Create("/a/b", b"1"))
    with Watcher(await hub.subscribe((Target("/a", Scope.SUBTREE),))) as watcher:
        await watcher.until(lambda: len(watcher.state) == 2)
        await world.refuse()
        await world.cut()
        await watcher.until(lambda: watcher.subscription.is_stale())
        await them.do(SetAcl("/a/b", THEIRS))
        await world.accept()
        await watcher.until(lambda: bool(watcher.cuts))
        assert types(watcher) == [(ChangeType.UNREADABLE, "/a/b")]
        assert await refused(hub.reads.get("/a/b", CACHED))


async def test_a_child_that_is_made_unreadable_is_seen_and_later_read(hub: Hub, them: Peer) -> None:
    """V3: with what was made below it meanwhile."""
    await them.do(Create("/a"))
    with Watcher(await hub.subscribe((Target("/a", Scope.SUBTREE),))) as watcher:
        await watcher.until(lambda: len(watcher.state) == 1)
        await them.do(Create("/a/b", b"1", acl=THEIRS))
        await them.do(Create("/a/b/c", b"2", acl=THEIRS))
        await watcher.until(lambda: "/a/b" in watcher.unreadable, WITHIN_S)
        await them.do(SetAcl("/a/b/c", OPEN_ACL))
        await them.do(SetAcl("/a/b", OPEN_ACL))
        await watcher.until(lambda: watcher.data() == {"/a": b"", "/a/b": b"1", "/a/b/c": b"2"}, WITHIN_S)
        assert not watcher.unreadable
        await them.do(SetAcl("/a/b/c", THEIRS))
        await watcher.until(lambda: watcher.unreadable == {"/a/b/c"}, WITHIN_S)
        await them.do(Delete("/a/b/c"))
        await watcher.until(lambda: not watcher.unreadable, WITHIN_S)
        assert types(watcher)[-1] == (ChangeType.DELETED, "/a/b/c")


async def test_a_large_node_is_looked_at_without_its_data(hub: Hub, them: Peer, session: Session) -> None:
    """V3"""
    await them.do(Create("/big", bytes(900_000)))
    with Watcher(await hub.subscribe((Target("/big", Scope.NODE),))) as watcher:
        await watcher.until(lambda: bool(watcher.state))
        await them.do(SetAcl("/big", THEIRS))
        await watcher.until(lambda: watcher.unreadable == {"/big"}, WITHIN_S)
        await them.do(SetAcl("/big", OPEN_ACL))
        await watcher.until(lambda: not watcher.unreadable, WITHIN_S)
        looked, read = hub.keeper.revalidation.rounds, hub.reader.rounds
        await eventually(lambda: hub.keeper.revalidation.rounds > looked + 1)
        assert hub.reader.rounds == read


@pytest.mark.parametrize("scope", [Scope.CHILDREN, Scope.SUBTREE])
async def test_a_child_that_is_deleted_below_a_parent_that_may_not_be_read_is_told(
    hub: Hub, them: Peer, scope: Scope
) -> None:
    """V1, V3: what is read of the parent says nothing of the deletion, and must not be taken for its Stat."""
    for path in ("/p", "/p/x", "/p/y"):
        await them.do(Create(path, b"1"))
    with Watcher(await hub.subscribe((Target("/p", scope),))) as watcher:
        await watcher.until(lambda: len(watcher.state) == 3)
        await them.do(SetAcl("/p", THEIRS))
        await watcher.until(lambda: watcher.unreadable == {"/p"}, WITHIN_S)
        await them.do(Delete("/p/x"))
        await watcher.until(lambda: set(watcher.state) == {"/p/y"}, WITHIN_S)
        await them.do(SetAcl("/p", OPEN_ACL))
        await watcher.until(lambda: set(watcher.state) == {"/p", "/p/y"} and not watcher.unreadable, WITHIN_S)
    assert not hub.session.supervisor.deaths["reader"]


async def test_what_is_only_being_loaded_does_not_keep_the_loop_busy(hub: Hub, them: Peer) -> None:
    """V4: a look at all finds nothing then, and waits as it does with empty caches."""
    await them.do(Create("/loading", b"1"))
    hub.table.put("/loading", (await hub.session.call(GetData("/loading"))).value)
    rounds = hub.keeper.revalidation.rounds
    await eventually(lambda: hub.keeper.revalidation.rounds >= rounds + 2)


async def test_a_node_that_may_not_be_read_is_not_taken_for_deleted(hub: Hub, them: Peer) -> None:
    """V3, H5: by who waits for its end, and hears of that when it comes."""
    await them.do(Create("/q"))
    await them.do(Create("/q/first"))
    gone = asyncio.Event()
    data: list[bytes] = []
    failures: list[ZksideError] = []
    czxid = (await hub.reads.exists("/q/first", SERVER)).value
    assert czxid is not None
    stop = hub.on_deleted("/q/first", czxid.czxid, gone.set, on_data=data.append, on_failed=failures.append)
    await hub.reads.get("/q/first", CACHED)
    await them.do(SetAcl("/q/first", THEIRS))
    await until(lambda: refused(hub.reads.get("/q/first", CACHED)))
    assert (gone.is_set(), data) == (False, [b""])
    await them.do(Delete("/q/first"))
    async with asyncio.timeout(WITHIN_S):
        await gone.wait()
    stop()


async def test_a_watch_of_a_node_that_may_not_be_read_is_refused_until_it_may(session: Session, them: Peer) -> None:
    """V3: by the server's word of now."""
    hub = Hub(session, HubSettings(revalidate_interval_s=3600.0))
    hub.start()
    try:
        await them.do(Create("/cfg", b"v1", acl=THEIRS))
        with pytest.raises(NoAuth):
            await hub.subscribe((Target("/cfg", Scope.NODE),))
        await them.do(SetAcl("/cfg", OPEN_ACL))
        with Watcher(await hub.subscribe((Target("/cfg", Scope.NODE),))) as watcher:
            await watcher.until(lambda: watcher.data() == {"/cfg": b"v1"})
    finally:
        await hub.close()


async def test_who_resumes_behind_a_hidden_change_gets_a_snapshot(hub: Hub, them: Peer) -> None:
    """W3: a bookmark may have told all up to the zxid of what an ACL hid, before that was found."""
    await them.do(Create("/cfg", b"v1"))
    target = (Target("/cfg", Scope.NODE),)
    with Watcher(await hub.subscribe(target)) as watcher:
        await watcher.until(lambda: bool(watcher.state))
        await them.do(SetAcl("/cfg", THEIRS))
        await watcher.until(lambda: watcher.unreadable == {"/cfg"}, WITHIN_S)
        for zxid in (watcher.cuts[-1].zxid, watcher.zxid):
            again = await hub.subscribe(target, resume=(hub.epoch_id, zxid))
            delivery = await again.next()
            assert isinstance(delivery, SnapshotChunk)
            assert delivery.image.chunks == [[("/cfg", records.UNREADABLE)]]
            again.close()
