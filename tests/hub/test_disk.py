"""Caches on disk: a daemon that starts without ZooKeeper."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.contract.world import Peer, World
from tests.hub.conftest import TIMEOUT_S
from tests.hub.watcher import Watcher, eventually
from zkside.errors import SessionSuspended, TooStale
from zkside.hub.hub import Hub, HubSettings
from zkside.hub.reads import Consistency, Freshness
from zkside.model import record
from zkside.model.operation import Create, SetData
from zkside.model.watch import Scope, Target
from zkside.zk.session import Session, SessionSettings

CACHED = Freshness(Consistency.CACHED)


@asynccontextmanager
async def hub_in(state_dir: Path, world: World, *, connected: bool) -> AsyncIterator[Hub]:
    session = Session(world.connector(faulty=True, timeout_s=TIMEOUT_S), SessionSettings(timeout_s=TIMEOUT_S))
    hub = Hub(session, HubSettings(state_dir=state_dir))
    session.start()
    if connected:
        await session.wait_connected()
    hub.start()
    yield hub
    await hub.close()
    await session.close(keep_session=False, within_s=2.0)


async def test_a_start_without_zookeeper_serves_what_the_daemon_before_knew(
    tmp_path: Path, world: World, other: Peer
) -> None:
    """R5, R3: nodes, lists, absences and subscriptions, marked stale; and then the truth, as changes."""
    for path in ("/a", "/a/b", "/single"):
        await other.do(Create(path, b"old"))
    async with hub_in(tmp_path, world, connected=True) as hub:
        (await hub.subscribe((Target("/a", Scope.SUBTREE),))).close()
        await hub.reads.get("/single", CACHED)
        await hub.reads.exists("/absent", CACHED)
    await world.refuse()
    await other.do(SetData("/a/b", b"new"))
    async with hub_in(tmp_path, world, connected=False) as hub:
        for path in ("/a", "/a/b", "/single"):
            answer = await hub.reads.get(path, CACHED)
            assert record.data(answer.value) == b"old"
            assert answer.stale
        assert (await hub.reads.children("/a", CACHED)).value.names == ["b"]
        assert (await hub.reads.exists("/absent", CACHED)).value is None
        with pytest.raises(SessionSuspended):
            await hub.reads.get("/never-read", CACHED)
        with pytest.raises(TooStale):
            await hub.reads.get("/a", Freshness(Consistency.CACHED, max_stale_s=0.0))
        with Watcher(await hub.subscribe((Target("/a", Scope.SUBTREE),))) as watcher:
            await watcher.until(lambda: watcher.data() == {"/a": b"old", "/a/b": b"old"})
            await world.accept()
            await watcher.until(lambda: watcher.data() == {"/a": b"old", "/a/b": b"new"})
            assert len(watcher.snapshots) == 1
        await eventually(lambda: hub.statistics().cache_age_s == 0)
        assert not (await hub.reads.get("/a", CACHED)).stale


@pytest.mark.parametrize("damage", [b"no database", b""])
async def test_a_damaged_file_is_set_aside(tmp_path: Path, world: World, damage: bytes) -> None:
    """R5"""
    (tmp_path / "cache.sqlite").write_bytes(damage)
    async with hub_in(tmp_path, world, connected=True) as hub:
        assert hub.statistics().cached_nodes == 0
        assert (tmp_path / "cache.damaged").read_bytes() == damage


async def test_the_file_is_for_the_daemon_only(tmp_path: Path, world: World, other: Peer) -> None:
    """Nodes can hold secrets."""
    await other.do(Create("/a", b"secret"))
    async with hub_in(tmp_path, world, connected=True) as hub:
        await hub.reads.get("/a", CACHED)
    assert (tmp_path / "cache.sqlite").stat().st_mode & 0o777 == 0o600


async def test_caches_are_saved_from_time_to_time_too(tmp_path: Path, world: World, other: Peer) -> None:
    """R5: a daemon that is killed leaves a file not older than the interval."""
    await other.do(Create("/a"))
    session = Session(world.connector(timeout_s=TIMEOUT_S), SessionSettings(timeout_s=TIMEOUT_S))
    session.start()
    await session.wait_connected()
    hub = Hub(session, HubSettings(state_dir=tmp_path, snapshot_interval_s=0.1))
    hub.start()
    await hub.reads.get("/a", CACHED)
    async with asyncio.timeout(10):
        await eventually((tmp_path / "cache.sqlite").exists)
    await hub.close()
    await session.close(keep_session=False, within_s=2.0)


async def test_a_file_that_cannot_be_written_is_counted_and_costs_nothing_else(
    tmp_path: Path, world: World, other: Peer
) -> None:
    """R5: what was saved before is left, saving is tried again, and idle caches go all the same."""
    await other.do(Create("/a"))
    session = Session(world.connector(timeout_s=TIMEOUT_S), SessionSettings(timeout_s=TIMEOUT_S))
    session.start()
    await session.wait_connected()
    hub = Hub(session, HubSettings(state_dir=tmp_path, snapshot_interval_s=0.1, idle_eviction_s=1.0))
    (tmp_path / "cache.new").mkdir()  # where the next file would be written
    hub.start()
    await hub.reads.get("/a", CACHED)
    await eventually(lambda: hub.statistics().save_errors > 1)
    (tmp_path / "cache.new").rmdir()
    await eventually((tmp_path / "cache.sqlite").exists)
    await eventually(lambda: hub.statistics().cached_nodes == 0)
    await hub.close()
    await session.close(keep_session=False, within_s=2.0)
