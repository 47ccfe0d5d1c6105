"""A container of the image: what it may, when it is healthy, how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from kazoo.client import KazooClient

from tests.image.container import LIMIT_BYTES, UID, Container
from zkside.cli import exits
from zkside.client import Client

pytestmark = pytest.mark.image

NOBODY = "127.0.0.1:1"
"""Hosts where no ZooKeeper is."""


async def test_a_call_through_its_socket_reaches_zookeeper(container: Container, stock_client: KazooClient) -> None:
    async with Client(container.address) as client:
        await client.create("/from-outside", b"x", timeout_s=20)
    assert stock_client.get("/from-outside")[0] == b"x"
    assert container.run("zkside", "get", "/from-outside").stdout == "x\n"


def test_it_is_nobody_and_can_become_nobody_else(container: Container) -> None:
    """In a read-only root, with the volumes as the only places that it can write to."""
    status = container.status()
    assert {status[key] for key in ("Uid", "Gid")} == {"\t".join([str(UID)] * 4)}
    capabilities = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    assert {status[key] for key in capabilities} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    for path in ("/", "/opt/zkside", "/tmp", "/var/tmp", "/etc"):
        refused = container.run("touch", f"{path}/file", user="0")
        assert "Read-only file system" in refused.stderr, path
    for path in ("/run/zkside", "/var/lib/zkside"):
        assert container.run("touch", f"{path}/file").returncode == 0, path


def test_the_socket_is_for_its_group_and_the_state_for_itself(container: Container, place: Path) -> None:
    socket = (place / "run/zkside.sock").stat()
    assert (socket.st_uid, socket.st_gid, socket.st_mode & 0o777) == (UID, UID, 0o660)
    for file in (place / "state").rglob("*"):
        assert (file.stat().st_uid, file.stat().st_mode & 0o077) == (UID, 0), file
    assert (place / "state/session.journal").exists()


def test_all_of_it_stays_in_96_megabytes_while_it_is_asked_for_its_health(container: Container) -> None:
    """Each check is a second process in the same bounds."""
    for _ in range(3):
        assert container.is_healthy()
    memory = container.memory()
    assert memory.limit_bytes == LIMIT_BYTES
    assert memory.refused == 0
    assert memory.peak_bytes < LIMIT_BYTES, memory


def test_without_zookeeper_it_is_healthy_and_not_ready(image: str, place: Path) -> None:
    """A restart would end the session that is to be saved: so health is the daemon's, and readiness the session's."""
    with Container(image, place, NOBODY) as container:
        container.wait_serving()
        assert container.is_healthy()
        ready = container.run("zkside", "health", "--service", "zkside.v1.NodeService")
        assert (ready.returncode, ready.stdout.strip()) == (exits.UNAVAILABLE, "NOT_SERVING")


def test_it_is_unhealthy_while_its_event_loop_does_not_answer(container: Container) -> None:
    assert container.is_healthy()
    pid = container.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        assert not container.is_healthy()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert container.is_healthy()


def test_a_check_where_nobody_listens_says_so(container: Container) -> None:
    asked = container.run("zkside", "--address", "unix:/run/zkside/none.sock", "--timeout", "3s", "health")
    assert asked.returncode == exits.UNAVAILABLE, asked.stderr


async def test_told_to_stop_it_lets_go_of_everything_and_ends_with_0(
    image: str, place: Path, hosts: str, stock_client: KazooClient
) -> None:
    """O3: within the grace, although it is process 1, to which the kernel passes no signal that is not caught."""
    with Container(image, place, hosts) as container:
        container.wait_connected()
        async with Client(container.address) as client, client.campaign("/leader", cancel_on_loss=False) as leading:
            assert stock_client.exists(leading.path) is not None
            await asyncio.to_thread(container.signal, signal.SIGTERM)
            assert await asyncio.to_thread(container.wait_ended, within_s=10.0) == 0
            assert "stopped" in container.lines[-1]
            assert stock_client.exists(leading.path) is None


def test_told_to_stop_before_it_serves_it_ends_with_0_too(image: str, place: Path) -> None:
    """O3: it reads its configuration from a pipe here, into which nobody writes."""
    pipe = place / "run/zkside.toml"
    os.mkfifo(pipe, 0o644)
    command = ("serve", "--config", "/run/zkside/zkside.toml")
    with Container(image, place, NOBODY, arguments=command) as container, pipe.open("w"):
        container.signal(signal.SIGTERM)
        assert container.wait_ended(within_s=10.0) == 0
        assert container.lines == []
