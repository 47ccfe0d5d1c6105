"""Caches on disk: a daemon that starts without ZooKeeper."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.world import Peer, World
from tests.hub.conftest import TIMEOUT_S
from tests.hub.watcher import Watcher, eventually
from zkside.errors import SessionSuspended, TooStale
from zkside.hub.disk import DiskSnapshot
from zkside.hub.hub import Hub, HubSettings
from zkside.hub.reads import Consistency, Freshness
from zkside.hub.table import NodeTable
from zkside.model import record
from zkside.model.operation import Create, SetData
from zkside.model.stat import Stat
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


def flipped(at: int) -> Callable[[bytes], bytes]:
    """One bit of one byte."""
    return lambda text: text[:at] + bytes([text[at] ^ 1]) + text[at:][1:]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda text: b"no caches", id="foreign"),
        pytest.param(lambda text: b"", id="empty"),
        pytest.param(lambda text: text[:-1], id="cut short"),
        pytest.param(lambda text: text[:40], id="cut shorter"),
        pytest.param(lambda text: text + b"x", id="longer"),
        pytest.param(lambda text: text.replace(b"value", b"vaIue"), id="a value"),
        pytest.param(lambda text: text.replace(b"caches 2", b"caches 3"), id="another format"),
        pytest.param(flipped(20), id="head"),
        pytest.param(flipped(-40), id="node"),
        pytest.param(flipped(-1), id="checksum"),
    ],
)
async def test_a_file_that_was_altered_is_set_aside_and_nothing_of_it_is_served(
    tmp_path: Path, world: World, other: Peer, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """R5: a byte of a value was served as current for good."""
    await other.do(Create("/a", b"value"))
    async with hub_in(tmp_path, world, connected=True) as hub:
        await hub.reads.get("/a", CACHED)
    damaged = damage((tmp_path / "cache.nodes").read_bytes())
    (tmp_path / "cache.nodes").write_bytes(damaged)
    async with hub_in(tmp_path, world, connected=True) as hub:
        assert (hub.statistics().cached_nodes, hub.statistics().set_aside) == (0, 1)
        assert record.data((await hub.reads.get("/a", CACHED)).value) == b"value"
        assert (tmp_path / "cache.damaged").read_bytes() == damaged
    assert "cache.damaged" in caplog.text


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(max_examples=100, deadline=None)
def test_no_bit_of_the_file_can_be_flipped_unseen(at: int, bit: int) -> None:
    """R5."""
    with tempfile.TemporaryDirectory() as directory:
        table = NodeTable()
        for number in range(20):
            table.put(f"/n{number}", record.pack(b"value", Stat(*range(11))) if number % 3 else None)
        disk = DiskSnapshot(Path(directory), "me")
        asyncio.run(disk.save(7, [(f"/n{number}", Scope.NODE) for number in range(20)], table))
        file = Path(directory) / "cache.nodes"
        text = bytearray(file.read_bytes())
        text[at % len(text)] ^= 1 << bit
        file.write_bytes(text)
        assert disk.load() is None


async def test_caches_that_were_read_as_somebody_else_are_not_served(tmp_path: Path, world: World, other: Peer) -> None:
    """R5: this daemon may not read what that one could."""
    await other.do(Create("/secret", b"value"))
    session = Session(world.connector(timeout_s=TIMEOUT_S), SessionSettings(timeout_s=TIMEOUT_S))
    session.start()
    await session.wait_connected()
    hub = Hub(session, HubSettings(state_dir=tmp_path, identity="digest ann:secret"))
    hub.start()
    await hub.reads.get("/secret", CACHED)
    await hub.close()
    assert b"ann" not in (tmp_path / "cache.nodes").read_bytes()
    same = DiskSnapshot(tmp_path, "digest ann:secret")
    assert (loaded := same.load()) is not None
    assert [path for path, _ in loaded.nodes] == ["/secret"]
    bob = DiskSnapshot(tmp_path, "digest bob:secret")
    assert (bob.load(), bob.set_aside) == (None, 1)
    await session.close(keep_session=False, within_s=2.0)


async def test_a_directory_that_was_removed_is_made_anew(tmp_path: Path, world: World, other: Peer) -> None:
    """R5: by the next writing."""
    await other.do(Create("/a"))
    async with hub_in(tmp_path / "caches", world, connected=True) as hub:
        await hub.reads.get("/a", CACHED)
    assert (tmp_path / "caches/cache.nodes").exists()


async def test_the_file_is_for_the_daemon_only(tmp_path: Path, world: World, other: Peer) -> None:
    """Nodes can hold secrets."""
    await other.do(Create("/a", b"secret"))
    async with hub_in(tmp_path, world, connected=True) as hub:
        await hub.reads.get("/a", CACHED)
    assert (tmp_path / "cache.nodes").stat().st_mode & 0o777 == 0o600


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
        await eventually((tmp_path / "cache.nodes").exists)
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
    await eventually((tmp_path / "cache.nodes").exists)
    await eventually(lambda: hub.statistics().cached_nodes == 0)
    await hub.close()
    await session.close(keep_session=False, within_s=2.0)
