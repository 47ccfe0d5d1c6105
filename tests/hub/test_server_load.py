"""What the real server sees of a hub: its own counts of watches and requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from tests.contract.world import Peer
from tests.hub.watcher import Watcher, eventually
from zkside.cli.zookeeper import Installation, ZooKeeperServer
from zkside.hub.hub import Hub, HubSettings
from zkside.model.operation import Create, Delete, SetData
from zkside.model.watch import EventTarget, Scope, Target, WatchKind
from zkside.zk.kazoo import KazooSettings, kazoo_connector
from zkside.zk.session import Session, SessionSettings


def watched_paths(server: ZooKeeperServer) -> list[str]:
    """The paths with a watch, by the server's own account (`wchp`)."""
    return [line for line in server.four_letter("wchp").splitlines() if line.startswith("/")]


@asynccontextmanager
async def hub_on(server: ZooKeeperServer) -> AsyncIterator[tuple[Hub, Peer]]:
    connector = kazoo_connector(KazooSettings(server.hosts))
    session = Session(connector, SessionSettings())
    session.start()
    await session.wait_connected()
    hub = Hub(session, HubSettings(idle_eviction_s=0.3))
    hub.start()
    other = Peer()
    other.connection = connector(other, None)
    other.connection.start()
    await other.wait_for("connected")
    yield hub, other
    await hub.close()
    await other.connection.close(within_s=2.0)
    await session.close(keep_session=False, within_s=2.0)


async def test_the_server_has_one_watch_for_any_number_of_subscribers_and_none_after_the_last(
    own_zookeeper: ZooKeeperServer,
) -> None:
    """W9"""
    async with hub_on(own_zookeeper) as (hub, other):
        for path in ("/a", "/a/b", "/z"):
            await other.do(Create(path, b"0"))
        streams = [await hub.subscribe((Target("/a", Scope.SUBTREE),)) for _ in range(50)]
        streams += [await hub.subscribe((Target("/a/b", Scope.NODE, False),)) for _ in range(50)]
        events = [await hub.subscribe_events((EventTarget("/z", WatchKind.EXISTS),)) for _ in range(50)]
        assert sorted(await asyncio.to_thread(watched_paths, own_zookeeper)) == ["/a", "/z"]
        before = hub.reader.rounds
        await other.do(SetData("/a/b", b"1"))
        for stream in streams[50:]:
            with Watcher(stream) as watcher:
                await watcher.until(lambda: watcher.data() == {"/a/b": b"1"} or bool(watcher.cuts))
        assert hub.reader.rounds - before == 1, "one read for one change"
        for stream in streams[:50]:
            stream.close()
        for event_stream in events:
            event_stream.close()
        await eventually(lambda: not sum(hub.statistics().server_watches.values()))
        await eventually(lambda: watched_paths(own_zookeeper) == [])


@pytest.fixture
def old_server(zookeeper_installation: Installation) -> Iterator[ZooKeeperServer]:
    """A server that refuses persistent watches, as those before 3.6 do."""
    flag = "-Dzookeeper.watchManagerName=org.apache.zookeeper.server.watch.WatchManagerOptimized"
    with ZooKeeperServer(zookeeper_installation, tick_ms=200, jvm_flags=(flag,)) as server:
        yield server


async def test_a_server_without_persistent_watches_serves_all_the_same(old_server: ZooKeeperServer) -> None:
    """W3, W9, W10: by one-shot watches that are set again and again."""
    async with hub_on(old_server) as (hub, other):
        await other.do(Create("/a", b"0"))
        events = await hub.subscribe_events((EventTarget("/a/x", WatchKind.EXISTS),))
        with Watcher(await hub.subscribe((Target("/a", Scope.SUBTREE),))) as watcher:
            for number in range(30):
                await other.do(Create("/a/x", b"%d" % number))
                await other.do(Create("/a/x/deep", b"%d" % number))
                await watcher.until(lambda: watcher.data().get("/a/x/deep") == b"%d" % number)  # noqa: B023
                await other.do(Delete("/a/x/deep"))
                await other.do(Delete("/a/x"))
                await watcher.until(lambda: watcher.data() == {"/a": b"0"})
        assert events.pending() >= 60
        events.close()
