"""EVENTS subscriptions: ZooKeeper's own events."""

from __future__ import annotations

import asyncio

import pytest

from tests.contract.world import Peer, World
from tests.hub.watcher import eventually
from zkside.errors import NoNode
from zkside.hub.events import Events, EventSubscription, Gap, GapReason
from zkside.hub.hub import Hub, HubSettings
from zkside.model.event import EventType, KeeperState
from zkside.model.operation import Create, Delete, Operation, SetData
from zkside.model.watch import EventTarget, Scope, Target, WatchKind
from zkside.zk.session import Session

CREATED, DELETED = EventType.NODE_CREATED, EventType.NODE_DELETED
DATA, CHILDREN = EventType.NODE_DATA_CHANGED, EventType.NODE_CHILDREN_CHANGED

STORY: list[Operation[object]] = [
    SetData("/a", b"1"),
    Create("/a/b"),
    SetData("/a/b", b"1"),
    Delete("/a/b"),
    Delete("/a"),
    Create("/a"),
]

TOLD = {
    WatchKind.EXISTS: [(DATA, "/a"), (DELETED, "/a"), (CREATED, "/a")],
    WatchKind.DATA: [(DATA, "/a"), (DELETED, "/a")],
    WatchKind.CHILDREN: [(CHILDREN, "/a"), (CHILDREN, "/a"), (DELETED, "/a")],
    WatchKind.PERSISTENT: [(DATA, "/a"), (CHILDREN, "/a"), (CHILDREN, "/a"), (DELETED, "/a"), (CREATED, "/a")],
    WatchKind.PERSISTENT_RECURSIVE: [
        (DATA, "/a"),
        (CREATED, "/a/b"),
        (DATA, "/a/b"),
        (DELETED, "/a/b"),
        (DELETED, "/a"),
        (CREATED, "/a"),
    ],
}
"""What each kind reports of the story. Source: ZooKeeper Programmer's Guide, "Semantics of Watches"."""


async def told(subscription: EventSubscription, until: tuple[EventType, str]) -> list[tuple[EventType, str]]:
    """All events up to a certain one, but for those of the session."""
    seen: list[tuple[EventType, str]] = []
    async with asyncio.timeout(15):
        while until not in seen:
            delivered = await subscription.next()
            assert isinstance(delivered, Events)
            seen += [(e.type, e.path) for _, e in delivered.events if e.type is not EventType.NONE]
    return seen


@pytest.mark.parametrize("above", [False, True], ids=["own watch", "watch above"])
@pytest.mark.parametrize("kind", list(WatchKind))
async def test_each_kind_reports_what_zookeeper_would(hub: Hub, other: Peer, kind: WatchKind, above: bool) -> None:
    """W10: whether the path has a watch of its own or lives on a recursive one above it."""
    await other.do(Create("/a"))
    subtree = await hub.subscribe((Target("/", Scope.SUBTREE),)) if above else None
    targets = (EventTarget("/a", kind), EventTarget("/end", WatchKind.EXISTS))
    subscription = await hub.subscribe_events(targets)
    for step in STORY:
        await other.do(step)
    await other.do(Create("/end"))
    seen = await told(subscription, (CREATED, "/end"))
    assert seen == [*TOLD[kind], (CREATED, "/end")]
    subscription.close()
    if subtree is not None:
        subtree.close()


@pytest.mark.parametrize("kind", [WatchKind.EXISTS, WatchKind.DATA, WatchKind.CHILDREN])
async def test_a_one_shot_watch_ends_with_its_first_event(hub: Hub, other: Peer, kind: WatchKind) -> None:
    """W10"""
    await other.do(Create("/a"))
    subscription = await hub.subscribe_events((EventTarget("/a", kind, one_shot=True),))
    for step in STORY:
        await other.do(step)
    assert await told(subscription, TOLD[kind][0]) == TOLD[kind][:1]
    assert await subscription.next() is None
    subscription.close()


@pytest.mark.parametrize("kind", [WatchKind.DATA, WatchKind.CHILDREN])
async def test_getdata_and_getchildren_watches_need_a_node(hub: Hub, kind: WatchKind) -> None:
    """W10"""
    with pytest.raises(NoNode):
        await hub.subscribe_events((EventTarget("/absent", kind),))
    assert hub.statistics().subscribers == 0


async def test_the_first_event_tells_the_state_and_changes_of_it_follow(hub: Hub, world: World) -> None:
    """W10, S2"""
    subscription = await hub.subscribe_events((EventTarget("/a", WatchKind.EXISTS),))
    states: list[KeeperState] = []
    async with asyncio.timeout(15):
        while len(states) < 1:
            states += await states_of(subscription)
        await world.cut()
        while len(states) < 3:
            states += await states_of(subscription)
    assert states == [KeeperState.SYNC_CONNECTED, KeeperState.DISCONNECTED, KeeperState.SYNC_CONNECTED]
    subscription.close()


async def states_of(subscription: EventSubscription) -> list[KeeperState]:
    delivered = await subscription.next()
    return [e.state for _, e in delivered.events if e.type is EventType.NONE] if isinstance(delivered, Events) else []


async def test_what_was_missed_while_disconnected_follows_a_gap(hub: Hub, other: Peer, world: World) -> None:
    """W10, W3"""
    for path in ("/a", "/a/set", "/a/go"):
        await other.do(Create(path))
    subscription = await hub.subscribe_events((EventTarget("/a", WatchKind.PERSISTENT_RECURSIVE),))
    await subscription.next()
    await world.refuse()
    await world.cut()
    async with asyncio.timeout(15):
        while await states_of(subscription) != [KeeperState.DISCONNECTED]:
            pass
        await other.do(SetData("/a/set", b"1"))
        await other.do(Delete("/a/go"))
        await other.do(Create("/a/new"))
        await world.accept()
        while not isinstance(delivered := await subscription.next(), Gap):
            pass
        assert delivered.reason is GapReason.DISCONNECTED
    assert sorted(await told(subscription, (CREATED, "/a/new")), key=str) == [
        (CREATED, "/a/new"),
        (DATA, "/a/set"),
        (DELETED, "/a/go"),
    ]
    subscription.close()


class TestASmallQueue:
    @pytest.fixture
    def hub_settings(self) -> HubSettings:
        return HubSettings(event_queue_size=10)

    async def test_an_overflow_is_announced_and_nobody_else_is_delayed(self, hub: Hub, other: Peer) -> None:
        """W3, W8"""
        await other.do(Create("/a"))
        sleeper = await hub.subscribe_events((EventTarget("/a", WatchKind.PERSISTENT),))
        reader = await hub.subscribe_events((EventTarget("/a", WatchKind.PERSISTENT),))
        await reader.next()
        for number in range(30):
            await other.do(SetData("/a", str(number).encode()))
            async with asyncio.timeout(15):
                assert isinstance(await reader.next(), Events)
        assert sleeper.pending() <= 11
        gap = await sleeper.next()
        assert isinstance(gap, Gap)
        assert gap.reason is GapReason.OVERFLOW
        assert gap.dropped > 0
        sleeper.close()
        reader.close()


async def test_a_backlog_of_long_paths_comes_in_messages_that_a_client_can_receive(hub: Hub, other: Peer) -> None:
    """O1: gRPC's clients refuse messages of more than 4 MiB."""
    path = "/" + "x" * 40_000
    await other.do(Create(path))
    subscription = await hub.subscribe_events((EventTarget(path, WatchKind.PERSISTENT),))
    await subscription.next()
    for number in range(200):
        other.call(SetData(path, b"%d" % number))
    await other.do(Delete(path))
    await eventually(lambda: subscription.pending() == 201)
    sizes = []
    while subscription.pending():
        delivered = await subscription.next()
        assert isinstance(delivered, Events)
        sizes.append(sum(len(event.path) for _, event in delivered.events))
    assert sum(sizes) == 201 * len(path)
    assert max(sizes) < 2 * 1024 * 1024
    subscription.close()


def never(error: Exception) -> None:
    raise error


async def test_the_end_of_a_node_is_told_once_even_if_another_has_taken_its_place(
    hub: Hub, other: Peer, world: World
) -> None:
    """H5: what a hold relies on."""
    created = await other.do(Create("/a"))
    assert created.stat is not None
    gone = asyncio.Event()
    hub.on_deleted("/a", created.stat.czxid, gone.set, on_failed=never)
    await other.do(SetData("/a", b"still there"))
    await world.refuse()
    await world.cut()
    await other.do(Delete("/a"))
    await other.do(Create("/a"))
    assert not gone.is_set()
    await world.accept()
    async with asyncio.timeout(15):
        await gone.wait()


async def test_the_end_of_a_node_that_goes_while_its_watch_is_set_is_told(hub: Hub, session: Session) -> None:
    """H5: the event comes between the watch and the first read, and the table never had the node."""
    for attempt in range(60):
        path = f"/a{attempt}"
        created = (await session.call(Create(path))).value
        assert created.stat is not None
        gone = asyncio.Event()
        hub.on_deleted(path, created.stat.czxid, gone.set, on_failed=never)
        for _ in range(attempt % 12):
            await asyncio.sleep(0)
        await session.call(Delete(path))
        async with asyncio.timeout(15):
            await gone.wait()
