"""The daemon as a process: it starts without ZooKeeper, stops in order, and is never there twice."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest
from kazoo.client import KazooClient

from tests.ops.process import DaemonProcess
from zkside.cli.zookeeper import ZooKeeperServer, free_port
from zkside.client import Client, Consistency, Scope, SessionState
from zkside.errors import NoNode, TooStale, Unavailable, ZksideError


def session_id(daemon: DaemonProcess) -> str:
    document = json.loads(daemon.get("/statusz")[1])
    return str(document["session"]["status"]["session_id"])


async def wait_connected(client: Client) -> str:
    """Returns the session's id."""
    async with asyncio.timeout(30):
        async for session in client.watch_session(wait_for_ready=True):
            if session.state is SessionState.CONNECTED:
                return session.session_id
    raise AssertionError("the stream ended")


async def test_many_clients_are_one_session_to_zookeeper(tmp_path: Path, own_zookeeper: ZooKeeperServer) -> None:
    """S1: the server's own list of connections has one with a session."""
    with DaemonProcess(tmp_path, ZOOKEEPER_HOSTS=own_zookeeper.hosts) as daemon:
        clients = [Client(daemon.address) for _ in range(40)]
        try:
            sessions = {await wait_connected(client) for client in clients}
            await asyncio.gather(*(client.create(f"/of-{number}") for number, client in enumerate(clients)))
            watches = [client.watch("/", scope=Scope.SUBTREE) for client in clients]
            for watch in watches:
                await anext(watch)
            connections = own_zookeeper.four_letter("cons")
            assert connections.count("sid=0x") == 1
            assert {f"sid={session}" in connections for session in sessions} == {True}
            watched = [line for line in own_zookeeper.four_letter("wchp").splitlines() if line.startswith("/")]
            assert watched == ["/"]
        finally:
            for client in clients:
                await client.close()


async def test_sigterm_tells_streams_releases_holds_closes_the_session_and_ends_with_0(
    tmp_path: Path, zookeeper: ZooKeeperServer, hosts: str, stock_client: KazooClient
) -> None:
    """O3."""
    with DaemonProcess(tmp_path, ZOOKEEPER_HOSTS=hosts) as daemon:
        async with Client(daemon.address) as client:
            mine = await wait_connected(client)
            assert mine in zookeeper.four_letter("dump")
            async with client.hold_ephemeral("/mine") as held, client.watch("/", scope=Scope.SUBTREE) as watch:
                assert stock_client.exists("/mine") is not None
                await anext(watch)
                daemon.signal(signal.SIGTERM)
                async with asyncio.timeout(20):
                    assert await held.lost == "DRAINED"
                assert await asyncio.to_thread(daemon.wait_ended) == 0
        assert stock_client.exists("/mine") is None
        assert mine not in zookeeper.four_letter("dump")
        assert "Traceback" not in daemon.log
        assert not Path(daemon.address.removeprefix("unix:")).exists()


async def test_with_keep_session_the_next_daemon_takes_the_session_up(
    tmp_path: Path, zookeeper: ZooKeeperServer, hosts: str, stock_client: KazooClient
) -> None:
    """S5, O3: and what the daemon itself owned is still there."""
    keys = {
        "ZOOKEEPER_HOSTS": hosts,
        "STATE_DIR": str(tmp_path / "state"),
        "SHUTDOWN_SESSION": "keep_session",
    }
    with DaemonProcess(tmp_path, **keys) as first:
        async with Client(first.address) as client:
            before = await wait_connected(client)
        first.signal(signal.SIGTERM)
        assert first.wait_ended() == 0
    assert before in zookeeper.four_letter("dump")
    with DaemonProcess(tmp_path, **keys) as second:
        async with Client(second.address) as client:
            assert await wait_connected(client) == before


def test_a_second_signal_cuts(tmp_path: Path, own_zookeeper: ZooKeeperServer) -> None:
    """O3: an orderly stop that ZooKeeper keeps waiting can be cut short."""
    keys = {"ZOOKEEPER_HOSTS": own_zookeeper.hosts, "SHUTDOWN_GRACE": "60s", "ZOOKEEPER_SESSION_TIMEOUT": "60s"}
    with DaemonProcess(tmp_path, **keys) as daemon:
        while daemon.get("/readyz")[0] != 200:
            daemon.wait_for("connected")
        own_zookeeper.pause()
        daemon.signal(signal.SIGTERM)
        daemon.wait_for("SIGTERM: stopping")
        daemon.signal(signal.SIGTERM)
        assert daemon.wait_ended(within_s=10) == 1
        assert "SIGTERM again" in daemon.log


def test_the_grace_bounds_an_orderly_stop(tmp_path: Path, own_zookeeper: ZooKeeperServer) -> None:
    """O3: with a ZooKeeper that does not answer the daemon still ends with 0, in its time."""
    with DaemonProcess(tmp_path, ZOOKEEPER_HOSTS=own_zookeeper.hosts, SHUTDOWN_GRACE="2s") as daemon:
        while daemon.get("/readyz")[0] != 200:
            daemon.wait_for("connected")
        own_zookeeper.pause()
        daemon.signal(signal.SIGINT)
        assert daemon.wait_ended(within_s=10) == 0


async def test_without_zookeeper_it_starts_is_alive_and_says_why_it_is_not_ready(tmp_path: Path) -> None:
    """S6: the socket is there at once; what needs ZooKeeper fails at once."""
    with DaemonProcess(tmp_path, ZOOKEEPER_HOSTS=f"127.0.0.1:{free_port()}") as daemon:
        assert daemon.get("/healthz") == (200, "alive\n")
        status, text = daemon.get("/readyz")
        assert status == 503
        assert "the ZooKeeper session is connecting" in text
        async with Client(daemon.address) as client:
            with pytest.raises(Unavailable):
                await client.get("/")
        daemon.signal(signal.SIGTERM)
        assert daemon.wait_ended() == 0


async def test_liveness_never_depends_on_zookeeper_and_readiness_does(
    tmp_path: Path, own_zookeeper: ZooKeeperServer
) -> None:
    """S3: LOST comes from the local clock while ZooKeeper is away. S7: and the daemon recovers."""
    keys = {"ZOOKEEPER_HOSTS": own_zookeeper.hosts, "ZOOKEEPER_SESSION_TIMEOUT": "2s", "LEASE_TICK": "200ms"}
    with DaemonProcess(tmp_path, **keys) as daemon:
        async with Client(daemon.address) as client, client.watch_session(wait_for_ready=True) as sessions:

            async def reach(*wanted: SessionState) -> None:
                async with asyncio.timeout(30):
                    async for session in sessions:
                        if session.state in wanted:
                            return

            await reach(SessionState.CONNECTED)
            assert daemon.get("/readyz") == (200, "ready\n")
            own_zookeeper.kill()
            await reach(SessionState.SUSPENDED)
            await reach(SessionState.LOST)
            assert daemon.get("/healthz") == (200, "alive\n")
            assert daemon.get("/readyz")[0] == 503
            await asyncio.to_thread(own_zookeeper.start)
            await reach(SessionState.CONNECTED)
            assert daemon.get("/readyz") == (200, "ready\n")


async def test_caches_answer_after_a_start_without_zookeeper(tmp_path: Path, own_zookeeper: ZooKeeperServer) -> None:
    """R5: marked stale, with their age; `max_stale` refuses them."""
    keys = {"ZOOKEEPER_HOSTS": own_zookeeper.hosts, "STATE_DIR": str(tmp_path / "state")}
    with DaemonProcess(tmp_path, **keys) as first:
        async with Client(first.address) as client:
            await client.create("/kept", b"value", wait_for_ready=True)
            await client.get("/kept", consistency=Consistency.CACHED)
            with pytest.raises(NoNode):
                await client.get("/absent", consistency=Consistency.CACHED)
        first.signal(signal.SIGTERM)
        assert first.wait_ended() == 0
    own_zookeeper.kill()
    with DaemonProcess(tmp_path, **keys) as second:
        async with Client(second.address) as client:
            answer = await client.get("/kept", consistency=Consistency.CACHED)
            assert answer.node.data == b"value"
            assert answer.header.stale
            assert answer.header.age_s > 0
            with pytest.raises(NoNode):
                await client.get("/absent", consistency=Consistency.CACHED)
            with pytest.raises(TooStale):
                await client.get("/kept", consistency=Consistency.CACHED, max_stale_s=0.001)


async def test_a_daemon_pointed_elsewhere_does_not_answer_with_the_tree_of_before(
    tmp_path: Path, own_zookeeper: ZooKeeperServer
) -> None:
    """R5: caches on disk belong to one ensemble and chroot."""
    state_dir = str(tmp_path / "state")
    with DaemonProcess(tmp_path, ZOOKEEPER_HOSTS=own_zookeeper.hosts, STATE_DIR=state_dir) as first:
        async with Client(first.address) as client:
            await client.create("/kept", b"value", wait_for_ready=True)
            await client.get("/kept", consistency=Consistency.CACHED)
        first.signal(signal.SIGTERM)
        assert first.wait_ended() == 0
    own_zookeeper.kill()
    with DaemonProcess(tmp_path, ZOOKEEPER_HOSTS=f"{own_zookeeper.hosts}/other", STATE_DIR=state_dir) as second:
        async with Client(second.address) as client:
            with pytest.raises(Unavailable):
                await client.get("/kept", consistency=Consistency.CACHED)


def refused(directory: Path, **keys: str) -> str:
    """What a daemon says that must not start."""
    daemon = DaemonProcess(directory, backend="memory", **keys)
    try:
        assert daemon.wait_ended() == 1
        assert "Traceback" not in daemon.log
        return daemon.log
    finally:
        daemon.__exit__(None, None, None)


def test_a_second_daemon_on_one_state_dir_is_refused(tmp_path: Path) -> None:
    keys = {"STATE_DIR": str(tmp_path / "state")}
    with DaemonProcess(tmp_path, backend="memory", **keys):
        other = tmp_path / "other"
        other.mkdir()
        assert "in use by another daemon" in refused(other, **keys)


async def test_a_second_daemon_on_one_socket_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with DaemonProcess(tmp_path, backend="memory") as first:
        said = refused(tmp_path)
        assert "zkside.sock" in said
        async with Client(first.address) as client:
            await wait_connected(client)


def test_an_address_of_metrics_in_use_is_refused_and_nothing_is_left_behind(tmp_path: Path) -> None:
    with DaemonProcess(tmp_path, backend="memory") as first:
        other = tmp_path / "other"
        other.mkdir()
        said = refused(other, HTTP_LISTEN=f"127.0.0.1:{first.http_port}")
        assert f"http.listen: 127.0.0.1:{first.http_port} cannot be used" in said
        assert not (other / "zkside.sock").exists()


async def test_a_killed_daemon_leaves_a_socket_that_the_next_one_takes_over(tmp_path: Path) -> None:
    with DaemonProcess(tmp_path, backend="memory") as first:
        first.signal(signal.SIGKILL)
        assert first.wait_ended() == -signal.SIGKILL
    with DaemonProcess(tmp_path, backend="memory") as second:
        async with Client(second.address) as client:
            await wait_connected(client)


async def test_clients_hear_of_a_stop_as_an_error_with_a_reason(tmp_path: Path) -> None:
    """O3."""
    with DaemonProcess(tmp_path, backend="memory", SHUTDOWN_GRACE="5s") as daemon:
        async with Client(daemon.address) as client:
            await wait_connected(client)
        daemon.signal(signal.SIGTERM)
        assert daemon.wait_ended() == 0
        async with Client(daemon.address) as client:
            with pytest.raises(ZksideError):
                await client.get("/", timeout_s=2)
