"""Watches, mirrors and events through the SDK, a real daemon and real ZooKeeper."""

from __future__ import annotations

import asyncio
import random

import pytest
from kazoo.client import KazooClient

from tests.client.parts.mortal import MortalDaemon
from tests.parts.eventually import until
from zkside.client import (
    Acl,
    Changes,
    ChangeType,
    Client,
    EventType,
    Gap,
    GapReason,
    KeeperState,
    Scope,
    SessionState,
    Snapshot,
    Watch,
    WatchedEvent,
    WatchEvent,
    WatchKind,
)
from zkside.errors import InvalidPath, NoAuth, NoNode


async def next_event(watch: Watch) -> WatchEvent:
    async with asyncio.timeout(20):
        return await anext(watch)


async def test_a_watch_begins_with_the_state_and_goes_on_with_changes(
    client: Client, root: str, stock_client: KazooClient
) -> None:
    async with client.watch(f"{root}/a") as watch:
        first = await next_event(watch)
        assert isinstance(first, Snapshot)
        assert not first.nodes
        await asyncio.to_thread(stock_client.create, "/a", b"1")
        made = await next_event(watch)
        await asyncio.to_thread(stock_client.set, "/a", b"2")
        changed = await next_event(watch)
        await asyncio.to_thread(stock_client.delete, "/a")
        gone = await next_event(watch)
    told = []
    for event in (made, changed, gone):
        assert isinstance(event, Changes)
        told += [(change.type, change.node and change.node.data) for change in event.changes]
    assert told == [(ChangeType.CREATED, b"1"), (ChangeType.CHANGED, b"2"), (ChangeType.DELETED, None)]
    assert made.zxid < changed.zxid <= gone.zxid


async def test_the_changes_of_a_transaction_come_together(client: Client, root: str, stock_client: KazooClient) -> None:
    """W6"""
    async with client.watch(root, scope=Scope.SUBTREE) as watch:
        await next_event(watch)
        transaction = client.transaction()
        for number in range(1500):
            transaction.create(f"{root}/{number}", b"x" * 500)
        done = await transaction.commit()
        cut = await next_event(watch)
    assert isinstance(cut, Changes)
    assert len(cut.changes) == 1500
    assert {change.zxid for change in cut.changes} == {done.zxid}


async def test_a_process_watches_more_nodes_than_a_connection_has_streams(client: Client, root: str) -> None:
    """The daemon allows 200 streams and calls of one connection; gRPC would wait with the others without a word."""
    watches = [client.watch(f"{root}/{number}") for number in range(250)]
    for watch in watches:
        assert isinstance(await next_event(watch), Snapshot)
    await client.create(f"{root}/249", b"1")
    assert isinstance(await next_event(watches[249]), Changes)
    for watch in watches:
        watch.close()


async def test_a_hundred_subscribers_of_a_process_share_one_stream(client: Client, root: str) -> None:
    await client.create(f"{root}/a", b"0")
    watches = [client.watch(f"{root}/a") for _ in range(100)]
    for watch in watches:
        assert isinstance(await next_event(watch), Snapshot)
    written = await client.set(f"{root}/a", b"1")
    for watch in watches:
        event = await next_event(watch)
        assert isinstance(event, Changes)
        assert event.zxid == written.zxid
    streams = [info for info in await client.admin.streams() if info.method.endswith("Watch")]
    subscribed = [info for info in await client.admin.watches() if info.path == f"{root}/a"]
    assert len(streams) == 1
    assert [info.subscribers for info in subscribed] == [1]
    for watch in watches:
        watch.close()


async def test_a_watch_goes_on_when_the_daemon_was_killed(mortal: MortalDaemon, mortal_client: Client) -> None:
    """W1, W2, W3 over kill -9: the newest state arrives, nothing twice, nothing backwards."""
    client = mortal_client
    await client.create("/a", b"0")
    async with client.watch("/", scope=Scope.SUBTREE) as watch:
        seen: dict[str, bytes] = {}
        zxid = 0
        for life in range(3):
            for number in range(10):
                await client.set("/a", b"%d.%d" % (life, number), wait_for_ready=True)
            last = await client.create(f"/made-in-{life}", b"x", wait_for_ready=True)
            while seen.get(f"/made-in-{life}") is None or seen.get("/a") != b"%d.9" % life:
                event = await next_event(watch)
                if isinstance(event, Snapshot):
                    assert event.zxid >= zxid
                    seen = {path: node.data for path, node in event.nodes.items()}
                elif isinstance(event, Changes):
                    assert event.zxid > zxid, "a cut came twice, or went back"
                    for change in event.changes:
                        assert (change.type is ChangeType.CREATED) <= (change.path not in seen)
                        if change.node is not None:
                            seen[change.path] = change.node.data
                zxid = event.zxid
            assert zxid >= last.zxid
            await mortal.kill()
            await mortal.start()


async def test_an_orderly_restart_of_the_daemon_is_no_end_of_a_watch(
    mortal: MortalDaemon, mortal_client: Client
) -> None:
    async with mortal_client.watch("/a") as watch:
        await next_event(watch)
        assert await mortal.stop() == 0
        await mortal.start()
        await mortal_client.create("/a", b"x", wait_for_ready=True)
        while True:
            event = await next_event(watch)
            if isinstance(event, Snapshot) and "/a" in event.nodes:
                break
            if isinstance(event, Changes):
                assert event.changes[0].path == "/a"
                break


async def test_a_drained_daemon_and_its_successor_are_no_end_of_a_watch(
    mortal: MortalDaemon, mortal_client: Client
) -> None:
    async with mortal_client.watch("/a") as watch, mortal_client.mirror("/") as mirror:
        await next_event(watch)
        async with asyncio.timeout(20):
            drained = await mortal_client.admin.drain()
        assert drained.ended_streams == 2
        await until(lambda: watch.stale and mirror.stale)  # nothing orders their ends and the answer
        await mortal.stop()
        await mortal.start()
        await mortal_client.create("/a", b"x", wait_for_ready=True)
        async with asyncio.timeout(20):
            while "/a" not in mirror:
                await anext(mirror.changes())


async def test_a_mirror_converges_under_churn_and_a_killed_daemon(mortal: MortalDaemon, mortal_client: Client) -> None:
    client, chance = mortal_client, random.Random(7)
    await client.create("/m")
    async with client.mirror("/m") as mirror:
        for life in range(2):
            async with client.pipeline() as pipeline:
                writes = []
                for _ in range(300):
                    path = f"/m/{chance.randrange(40)}"
                    data = b"%d" % chance.randrange(10**6)
                    writes.append(
                        chance.choice(
                            (
                                lambda path, data: pipeline.create(path, data),
                                lambda path, data: pipeline.set(path, data),
                                lambda path, data: pipeline.delete(path),
                            )
                        )(path, data)
                    )
            await asyncio.gather(*writes, return_exceptions=True)
            if life == 0:
                await mortal.kill()
                await mortal.start()
            await client.create(f"/m/last-{life}", wait_for_ready=True)
            changes = mirror.changes()
            async with asyncio.timeout(20):
                while f"/m/last-{life}" not in mirror:
                    await anext(changes)
            truth = await client.children("/m", with_nodes=True)
            assert mirror.children("/m") == list(truth.names)
            for name, node in truth.nodes.items():
                mirrored = mirror.get(f"/m/{name}")
                assert mirrored is not None
                assert (mirrored.data, mirrored.stat) == (node.data, node.stat)
            assert not mirror.stale
            assert mirror.age_s == 0.0


async def test_a_mirror_without_a_daemon_is_readable_and_stale(mortal: MortalDaemon, mortal_client: Client) -> None:
    await mortal_client.create("/a", b"x")
    async with mortal_client.mirror("/a") as mirror, mortal_client.watch("/a") as watch:
        await next_event(watch)
        assert not mirror.stale
        await mortal.kill()
        lost = mortal_client.watch("/b")
        with pytest.raises(Exception, match="daemon"):
            await next_event(lost)
        node = mirror.get("/a")
        assert node is not None
        assert node.data == b"x"
        assert mirror.stale
        assert mirror.age_s > 0


async def test_a_refused_watch_says_why(client: Client) -> None:
    with pytest.raises(InvalidPath, match="empty name"):
        await anext(client.watch("/a//b"))
    with pytest.raises(InvalidPath):
        async with client.mirror("no/slash"):
            pass


async def test_events_are_those_of_zookeeper(client: Client, root: str, stock_client: KazooClient) -> None:
    """W10"""
    async with client.watch_events(f"{root}/a", kind=WatchKind.EXISTS) as events:
        async with asyncio.timeout(20):
            first = await anext(events)
            assert isinstance(first, WatchedEvent)
            assert (first.type, first.state) == (EventType.NONE, KeeperState.SYNC_CONNECTED)
            await asyncio.to_thread(stock_client.create, "/a", b"")
            await asyncio.to_thread(stock_client.set, "/a", b"1")
            await asyncio.to_thread(stock_client.delete, "/a")
            told = [await anext(events) for _ in range(3)]
    assert [event.type for event in told if isinstance(event, WatchedEvent)] == [
        EventType.NODE_CREATED,
        EventType.NODE_DATA_CHANGED,
        EventType.NODE_DELETED,
    ]


async def test_a_one_shot_watch_ends_with_its_event(client: Client, root: str) -> None:
    """W10"""
    await client.create(f"{root}/a")
    async with client.watch_events(f"{root}/a", kind=WatchKind.DATA, one_shot=True) as events:
        async with asyncio.timeout(20):
            await anext(events)  # the session's state: the watch is set
            await client.set(f"{root}/a", b"1")
            await client.set(f"{root}/a", b"2")
            assert [event.type async for event in events if isinstance(event, WatchedEvent)] == [
                EventType.NODE_DATA_CHANGED
            ]


async def test_a_data_watch_on_an_absent_node_is_refused(client: Client, root: str) -> None:
    """W10"""
    events = client.watch_events(f"{root}/absent", kind=WatchKind.DATA)
    with pytest.raises(NoNode):
        async with asyncio.timeout(20):
            await anext(events)


async def test_a_killed_daemon_is_a_gap_in_the_events(mortal: MortalDaemon, mortal_client: Client) -> None:
    await mortal_client.create("/a")
    heard: asyncio.Queue[object] = asyncio.Queue()
    mortal_client.watch_events("/a", on_event=heard.put_nowait)
    async with asyncio.timeout(20):
        await heard.get()  # the session's state: the watch is set
        await mortal.kill()
        await mortal.start()
        while not isinstance(event := await heard.get(), Gap):
            pass
        assert event.reason is GapReason.DISCONNECTED
        await mortal_client.set("/a", b"2", wait_for_ready=True)
        while (event := await heard.get()) is not None:
            if isinstance(event, WatchedEvent) and event.type is EventType.NODE_DATA_CHANGED:
                break


async def test_the_session_is_watched_over_a_restart(mortal: MortalDaemon, mortal_client: Client) -> None:
    async with mortal_client.watch_session() as sessions, asyncio.timeout(20):
        first = await anext(sessions)
        assert first.state is SessionState.CONNECTED
        await mortal.kill()
        await mortal.start()
        async for session in sessions:
            if session.state is SessionState.CONNECTED:
                break
        assert session.session_id == first.session_id, "the journal keeps the session"


async def test_what_may_not_be_read_is_told_apart_from_what_is_absent(client: Client, root: str) -> None:
    """V3: in a watch, in a mirror, in a list, and when it comes and goes."""
    theirs = [Acl(31, "digest", "them:uQXq6aGuxLlMhPUCkLwqwL3EIsM=")]
    path = f"{root}/v3"
    await client.create(f"{path}/open", b"1", make_parents=True)
    await client.create(f"{path}/secret", b"2", acl=theirs)
    async with client.watch(path, scope=Scope.SUBTREE) as watch, client.mirror(path) as mirror:
        snapshot = await anext(watch)
        assert isinstance(snapshot, Snapshot)
        assert set(snapshot.nodes) == {path, f"{path}/open"}
        assert snapshot.unreadable == {f"{path}/secret"}
        assert mirror.children(path) == ["open", "secret"]
        assert f"{path}/secret" in mirror
        assert f"{path}/secret" not in mirror.nodes
        with pytest.raises(NoAuth):
            mirror.get(f"{path}/secret")
        listed = await client.children(path, with_nodes=True)
        assert (listed.names, set(listed.nodes)) == (("open", "secret"), {"open"})
        assert listed.unreadable == {"secret"}
        await client.set_acl(f"{path}/open", theirs)
        changes = await anext(watch)
        assert isinstance(changes, Changes)
        assert [(each.type, each.path, each.node) for each in changes.changes] == [
            (ChangeType.UNREADABLE, f"{path}/open", None)
        ]
        assert mirror.unreadable == {f"{path}/open", f"{path}/secret"}
        assert mirror.children(path) == ["open", "secret"]
