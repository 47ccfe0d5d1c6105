"""STATE subscriptions: snapshots, cuts, resuming, overflow, outages."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.contract.world import Peer, World
from tests.hub.watcher import Watcher, eventually
from zkside.errors import SessionSuspended
from zkside.hub.hub import Hub, HubSettings
from zkside.hub.subscription import SnapshotReason
from zkside.model.operation import Create, Delete, SetData, Transaction
from zkside.model.session import SessionState
from zkside.model.watch import ChangeType, Scope, Target
from zkside.zk.session import Session


def subtree(path: str = "/a") -> tuple[Target]:
    return (Target(path, Scope.SUBTREE),)


def types(watcher: Watcher) -> list[tuple[ChangeType, str]]:
    return [(c.type, c.path) for cut in watcher.cuts for _, part in cut.cuts for c in part.changes]


async def test_a_subtree_is_sent_as_it_is_and_then_as_it_changes(hub: Hub, other: Peer) -> None:
    """W1, W2"""
    await other.do(Create("/a", b"1"))
    await other.do(Create("/a/b", b"2"))
    with Watcher(await hub.subscribe(subtree())) as watcher:
        await watcher.until(lambda: bool(watcher.snapshots))
        assert watcher.data() == {"/a": b"1", "/a/b": b"2"}
        await other.do(Create("/a/b/c", b"3"))
        await other.do(SetData("/a", b"4"))
        await other.do(Delete("/a/b/c"))
        await other.do(Delete("/a/b"))
        await watcher.until(lambda: watcher.data() == {"/a": b"4"})


async def test_an_absent_path_is_watched_until_it_comes(hub: Hub, other: Peer) -> None:
    """R4"""
    with Watcher(await hub.subscribe(subtree("/a"))) as watcher:
        await watcher.until(lambda: bool(watcher.snapshots))
        assert watcher.data() == {}
        await other.do(Create("/a", b"1"))
        await other.do(Create("/a/b", b"2"))
        await watcher.until(lambda: watcher.data() == {"/a": b"1", "/a/b": b"2"})
        assert types(watcher) == [(ChangeType.CREATED, "/a"), (ChangeType.CREATED, "/a/b")]


@pytest.mark.parametrize(
    ("scope", "seen"),
    [
        (Scope.NODE, {"/a"}),
        (Scope.CHILDREN, {"/a", "/a/b"}),
        (Scope.SUBTREE, {"/a", "/a/b", "/a/b/c"}),
    ],
)
async def test_a_target_shows_its_scope_and_nothing_else(hub: Hub, other: Peer, scope: Scope, seen: set[str]) -> None:
    for path in ("/a", "/a/b", "/a/b/c"):
        await other.do(Create(path, b"1"))
    with Watcher(await hub.subscribe((Target("/a", scope),))) as watcher:
        await watcher.until(lambda: set(watcher.state) == seen)
        for path in ("/a/b/c", "/a/b", "/a"):
            await other.do(SetData(path, b"2"))
        await watcher.until(lambda: watcher.data() == dict.fromkeys(seen, b"2"))
        assert {path for _, path in types(watcher)} == seen


async def test_all_changes_of_a_transaction_arrive_in_one_cut(hub: Hub, other: Peer) -> None:
    """W6, R6: while others write the same nodes one by one, and more nodes around them."""
    names = [f"/a/{number}" for number in range(8)]
    await other.do(Create("/a"))
    for path in names:
        await other.do(Create(path, b"0"))
        await other.do(Create(f"{path}-noise", b"0"))
    with Watcher(await hub.subscribe(subtree())) as watcher:
        await watcher.until(lambda: bool(watcher.snapshots))
        whole = True

        def check() -> bool:
            nonlocal whole
            whole = whole and len({watcher.data()[path] for path in names}) == 1
            return whole and watcher.data()[names[0]] == b"300"

        async def write() -> None:
            pending: list[asyncio.Future[Any]] = []
            for number in range(1, 301):
                data = str(number).encode()
                pending.append(other.call(Transaction(tuple(SetData(path, data) for path in names))))
                pending += [other.call(SetData(f"{path}-noise", data)) for path in names[: number % 5]]
            await asyncio.gather(*pending)

        await asyncio.gather(write(), watcher.until(check))
        assert whole


async def test_deleting_and_creating_again_during_an_outage_is_seen_as_such(
    hub: Hub, other: Peer, world: World
) -> None:
    """W7: the node has the same data and version as before, and its parent as many children."""
    for path in ("/a", "/a/b", "/a/b/c"):
        await other.do(Create(path, b"1"))
    with Watcher(await hub.subscribe(subtree())) as watcher:
        await watcher.until(lambda: len(watcher.state) == 3)
        await world.refuse()
        await world.cut()
        await watcher.until(lambda: watcher.statuses[-1:] != [] and not watcher.statuses[-1].state.is_connected)
        await other.do(Delete("/a/b/c"))
        await other.do(Create("/a/b/c", b"1"))
        await world.accept()
        await watcher.until(lambda: (ChangeType.RECREATED, "/a/b/c") in types(watcher))
        assert types(watcher) == [(ChangeType.RECREATED, "/a/b/c")]


async def test_what_changed_during_an_outage_comes_as_one_cut_after_it(hub: Hub, other: Peer, world: World) -> None:
    """W3: created, changed, deleted, deep below what was created: all of it, and nothing twice."""
    for path in ("/a", "/a/keep", "/a/go", "/a/go/deep", "/a/set"):
        await other.do(Create(path, b"1"))
    with Watcher(await hub.subscribe(subtree())) as watcher:
        await watcher.until(lambda: len(watcher.state) == 5)
        await world.refuse()
        await world.cut()
        await watcher.until(lambda: watcher.statuses[-1:] != [] and not watcher.statuses[-1].state.is_connected)
        assert watcher.subscription.is_stale()
        await other.do(Delete("/a/go/deep"))
        await other.do(Delete("/a/go"))
        await other.do(SetData("/a/set", b"2"))
        await other.do(Create("/a/new", b"3"))
        await other.do(Create("/a/new/deep", b"4"))
        await world.accept()
        expected = {"/a": b"1", "/a/keep": b"1", "/a/set": b"2", "/a/new": b"3", "/a/new/deep": b"4"}
        await watcher.until(lambda: watcher.data() == expected)
        assert len(watcher.cuts) == 1
        assert not watcher.subscription.is_stale()


async def test_watching_goes_on_in_a_new_session(hub: Hub, session: Session, other: Peer, world: World) -> None:
    """W3, S4: the session is ended behind the daemon's back; what changed meanwhile is found."""
    await other.do(Create("/a", b"1"))
    with Watcher(await hub.subscribe(subtree())) as watcher:
        await watcher.until(lambda: bool(watcher.snapshots))
        await world.refuse()
        await world.cut()
        await watcher.until(lambda: any(s.state is SessionState.LOST for s in watcher.statuses))
        await other.do(SetData("/a", b"2"))
        await world.accept()
        await watcher.until(lambda: watcher.data() == {"/a": b"2"})
        assert session.epoch == 2
        await other.do(Create("/a/b", b"3"))
        await watcher.until(lambda: watcher.data() == {"/a": b"2", "/a/b": b"3"})


async def test_a_stream_resumes_with_exactly_the_first_later_change(hub: Hub, other: Peer) -> None:
    """W4"""
    await other.do(Create("/a", b"0"))
    first = await hub.subscribe(subtree())
    with Watcher(first) as watcher:
        await watcher.until(lambda: bool(watcher.snapshots))
        await other.do(SetData("/a", b"1"))
        await watcher.until(lambda: watcher.data() == {"/a": b"1"})
        seen = watcher.zxid
    await other.do(Create("/a/b", b"2"))
    await other.do(SetData("/a/b", b"3"))
    with Watcher(await hub.subscribe(subtree(), resume=(hub.epoch_id, seen))) as watcher:
        await watcher.until(lambda: bool(watcher.cuts))
        assert watcher.snapshots == []
        assert types(watcher)[0] == (ChangeType.CREATED, "/a/b")
        await watcher.until(lambda: watcher.data() == {"/a/b": b"3"})


@pytest.mark.parametrize("resume", [("another history", 1), (None, 1), (None, 1 << 60)])
async def test_a_resume_point_outside_the_window_is_answered_with_a_snapshot(
    hub: Hub, other: Peer, resume: tuple[str | None, int]
) -> None:
    """W4, W3"""
    await other.do(Create("/a", b"0"))
    point = (resume[0] or hub.epoch_id, resume[1])
    with Watcher(await hub.subscribe(subtree(), resume=point)) as watcher:
        await watcher.until(lambda: bool(watcher.snapshots))
        assert watcher.snapshots[0].reason is SnapshotReason.RESUME_TOO_OLD


async def test_after_a_bookmark_nothing_older_follows(hub: Hub, other: Peer) -> None:
    """W5: the watcher checks it at every change."""
    await other.do(Create("/a", b"0"))
    with Watcher(await hub.subscribe(subtree(), bookmark_interval_s=0.01)) as watcher:
        for number in range(50):
            await other.do(SetData("/a", str(number).encode()))
            if number % 10 == 0:
                marked = watcher.bookmark
                await watcher.until(lambda: watcher.bookmark > marked)  # noqa: B023
        await watcher.until(lambda: watcher.data() == {"/a": b"49"})


class TestASmallWindow:
    @pytest.fixture
    def hub_settings(self) -> HubSettings:
        return HubSettings(window_size=10)

    async def test_a_subscriber_who_falls_behind_it_gets_a_new_snapshot_and_delays_nobody(
        self, hub: Hub, other: Peer
    ) -> None:
        """W3, W8"""
        await other.do(Create("/a"))
        sleeper = await hub.subscribe(subtree())
        first = await sleeper.next()
        with Watcher(await hub.subscribe(subtree())) as watcher:
            for number in range(40):
                await other.do(Create(f"/a/{number}", b"x"))
            await watcher.until(lambda: len(watcher.state) == 41)
            assert sleeper.pending() <= 10
            with Watcher(sleeper) as late:
                await late.until(lambda: late.data() == watcher.data())
                assert [chunk.reason for chunk in late.snapshots] == [SnapshotReason.OVERFLOW]
        assert first.zxid > 0


async def test_a_slow_subscriber_gets_the_newest_state_not_every_step(hub: Hub, other: Peer) -> None:
    """W8"""
    await other.do(Create("/a", b"0"))
    slow = await hub.subscribe(subtree())
    await slow.next()
    for number in range(200):
        await other.do(SetData("/a", str(number).encode()))
    with Watcher(await hub.subscribe(subtree())) as quick:
        await quick.until(lambda: quick.data() == {"/a": b"199"})
    assert slow.pending() == 1
    slow.close()


async def test_equal_targets_share_one_watch_and_the_last_to_leave_takes_it(
    hub: Hub, session: Session, other: Peer
) -> None:
    """W9"""
    await other.do(Create("/a"))
    await other.do(Create("/a/b"))
    targets = [subtree(), subtree(), (Target("/a/b", Scope.NODE),), (Target("/a", Scope.CHILDREN, False),)]
    subscriptions = [await hub.subscribe(target) for target in targets]
    assert hub.statistics().server_watches == {"persistent": 0, "persistent_recursive": 1}
    for subscription in subscriptions:
        subscription.close()
    await eventually(lambda: not sum(hub.statistics().server_watches.values()))
    await eventually(lambda: hub.statistics().cached_nodes == 0)


async def test_watches_below_move_to_a_subtree_watch_and_back(hub: Hub, other: Peer) -> None:
    """W9, W3: no change is lost on the way."""
    for path in ("/a", "/a/b", "/a/c"):
        await other.do(Create(path, b"0"))
    with (
        Watcher(await hub.subscribe((Target("/a/b", Scope.NODE),))) as b,
        Watcher(await hub.subscribe((Target("/a/c", Scope.NODE),))) as c,
    ):
        assert hub.statistics().server_watches == {"persistent": 2, "persistent_recursive": 0}
        above = await hub.subscribe(subtree())
        assert hub.statistics().server_watches == {"persistent": 0, "persistent_recursive": 1}
        await other.do(SetData("/a/b", b"1"))
        await b.until(lambda: b.data() == {"/a/b": b"1"})
        above.close()
        await eventually(lambda: not hub.statistics().server_watches["persistent_recursive"])
        await other.do(SetData("/a/b", b"2"))
        await other.do(SetData("/a/c", b"2"))
        await b.until(lambda: b.data() == {"/a/b": b"2"})
        await c.until(lambda: c.data() == {"/a/c": b"2"})
        assert hub.statistics().server_watches == {"persistent": 2, "persistent_recursive": 0}


async def test_several_targets_in_one_stream_are_one_cut(hub: Hub, other: Peer) -> None:
    """W6"""
    for path in ("/a", "/b"):
        await other.do(Create(path, b"0"))
    subscription = await hub.subscribe((Target("/a", Scope.NODE), Target("/b", Scope.NODE)))
    for _ in range(3):  # two snapshots and a bookmark
        await subscription.next()
    await other.do(Transaction((SetData("/a", b"1"), SetData("/b", b"1"))))
    async with asyncio.timeout(10):
        delivered = await subscription.next()
    assert [index for index, _ in delivered.cuts] == [0, 1]  # type: ignore[union-attr]
    subscription.close()


async def test_what_is_not_cached_cannot_be_subscribed_to_without_a_connection(
    hub: Hub, session: Session, world: World
) -> None:
    """S6"""
    await world.refuse()
    await world.cut()
    await eventually(lambda: not session.status.state.is_connected)
    with pytest.raises(SessionSuspended):
        await hub.subscribe(subtree("/never-seen"))
