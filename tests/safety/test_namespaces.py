"""The network does what the schedules ask of it."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.parts.namespaces import Network, why_not

ECHO = """
import socket
listener = socket.create_server(("", 7))
print(flush=True)
connection, _ = listener.accept()
while data := connection.recv(100):
    connection.sendall(data)
"""


@pytest.fixture
def network(namespaces: None) -> Iterator[Network]:
    with Network("a", "b") as network:
        yield network


@pytest.fixture
def line(network: Network) -> Iterator[socket.socket]:
    """From host a to one who repeats everything on host b."""
    command = [*network.hosts["b"].launcher, sys.executable, "-c", ECHO]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as echo:
        assert echo.stdout is not None
        echo.stdout.readline()
        with network.hosts["a"].connect(network.hosts["b"].address, 7) as connection:
            yield connection
        echo.kill()


def says_back(line: socket.socket, words: bytes, *, within_s: float) -> bool:
    line.settimeout(within_s)
    line.sendall(words)
    try:
        return line.recv(100) == words
    except TimeoutError:
        return False


def test_who_cannot_make_namespaces_is_told_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "apt-get install iproute2 nftables" in why_not()


@pytest.mark.faults
def test_what_is_cut_is_silent_and_nothing_is_lost_when_it_heals(network: Network, line: socket.socket) -> None:
    a, b = network.hosts["a"], network.hosts["b"]
    assert says_back(line, b"before", within_s=5)
    network.cut([a], [b])
    assert not says_back(line, b"meanwhile", within_s=0.3)
    network.heal()
    line.settimeout(10)
    assert line.recv(100) == b"meanwhile"


@pytest.mark.faults
def test_a_reset_is_heard_at_one_end_alone(network: Network, line: socket.socket) -> None:
    a, b = network.hosts["a"], network.hosts["b"]
    network.reset([b], [a])
    assert not says_back(line, b"anybody?", within_s=0.3), "a hears nothing, not even that it is over"
    network.heal([b], [a])
    with pytest.raises(ConnectionResetError):
        says_back(line, b"and now?", within_s=10)


@pytest.mark.faults
def test_what_runs_on_a_host_ends_with_who_started_it(namespaces: None) -> None:
    script = (
        "import os, subprocess; from tests.parts.namespaces import Network\n"
        "with Network('a') as network:\n"
        "    child = subprocess.Popen([*network.hosts['a'].launcher, 'sleep', '60'])\n"
        "    print(child.pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        # The child has the pipe too: its end is the child's end.
        assert starter.stdout.read().strip().isdigit()
