"""The file of a Unix socket is removed, replaced, or changed under the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from tests.parts.eventually import until
from tests.rpc.host import Host, Stubs
from tests.rpc.test_carry import Carrier
from zkside.errors import StartError
from zkside.model.identity import Auth
from zkside.pb import hold_pb2, lock_pb2, session_pb2
from zkside.rpc.listeners import TcpListener, UnixListener
from zkside.rpc.socket_file import SocketFile

PATIENCE_S = 20.0


@contextlib.asynccontextmanager
async def serving(hosts: str, directory: Path, *listeners: UnixListener | TcpListener) -> AsyncIterator[Host]:
    async with Host(hosts, directory, listeners=listeners) as host:
        yield host


async def reached(address: str) -> None:
    """Somebody new can connect there."""
    async with Stubs(address) as stubs, asyncio.timeout(PATIENCE_S):
        await stubs.session.GetSession(session_pb2.GetSessionRequest(), wait_for_ready=True)


async def look(host: Host) -> None:
    """As the clock does it each second, until what it began is done."""
    host.files.look()
    places = host.rpc._entrances._places
    await until(lambda: not any(place.is_starting for place in places))


async def test_a_socket_s_file_that_is_removed_is_made_again_and_holds_go_on(hosts: str, short_path: Path) -> None:
    """O5, H4: the streams of before stay on the server of before; who connects again comes to the new one."""
    path = short_path / "zkside.sock"
    async with serving(hosts, short_path, UnixListener(path, mode=0o600)) as host, host.stubs() as before:
        stream = before.lock.Acquire(lock_pb2.AcquireRequest(path="/lock"))
        async with asyncio.timeout(PATIENCE_S):
            while (await stream.read()).state != hold_pb2.HOLD_STATE_HELD:
                pass
        for removals in range(1, 4):
            path.unlink()
            await look(host)
            await reached(host.address)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert [place.restores for place in host.rpc._entrances._places] == [removals]
        assert len(host.holds) == 1
        # The same channel goes on as well, by way of the new server.
        await before.session.GetSession(session_pb2.GetSessionRequest(), timeout=PATIENCE_S)
        assert len(host.rpc._servers) == 2, "the one with the stream, and the last"
        stream.cancel()
        await until(lambda: len(host.rpc._servers) == 1)
        await reached(host.address)
    assert not path.exists()


async def test_a_stop_ends_what_is_carried_on_the_server_of_before_too(hosts: str, short_path: Path) -> None:
    """O3, H5: its last message comes, within the grace, and whoever came by the new server is told as well."""
    path = short_path / "zkside.sock"
    async with serving(hosts, short_path, UnixListener(path)) as host, host.stubs() as before:
        carried = Carrier(before)
        await carried.acquire(1)
        await carried.until(1, hold_pb2.HOLD_STATE_HELD)
        path.unlink()
        await look(host)
        async with host.stubs() as after:
            waiting = Carrier(after)
            await waiting.acquire(1)
            await waiting.until(1, hold_pb2.HOLD_STATE_WAITING)
            assert len(host.rpc._servers) == 2
            stopping = asyncio.ensure_future(host.stop(grace_s=PATIENCE_S))
            asked = await carried.until(1, hold_pb2.HOLD_STATE_JEOPARDY)
            assert asked.update.reason == "DRAINED"
            await carried.release(1)
            assert (await carried.ended(1)).update.state == hold_pb2.HOLD_STATE_RELEASED
            assert (await waiting.ended(1)).update.reason == "DRAINED"
            await asyncio.wait_for(stopping, PATIENCE_S / 2)
        assert not path.exists()


async def test_it_is_noticed_without_being_asked(
    hosts: str, short_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """O5: within some two seconds, and told."""
    path = short_path / "zkside.sock"
    async with serving(hosts, short_path, UnixListener(path)) as host:
        host.files.start(host.session.supervisor)
        try:
            path.unlink()
            await until(path.exists, within_s=3)
            await reached(host.address)
            assert "the socket's file at unix:" in caplog.text
        finally:
            host.files.stop()


async def test_a_directory_that_is_removed_and_a_socket_of_somebody_else_are_no_end(
    hosts: str, short_path: Path
) -> None:
    """O5: with the lock in it."""
    path = short_path / "below" / "zkside.sock"
    async with serving(hosts, short_path, UnixListener(path)) as host:
        shutil.rmtree(path.parent)
        await look(host)
        await reached(host.address)
        path.unlink()
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.bind(str(path))
            stranger.listen()
            await look(host)
            await reached(host.address)
        with pytest.raises(StartError, match="another daemon"):
            SocketFile(UnixListener(path)).take()


async def test_a_shared_server_keeps_its_other_listeners(hosts: str, short_path: Path) -> None:
    """O5: where callers are not told apart one server has them all."""
    path = short_path / "zkside.sock"
    async with serving(hosts, short_path, UnixListener(path), TcpListener("127.0.0.1", 0)) as host:
        for _ in range(2):
            path.unlink()
            await look(host)
            for address in host.rpc.addresses:
                await reached(address)


async def test_a_socket_keeps_its_identity(hosts: str, short_path: Path) -> None:
    """O2: the new server has the door of the old one."""
    path = short_path / "zkside.sock"
    async with serving(hosts, short_path, UnixListener(path, identity="app")) as host:
        door = host.rpc._entrances._places[0].door
        assert door is not None
        path.unlink()
        await look(host)
        assert host.rpc._entrances._places[0].door is door
        assert door.listener.auth is Auth.NONE
        await reached(host.address)


async def test_a_socket_that_cannot_be_made_again_makes_the_daemon_not_ready(
    hosts: str, short_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """O5: it is told once and tried again; other listeners go on."""
    path = short_path / "zkside.sock"
    async with serving(hosts, short_path, UnixListener(path), TcpListener("127.0.0.1", 0)) as host:
        path.unlink()
        path.mkdir()
        for _ in range(3):
            await look(host)
        assert "is not a socket" in host.rpc.shut
        assert caplog.text.count("nobody can connect to") == 1
        served = {name: status for name, status in host.rpc.health.statuses().items() if status == 1}
        assert set(served) == {"", "zkside.v1.SessionService", "zkside.v1.AdminService"}
        assert samples(host)["zkside_listener_open"] == 0
        await reached(host.rpc.addresses[1])
        path.rmdir()
        await look(host)
        await reached(host.address)
        assert host.rpc.shut == ""
        assert samples(host) == {"zkside_listener_open": 1, "zkside_listener_restores_total": 1}
        assert set(host.rpc.health.statuses().values()) == {1}


async def test_two_daemons_do_not_fight_when_the_lock_s_file_is_removed(hosts: str, short_path: Path) -> None:
    """O5, S1: who has the lock of that name has the place; the other says so, and waits for it."""
    path = short_path / "zkside.sock"
    async with serving(hosts, short_path, UnixListener(path)) as first:
        path.with_name("zkside.sock.lock").unlink()
        async with serving(hosts, short_path, UnixListener(path)) as second:
            made = path.stat().st_ino
            for _ in range(2):
                await look(first)
                await look(second)
            assert f"another daemon (pid {os.getpid()}) listens" in first.rpc.shut
            assert path.stat().st_ino == made
        await look(first)
        assert first.rpc.shut == ""
        await reached(first.address)


async def test_permissions_are_set_again(hosts: str, short_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """O5, O2: who may write to the file may call."""
    path = short_path / "zkside.sock"
    async with serving(hosts, short_path, UnixListener(path, mode=0o660, group=os.getegid())) as host:
        for mode in (0o000, 0o777):
            path.chmod(mode)
            await look(host)
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert caplog.text.count("the permissions of unix:") == 2


async def test_stopping_leaves_a_file_of_somebody_else_alone(hosts: str, short_path: Path) -> None:
    path = short_path / "zkside.sock"
    async with serving(hosts, short_path, UnixListener(path)) as host:
        await reached(host.address)
        path.unlink()
        path.write_text("not ours")
    assert path.read_text() == "not ours"


def samples(host: Host) -> dict[str, float]:
    return {
        sample.name: sample.value
        for family in host.rpc.collect()
        if family.name.startswith("zkside_listener")
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_the_name_beside_is_no_longer_than_the_path_may_be(short_path: Path) -> None:
    """O1: a path of 107 bytes will do."""

    async def body() -> None:
        for name in ("s" * (106 - len(str(short_path))), "s", "~"):
            path = short_path / name
            file = SocketFile(UnixListener(path))
            server = grpc.aio.server()
            file.take()
            file.bind(server.add_insecure_port)
            await server.start()
            assert file.is_there()
            await server.stop(0)
            assert path.exists(), "gRPC removes what it was told of, and nothing else"
            file.close()

    asyncio.run(body())
