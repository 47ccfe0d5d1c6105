"""ZooKeeper's history goes back: it is wiped, or restored from an older copy of its data."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from kazoo.client import KazooClient
from kazoo.security import make_digest_acl

from tests.hub.watcher import Watcher, eventually
from tests.parts.proxy import Proxy
from zkside.cli.zookeeper import ZooKeeperServer
from zkside.errors import HistoryChanged
from zkside.hub.events import Events, EventSubscription
from zkside.hub.hub import Hub, HubSettings
from zkside.hub.reads import Consistency, Freshness
from zkside.hub.subscription import SnapshotReason
from zkside.model import record
from zkside.model.event import EventType
from zkside.model.operation import Create, CreateMode
from zkside.model.session import SessionState
from zkside.model.watch import EventTarget, Scope, Target, WatchKind
from zkside.zk.journal import Journal
from zkside.zk.kazoo import KazooSettings, kazoo_connector
from zkside.zk.session import Session, SessionSettings

TIMEOUT_S = 2.0
CACHED = Freshness(Consistency.CACHED)
TARGET = (Target("/t", Scope.SUBTREE),)


@asynccontextmanager
async def host(
    server: ZooKeeperServer | Proxy, state_dir: Path | None = None, *, keep: bool = True, max_reply_bytes: int = 1 << 26
) -> AsyncIterator[Hub]:
    """A session and a hub on the server, as a daemon has them."""
    settings = KazooSettings(server.hosts, session_timeout_s=TIMEOUT_S, max_reply_bytes=max_reply_bytes)
    connector = kazoo_connector(settings)
    journal = Journal.open(state_dir, server.hosts) if state_dir is not None else None
    session = Session(connector, SessionSettings(timeout_s=TIMEOUT_S), journal)
    hub = Hub(session, HubSettings(state_dir=state_dir))
    hub.start()
    session.start()
    try:
        await session.wait_connected()
        yield hub
    finally:
        await hub.close()
        await session.close(keep_session=keep, within_s=1.0)


def write(server: ZooKeeperServer, *datas: bytes, path: str = "/t") -> None:
    """Somebody else makes the node, or sets it, once for each."""
    client = KazooClient(server.hosts)
    client.start(timeout=30)
    for data in datas:
        if client.exists(path):
            client.set(path, data)
        else:
            client.create(path, data)
    client.stop()
    client.close()


def wipe(server: ZooKeeperServer) -> None:
    server.kill()
    shutil.rmtree(server.directory / "data")
    server.start()


async def new_history(hub: Hub, former: str) -> None:
    """Wait until everything that the hub keeps is of another history than the one of this epoch_id."""
    await eventually(lambda: hub.epoch_id != former)
    assert hub.session.history.number == 2


async def test_a_stream_goes_on_in_the_new_history_with_a_snapshot_that_says_so(
    own_zookeeper: ZooKeeperServer, caplog: pytest.LogCaptureFixture
) -> None:
    """V2, W3: a live stream and one that resumes; header zxids and bookmarks start anew."""
    await asyncio.to_thread(write, own_zookeeper, *[b"old"] * 30)
    async with host(own_zookeeper) as hub:
        former = hub.epoch_id
        with Watcher(await hub.subscribe(TARGET)) as watcher:
            await watcher.until(lambda: watcher.data() == {"/t": b"old"})
            before = (hub.epoch_id, hub.reader.settled_zxid)
            with caplog.at_level(logging.ERROR, "zkside"):
                await asyncio.to_thread(wipe, own_zookeeper)
                await asyncio.to_thread(write, own_zookeeper, b"1", b"2")
                await new_history(hub, former)
            await watcher.until(lambda: watcher.data() == {"/t": b"2"})
            assert watcher.snapshots[-1].reason is SnapshotReason.HISTORY_CHANGED
            assert hub.session.last_zxid < before[1]
            assert "ZooKeeper's history went back" in caplog.text
            await asyncio.to_thread(write, own_zookeeper, b"3")
            await watcher.until(lambda: watcher.data() == {"/t": b"3"})
            assert len(watcher.snapshots) == 2, "what follows is changes"
        with Watcher(await hub.subscribe(TARGET, resume=before)) as resumed:
            await resumed.until(lambda: resumed.data() == {"/t": b"3"})
            assert resumed.snapshots[0].reason is SnapshotReason.HISTORY_CHANGED
        point = (hub.epoch_id, hub.reader.settled_zxid)
        await asyncio.to_thread(write, own_zookeeper, b"4")
        again = Watcher(await hub.subscribe(TARGET, resume=point))
        again.state.update(resumed.state)
        with again:
            await again.until(lambda: again.data() == {"/t": b"4"})
            assert again.snapshots == [], "the new history has resume points of its own"
        assert hub.session.statistics().history_changes == 1


async def test_reads_that_ask_for_a_zxid_of_before_are_refused_and_say_why(own_zookeeper: ZooKeeperServer) -> None:
    """V2, R2: neither answered from the old cache, nor TOO_STALE for ever; one of the new history is served."""
    await asyncio.to_thread(write, own_zookeeper, *[b"old"] * 30)
    async with host(own_zookeeper) as hub:
        former = hub.epoch_id
        old = await hub.reads.get("/t", CACHED)
        await asyncio.to_thread(wipe, own_zookeeper)
        await asyncio.to_thread(write, own_zookeeper, b"new")
        await new_history(hub, former)
        new = await hub.reads.get("/t", CACHED)
        assert record.data(new.value) == b"new"
        assert new.zxid < old.zxid
        for consistency in Consistency:
            assert record.data((await hub.reads.get("/t", Freshness(consistency, min_zxid=new.zxid))).value) == b"new"
            with pytest.raises(HistoryChanged, match="history of ZooKeeper that is over"):
                await hub.reads.get("/t", Freshness(consistency, min_zxid=old.zxid))


async def of_nodes(subscription: EventSubscription, number: int) -> list[EventType]:
    """The first events that are not the session's."""
    heard: list[EventType] = []
    async with asyncio.timeout(15):
        while len(heard) < number:
            delivered = await subscription.next()
            if isinstance(delivered, Events):
                heard += [event.type for _, event in delivered.events if event.type is not EventType.NONE]
    return heard


async def wiped_while_away(proxy: Proxy, server: ZooKeeperServer, hub: Hub, *datas: bytes, path: str) -> None:
    """Emptied and written to before the daemon is back: the transactions are the very same as at the beginning."""
    former = hub.epoch_id
    proxy.refuse()
    proxy.cut()
    await asyncio.to_thread(wipe, server)
    await asyncio.to_thread(write, server, *datas, path=path)
    await eventually(lambda: hub.session.status.state in (SessionState.LOST, SessionState.CONNECTING))
    proxy.accept()
    await new_history(hub, former)


async def test_a_node_with_the_very_same_zxids_is_seen_to_be_another(own_zookeeper: ZooKeeperServer) -> None:
    """V2, W10: the same transactions in the same order, with other data."""
    await asyncio.to_thread(write, own_zookeeper, b"old", b"old")
    await asyncio.to_thread(write, own_zookeeper, *[b""] * 30, path="/later")
    with Proxy(own_zookeeper.port) as proxy:
        async with host(proxy) as hub:
            before = await hub.reads.get("/t", CACHED)
            with Watcher(await hub.subscribe(TARGET)) as watcher:
                await watcher.until(lambda: watcher.data() == {"/t": b"old"})
                events = await hub.subscribe_events((EventTarget("/t", WatchKind.PERSISTENT, False),))
                await wiped_while_away(proxy, own_zookeeper, hub, b"new", b"new", path="/t")
                await watcher.until(lambda: watcher.data() == {"/t": b"new"})
                assert await of_nodes(events, 2) == [EventType.NODE_DELETED, EventType.NODE_CREATED]
                events.close()
                after = await hub.reads.get("/t", CACHED)
            assert record.zxids(after.value) == record.zxids(before.value), "or this test shows nothing"


async def test_children_that_came_by_the_very_same_transactions_are_seen_to_be_others(
    own_zookeeper: ZooKeeperServer,
) -> None:
    """V2: the parent's pzxid is what it was, and so it would not be asked for its children; nor is `/` written anew."""
    await asyncio.to_thread(write, own_zookeeper, *[b""] * 30, path="/old")
    with Proxy(own_zookeeper.port) as proxy:
        async with host(proxy) as hub:
            before = await hub.reads.get("/", CACHED)
            with Watcher(await hub.subscribe((Target("/", Scope.CHILDREN),))) as watcher:
                await watcher.until(lambda: set(watcher.data()) == {"/", "/old", "/zookeeper"})
                await wiped_while_away(proxy, own_zookeeper, hub, b"", path="/new")
                await watcher.until(lambda: set(watcher.data()) == {"/", "/new", "/zookeeper"})
                assert (await hub.reads.children("/", CACHED)).value.names == ["new", "zookeeper"]
                after = await hub.reads.get("/", CACHED)
            assert after.value == before.value, "or this test shows nothing"


@pytest.mark.parametrize("still", [False, True])
async def test_what_could_not_be_read_in_the_old_history_is_as_it_is_in_the_new_one(
    own_zookeeper: ZooKeeperServer, still: bool
) -> None:
    """V2, V3: a node that an ACL hid, and one too large for an answer; in the new history both again, or neither."""
    most = 64 * 1024

    def make(is_hidden: bool) -> None:
        write(own_zookeeper, b"root")
        write(own_zookeeper, b"x" * (2 * most if is_hidden else 1), path="/t/large")
        client = KazooClient(own_zookeeper.hosts)
        client.start(timeout=30)
        client.create("/t/secret", b"s", acl=[make_digest_acl("them", "s", all=True)] if is_hidden else None)
        client.stop()
        client.close()

    await asyncio.to_thread(make, True)
    await asyncio.to_thread(write, own_zookeeper, *[b""] * 30, path="/later")
    async with host(own_zookeeper, max_reply_bytes=most) as hub:
        former = hub.epoch_id
        with Watcher(await hub.subscribe(TARGET)) as watcher:
            await watcher.until(lambda: bool(watcher.snapshots))
            assert (watcher.unreadable, hub.statistics().unreadable) == ({"/t/secret"}, 1)
            assert watcher.subscription.is_stale()
            await asyncio.to_thread(wipe, own_zookeeper)
            await asyncio.to_thread(make, still)
            await new_history(hub, former)
            if still:
                await watcher.until(lambda: watcher.unreadable == {"/t/secret"} and watcher.data() == {"/t": b"root"})
                await eventually(lambda: hub.statistics().unreadable == 1)
                assert watcher.subscription.is_stale()
                await asyncio.to_thread(write, own_zookeeper, b"x", path="/t/large")
                await watcher.until(lambda: watcher.data() == {"/t": b"root", "/t/large": b"x"})
            else:
                everything = {"/t": b"root", "/t/large": b"x", "/t/secret": b"s"}
                await watcher.until(lambda: watcher.data() == everything and not watcher.unreadable)
            await eventually(lambda: not watcher.subscription.is_stale())
            assert hub.statistics().unreadable == 0


async def test_an_older_snapshot_that_has_overtaken_what_was_seen_is_found_out_by_its_nodes(
    own_zookeeper: ZooKeeperServer, tmp_path: Path
) -> None:
    """V2: restored, and written to until its zxids are greater than all that were seen."""
    await asyncio.to_thread(write, own_zookeeper, b"1")
    own_zookeeper.kill()
    data = own_zookeeper.directory / "data"
    shutil.copytree(data, tmp_path / "data")
    own_zookeeper.start()
    async with host(own_zookeeper) as hub:
        former = hub.epoch_id
        with Watcher(await hub.subscribe(TARGET)) as watcher:
            await asyncio.to_thread(write, own_zookeeper, *[b"undone"] * 5)
            await watcher.until(lambda: watcher.data() == {"/t": b"undone"})
            seen = hub.session.last_zxid
            own_zookeeper.kill()
            with ZooKeeperServer(own_zookeeper.installation, directory=tmp_path) as restored:
                await asyncio.to_thread(write, restored, *[b"x"] * 40, path="/other")
            shutil.rmtree(data)
            shutil.copytree(tmp_path / "data", data)
            own_zookeeper.start()
            await new_history(hub, former)
            await watcher.until(lambda: watcher.data() == {"/t": b"1"})
            assert watcher.snapshots[-1].reason is SnapshotReason.HISTORY_CHANGED
            assert hub.session.last_zxid > seen


async def test_the_next_daemon_finds_out_what_happened_while_there_was_none(
    own_zookeeper: ZooKeeperServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """V2, S5: it begins a new session within one timeout, with a log line, and what it kept on disk is compared."""
    await asyncio.to_thread(write, own_zookeeper, *[b"old"] * 30)
    async with host(own_zookeeper, tmp_path) as hub:
        await hub.reads.get("/t", CACHED)
        await hub.session.call(Create("/own", mode=CreateMode.EPHEMERAL))
        before = hub.session.status
    await asyncio.to_thread(wipe, own_zookeeper)
    await asyncio.to_thread(write, own_zookeeper, b"new")
    with caplog.at_level(logging.ERROR, "zkside"):
        async with host(own_zookeeper, tmp_path) as hub:
            assert (hub.session.history.number, hub.session.epoch) == (2, before.epoch + 1)
            assert "ZooKeeper's history went back" in caplog.text
            await eventually(lambda: hub.statistics().cache_age_s == 0)
            assert record.data((await hub.reads.get("/t", CACHED)).value) == b"new"
            with pytest.raises(HistoryChanged):
                await hub.reads.get("/t", Freshness(min_zxid=hub.session.history.former_zxid))
    async with host(own_zookeeper, tmp_path, keep=False) as hub:
        assert hub.session.history.number == 2, "the journal goes on with it"
        assert hub.session.statistics().history_changes == 0


async def test_a_new_session_in_the_same_history_is_no_new_history(own_zookeeper: ZooKeeperServer) -> None:
    """V2: an expired session, and a server that was started again with its data."""
    await asyncio.to_thread(write, own_zookeeper, b"1")
    async with host(own_zookeeper) as hub:
        with Watcher(await hub.subscribe(TARGET)) as watcher:
            await watcher.until(lambda: watcher.data() == {"/t": b"1"})
            epoch_id, epoch = hub.epoch_id, hub.session.epoch
            own_zookeeper.kill()
            await eventually(lambda: not hub.session.status.session_id or hub.session.status.state.name == "LOST")
            own_zookeeper.start()
            await asyncio.to_thread(write, own_zookeeper, b"2")
            await watcher.until(lambda: watcher.data() == {"/t": b"2"})
            assert (hub.epoch_id, hub.session.history.number) == (epoch_id, 1)
            assert hub.session.epoch > epoch
            assert len(watcher.snapshots) == 1
