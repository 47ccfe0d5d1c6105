"""The parts of the tests do what they say."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kazoo.client import KazooClient
from kazoo.retry import KazooRetry

from tests.parts.ensemble import Ensemble
from tests.parts.proxy import Proxy
from zkside.cli.zookeeper import Installation, ZooKeeperServer, find
from zkside.errors import StartError


def ask(connection: socket.socket, word: bytes = b"ruok") -> bytes:
    connection.sendall(word)
    return connection.recv(100)


def accepts(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def test_every_test_has_a_chroot_of_its_own(stock_client: KazooClient) -> None:
    assert stock_client.get_children("/") == []


def test_a_killed_server_comes_back_with_its_data_on_the_same_port(own_zookeeper: ZooKeeperServer) -> None:
    client = KazooClient(own_zookeeper.hosts)
    client.start(30)
    try:
        client.create("/kept")
        own_zookeeper.restart()
        assert KazooRetry(max_tries=-1)(client.exists, "/kept")
        assert own_zookeeper.mntr()["server_state"] == "standalone"
    finally:
        client.stop()
        client.close()


def test_a_missing_release_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(StartError, match="apt-get install"):
        find("0.1")


def test_the_proxy_passes_holds_and_heals(zookeeper: ZooKeeperServer, proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as connection:
        proxy.hold_replies()
        connection.sendall(b"ruok")
        proxy.wait_for(lambda p: p.replies.size_bytes == 4)
        connection.settimeout(0.05)
        with pytest.raises(TimeoutError):
            connection.recv(4)
        connection.settimeout(5)
        proxy.heal()
        assert connection.recv(100) == b"imok"


def test_the_proxy_cuts_and_refuses(zookeeper: ZooKeeperServer, proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as connection:
        proxy.wait_for(lambda p: p.connections == 1)
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", proxy.port), timeout=5)
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    proxy.accept()
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as connection:
        assert ask(connection) == b"imok"


def test_the_proxy_counts_zookeeper_packets(proxy: Proxy, proxy_hosts: str) -> None:
    client = KazooClient(proxy_hosts)
    client.start(30)
    client.get("/")
    before = proxy.requests.frames, proxy.replies.frames
    for _ in range(5):
        client.get("/")
    assert (proxy.requests.frames - before[0], proxy.replies.frames - before[1]) == (5, 5)
    client.stop()
    client.close()


@pytest.mark.slow
def test_an_ensemble_has_one_leader_and_survives_its_death(ensemble: Ensemble) -> None:
    leader = ensemble.leader
    assert len(ensemble.followers) == 2
    client = KazooClient(ensemble.hosts, timeout=20)
    client.start(30)
    try:
        client.create("/kept")
        leader.kill()
        assert KazooRetry(max_tries=-1)(client.exists, "/kept")
        leader.start()
        assert leader.mntr()["server_state"] == "follower"
    finally:
        client.stop()
        client.close()


def test_a_server_never_outlives_the_process_that_started_it(
    zookeeper_installation: Installation,
) -> None:
    """Not even when that is killed."""
    script = (
        "import os, sys; from zkside.cli.zookeeper import ZooKeeperServer, find\n"
        "server = ZooKeeperServer(find(sys.argv[1])).start()\n"
        "print(server.port, server.directory, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", script, zookeeper_installation.version]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -9
    port, directory = done.stdout.split()
    deadline = time.monotonic() + 10
    # It is killed before the directory goes, but a process needs a moment to die.
    while Path(directory).exists() or accepts(int(port)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
