"""The configuration read again: what is live has its effect, what is not says so, what is wrong changes nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.ops.process import DaemonProcess
from tests.parts.eventually import until
from zkside.cli.zookeeper import ZooKeeperServer
from zkside.client import Client, Consistency, Scope
from zkside.config import Config
from zkside.config_keys import KEYS
from zkside.config_source import read
from zkside.daemon import Daemon
from zkside.daemon_operation import differences, merged
from zkside.daemon_parts import Backend
from zkside.errors import Quota, TooLarge
from zkside.hub.subscription import SnapshotChunk
from zkside.model.admin import ReloadStatistics
from zkside.model.watch import EventTarget, Target, WatchKind
from zkside.model.watch import Scope as Levels
from zkside.rpc.tokens import read_tokens
from zkside.zk.session import SessionStatistics

LIVE = [name for name, key in KEYS.items() if key.live]
PATIENCE_S = 20.0


class Stand:
    """A daemon in this process, and the file that it was configured with."""

    def __init__(self, directory: Path, hosts: str = "") -> None:
        self.file = directory / "zkside.toml"
        self.state_dir = directory / "state"
        self.keys: dict[str, Any] = {
            "listen": [f"unix:{directory}/zkside.sock", "127.0.0.1:0"],
            "state_dir": str(self.state_dir),
            "http.listen": "",
        }
        if hosts:
            self.keys["zookeeper.hosts"] = hosts
        self.backend = Backend.KAZOO if hosts else Backend.MEMORY
        self.write()
        self.daemon = Daemon(self.read(), backend=self.backend, read=self.read)

    def write(self, text: str = "") -> None:
        lines = [f"{name} = {json.dumps(value)}" for name, value in self.keys.items()]
        self.file.write_text("\n".join(lines) + text)

    def read(self) -> Config:
        return read(file=self.file, environment={}).config

    def set(self, **keys: Any) -> None:
        """Write a value into the file and read it again; `__` is the dot."""
        names = {name.replace("__", "."): value for name, value in keys.items()}
        self.keys |= names
        self.write()
        told = self.daemon.operation.reload()
        assert set(told.applied) == set(names), told

    def client(self, number: int = 0) -> Client:
        return Client(self.daemon.addresses[number])


@asynccontextmanager
async def running(directory: Path, hosts: str = "") -> AsyncIterator[Stand]:
    stand = Stand(directory, hosts)
    await stand.daemon.start()
    try:
        async with asyncio.timeout(60):
            await stand.daemon.session.wait_connected()
            yield stand
    finally:
        await stand.daemon.stop()


async def idle_eviction(stand: Stand) -> None:
    async with stand.client() as client:
        await client.get("/", consistency=Consistency.CACHED)
        assert stand.daemon.hub.list_watches()
        stand.set(hub__idle_eviction="1s")
        await until(lambda: not stand.daemon.hub.list_watches())


async def max_cached_nodes(stand: Stand) -> None:
    async with stand.client() as client:
        await client.create("/many")
        async with client.pipeline() as pipeline:
            for number in range(1001):
                await pipeline.create(f"/many/{number}")
        async with client.watch("/many", scope=Scope.SUBTREE) as watch:
            await anext(watch)
        stand.set(hub__max_cached_nodes=1000)
        await client.create("/other")
        with pytest.raises(Quota):
            async with client.watch("/", scope=Scope.SUBTREE) as watch:
                await anext(watch)


async def max_roots(stand: Stand) -> None:
    stand.set(hub__max_roots=1)
    async with stand.client() as client:
        await client.create("/other")
        await client.get("/", consistency=Consistency.CACHED)
        await client.get("/other", consistency=Consistency.CACHED)
    assert len(stand.daemon.hub.roots) == 1


async def window_size(stand: Stand) -> None:
    hub = stand.daemon.hub
    stand.set(hub__window_size=1)
    async with stand.client() as client:
        for path in ("/w", "/w/a", "/w/b"):
            await client.create(path)
        began = (await client.get("/w")).header.zxid
        async with client.watch("/w", scope=Scope.SUBTREE) as watch:
            await anext(watch)
            for path in ("/w/a", "/w/b"):
                await client.set(path, b"x")
                await anext(watch)
            subscription = await hub.subscribe((Target("/w", Levels.SUBTREE),), resume=(hub.epoch_id, began))
            assert isinstance(await subscription.next(), SnapshotChunk), "two changes do not fit into a log of one"
            subscription.close()


async def event_queue_size(stand: Stand) -> None:
    hub = stand.daemon.hub
    stand.set(hub__event_queue_size=1)
    subscription = await hub.subscribe_events((EventTarget("/", WatchKind.PERSISTENT_RECURSIVE, False),))
    async with stand.client() as client:
        for path in ("/a", "/b", "/c"):
            await client.create(path)
    await until(lambda: sum(subscription.gaps.values()) > 0)
    subscription.close()


async def snapshot_interval(stand: Stand) -> None:
    async with stand.client() as client:
        await client.get("/", consistency=Consistency.CACHED)
    stand.set(hub__snapshot_interval="1s")
    await until(lambda: any(stand.state_dir.glob("cache-*/*")))


async def revalidate_interval(stand: Stand) -> None:
    async with stand.client() as client:
        await client.get("/", consistency=Consistency.CACHED)
    stand.set(hub__revalidate_interval="1s")
    await until(lambda: stand.daemon.hub.keeper.revalidation.rounds > 0)


async def max_streams(stand: Stand) -> None:
    async with stand.client() as client, client.watch("/") as first:
        await anext(first)
        stand.set(quotas__max_streams=1)
        with pytest.raises(Quota):
            await anext(client.watch("/other"))


async def max_streams_per_client(stand: Stand) -> None:
    async with stand.client(1) as client, client.watch("/") as first:
        await anext(first)
        stand.set(quotas__max_streams_per_client=1)
        with pytest.raises(Quota):
            await anext(client.watch("/other"))


async def message_timeout(stand: Stand) -> None:
    stand.set(quotas__message_timeout="100ms")
    assert stand.daemon.rpc.interceptors.arrivals.timeout_s == 0.1
    async with stand.client() as client:
        await client.get("/")


async def max_holds(stand: Stand) -> None:
    async with stand.client() as client, client.hold_ephemeral("/first"):
        stand.set(quotas__max_holds=1)
        with pytest.raises(Quota):
            async with client.hold_ephemeral("/second"):
                pass


async def log_level(stand: Stand) -> None:
    logger = logging.getLogger("zkside.session")
    assert not logger.isEnabledFor(logging.DEBUG)
    stand.set(log__level="debug")
    assert logger.isEnabledFor(logging.DEBUG)


async def max_cached_size(stand: Stand) -> None:
    stand.set(hub__max_cached_size="1MiB")
    async with stand.client() as client:
        for path in ("/a", "/b", "/c"):
            await client.create(path, bytes(700_000))
            await client.get(path, consistency=Consistency.CACHED)
    assert len(stand.daemon.hub.roots) == 1


async def max_answer_size(stand: Stand) -> None:
    stand.set(quotas__max_answer_size="1MiB")
    async with stand.client() as client:
        for path in ("/a", "/b"):
            await client.create(path, bytes(700_000))
        with pytest.raises(TooLarge):
            await client.get_many(["/a", "/b"])


async def sizes_under_way(stand: Stand) -> None:
    """How much room there is; tests/rpc/test_bytes.py shows what that means."""
    stand.set(**{f"quotas__max_{each}_size": "1MiB" for each in ("requests", "reads", "answers", "messages")})
    flow, reads = stand.daemon.rpc.interceptors.flow, stand.daemon.hub.reads.from_server
    for each in (flow.requests, flow.answers, flow.messages, reads.held, reads.in_flight):
        assert each.limit_bytes == 1 << 20


PROBES: dict[str, Callable[[Stand], Awaitable[None]]] = {
    "hub.idle_eviction": idle_eviction,
    "hub.max_cached_nodes": max_cached_nodes,
    "hub.max_cached_size": max_cached_size,
    "hub.max_roots": max_roots,
    "hub.window_size": window_size,
    "hub.event_queue_size": event_queue_size,
    "hub.snapshot_interval": snapshot_interval,
    "hub.revalidate_interval": revalidate_interval,
    "quotas.max_streams": max_streams,
    "quotas.max_streams_per_client": max_streams_per_client,
    "quotas.message_timeout": message_timeout,
    "quotas.max_holds": max_holds,
    "quotas.max_answer_size": max_answer_size,
    "quotas.max_requests_size": sizes_under_way,
    "quotas.max_reads_size": sizes_under_way,
    "quotas.max_answers_size": sizes_under_way,
    "quotas.max_messages_size": sizes_under_way,
    "log.level": log_level,
}
AS_A_PROCESS = ("log.format", "shutdown.grace", "shutdown.session")
BESIDE_A_SILENT_ZOOKEEPER = ("quotas.max_calls", "quotas.max_pipeline")


def test_every_live_key_is_proved_and_every_other_says_restart() -> None:
    proved = {*PROBES, *AS_A_PROCESS, *BESIDE_A_SILENT_ZOOKEEPER}
    assert proved == set(LIVE)


@pytest.mark.parametrize("name", PROBES)
async def test_a_live_key_has_its_effect_without_a_restart(name: str, tmp_path: Path) -> None:
    async with running(tmp_path) as stand:
        await PROBES[name](stand)


async def test_limits_of_calls_have_their_effect_at_once(tmp_path: Path, own_zookeeper: ZooKeeperServer) -> None:
    """quotas.max_calls, quotas.max_pipeline: seen while ZooKeeper answers nothing."""
    async with running(tmp_path, own_zookeeper.hosts) as stand, stand.client() as client:
        stand.set(quotas__max_calls=1, quotas__max_pipeline=2)
        connection = stand.daemon.session.statistics
        own_zookeeper.pause()
        try:
            first = asyncio.ensure_future(client.get("/"))
            await until(lambda: stand.daemon.rpc.interceptors.calls == 1)
            with pytest.raises(Quota):
                await client.get("/")
            before = in_flight(connection())
            pipeline = client.pipeline()
            await pipeline.__aenter__()
            writes = asyncio.gather(*(pipeline.create(f"/p{number}") for number in range(10)), return_exceptions=True)
            await until(lambda: in_flight(connection()) >= before + 2)
            assert in_flight(connection()) == before + 2
        finally:
            own_zookeeper.resume()
        await first
        await writes
        await pipeline.__aexit__(None, None, None)


def in_flight(statistics: SessionStatistics) -> int:
    assert statistics.connection is not None
    return statistics.connection.in_flight


async def test_what_is_wrong_changes_nothing_and_says_why(tmp_path: Path) -> None:
    async with running(tmp_path) as stand:
        before = stand.daemon.config
        stand.keys |= {"log.level": "debug", "quotas.max_holds": "many", "quotas.max_stream": 5}
        stand.write()
        told = stand.daemon.operation.reload()
        assert told.applied == told.needs_restart == ()
        assert len(told.problems) == 2
        assert "quotas.max_holds: must be a whole number" in told.problems[0] + told.problems[1]
        assert "did you mean quotas.max_streams" in told.problems[0] + told.problems[1]
        stand.file.write_text("this is no TOML")
        assert "is not TOML" in stand.daemon.operation.reload().problems[0]
        stand.file.unlink()
        assert "cannot be read" in stand.daemon.operation.reload().problems[0]
        assert stand.daemon.config == before
        assert stand.daemon.operation.statistics() == ReloadStatistics(reloaded=0, refused=3, needs_restart=0)


async def test_a_key_that_needs_a_restart_is_named_and_stays_as_it_was(tmp_path: Path) -> None:
    async with running(tmp_path) as stand:
        stand.keys |= {"zookeeper.session_timeout": "20s", "log.level": "warning"}
        stand.write()
        told = stand.daemon.operation.reload()
        assert told.applied == ("log.level",)
        assert told.needs_restart == ("zookeeper.session_timeout",)
        assert stand.daemon.config.zookeeper.session_timeout_s == 10.0
        again = stand.daemon.operation.reload()
        assert (again.applied, again.needs_restart) == ((), ("zookeeper.session_timeout",)), "it is still to come"


async def test_files_that_it_names_are_read_at_once_and_what_is_wrong_with_them_is_told(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("ci a-token-that-is-long-enough-for-anybody\n")
    async with running(tmp_path) as stand:
        watched = stand.daemon.files.keep("tokens", [tokens], lambda: read_tokens([tokens]))
        tokens.write_text("ci another-token-that-is-long-enough-too\n")
        assert stand.daemon.operation.reload().refused == ()
        assert watched.value.name_of("another-token-that-is-long-enough-too") == "ci"
        tokens.write_text("nonsense\n")
        told = stand.daemon.operation.reload()
        assert [text.partition(":")[0] for text in told.refused] == ["tokens"]
        assert watched.value.name_of("another-token-that-is-long-enough-too") == "ci", "what was read before stays"


def test_what_differs_is_live_or_needs_a_restart() -> None:
    """For every key at once: `merged` takes the live ones and leaves the others."""
    other = {"listen": "unix:/other", "quotas.max_holds": "5", "log.format": "json", "lease.proof_interval": "1s"}
    running_, new = read(environment={}).config, read(environment={}, flags=other).config
    assert differences(running_, new) == (("quotas.max_holds", "log.format"), ("listen", "lease.proof_interval"))
    assert differences(merged(running_, new), new) == ((), ("listen", "lease.proof_interval"))


def reload_by_signal(daemon: DaemonProcess, file: Path, text: str, event: str = "config.reloaded") -> dict[str, Any]:
    file.write_text(text)
    daemon.signal(signal.SIGHUP)
    return daemon.wait_for(event)


async def test_sighup_reads_the_file_again(tmp_path: Path, own_zookeeper: ZooKeeperServer) -> None:
    """shutdown.session; O3."""
    file = tmp_path / "zkside.toml"
    file.write_text("")
    keys = {"CONFIG": str(file), "ZOOKEEPER_HOSTS": own_zookeeper.hosts, "STATE_DIR": str(tmp_path / "state")}
    with DaemonProcess(tmp_path, **keys) as daemon:
        wrong = reload_by_signal(daemon, file, "[quotas]\nmax_holds = -1\n", "config.refused")
        assert wrong["level"] == "error"
        assert "quotas.max_holds" in wrong["problems"][0]
        told = reload_by_signal(
            daemon, file, '[shutdown]\ngrace = "9s"\nsession = "keep_session"\n[lease]\ntick = "1s"\n'
        )
        assert told["applied"] == ["shutdown.grace", "shutdown.session"]
        assert told["needs_restart"] == ["lease.tick"]
        async with Client(daemon.address) as client:
            async with asyncio.timeout(PATIENCE_S):
                await client.get("/", wait_for_ready=True)
            session = (await client.session()).session.session_id
        daemon.signal(signal.SIGTERM)
        assert daemon.wait_ended() == 0
    assert session in own_zookeeper.four_letter("dump"), "it was left to the next daemon"


async def test_a_stop_takes_the_grace_that_was_read_again(tmp_path: Path, own_zookeeper: ZooKeeperServer) -> None:
    """shutdown.grace; O3."""
    file = tmp_path / "zkside.toml"
    file.write_text('[shutdown]\ngrace = "600s"\n')
    with DaemonProcess(tmp_path, CONFIG=str(file), ZOOKEEPER_HOSTS=own_zookeeper.hosts) as daemon:
        async with Client(daemon.address) as client, asyncio.timeout(PATIENCE_S):
            await client.get("/", wait_for_ready=True)
        reload_by_signal(daemon, file, '[shutdown]\ngrace = "1s"\n')
        own_zookeeper.pause()
        daemon.signal(signal.SIGTERM)
        assert daemon.wait_ended(within_s=15) == 0


def test_the_format_of_the_log_changes_between_two_lines(tmp_path: Path) -> None:
    """log.format."""
    file = tmp_path / "zkside.toml"
    file.write_text('[log]\nformat = "json"\n')
    with DaemonProcess(tmp_path, backend="memory", CONFIG=str(file), LOG_FORMAT=None) as daemon:
        file.write_text('[log]\nformat = "text"\n')
        daemon.signal(signal.SIGHUP)
        line = daemon.wait_line("config.reloaded")
        assert " INFO config.reloaded: configuration read again: in force now: log.format;" in line
