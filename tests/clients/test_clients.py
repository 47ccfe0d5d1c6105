"""Programs in five languages, with stubs that each language's own tools made, against one real daemon."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError

from tests.clients.programs import LANGUAGES, environment, made
from tests.ops.process import DaemonProcess

pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]


class Program:
    """One that runs; says line by line what it has."""

    def __init__(self, language: str, directory: Path, address: str) -> None:
        self.language = language
        self.process = subprocess.Popen(
            [*LANGUAGES[language].run, address, f"in {language}"],
            cwd=directory,
            env=environment(directory),
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def token(self, what: str) -> int:
        told, _, token = self.line().partition(" ")
        assert told == what
        return int(token)


@pytest.fixture(scope="module", params=sorted(LANGUAGES))
def language(request: pytest.FixtureRequest) -> str:
    made(request.param)
    return str(request.param)


@pytest.fixture
def daemon(hosts: str, stock_client: KazooClient, tmp_path: Path) -> Iterator[DaemonProcess]:
    stock_client.create("/clients/config", b"hello", makepath=True)
    with DaemonProcess(tmp_path, ZOOKEEPER_HOSTS=hosts) as daemon:
        daemon.wait_for("session connected")
        yield daemon


@pytest.fixture
def running(daemon: DaemonProcess) -> Iterator[list[Program]]:
    """Killed at the end, whatever has become of them."""
    programs: list[Program] = []
    with ExitStack() as stack:
        yield programs
        for program in programs:
            stack.enter_context(program.process)
            program.process.kill()


def start(running: list[Program], language: str, daemon: DaemonProcess) -> Program:
    program = Program(language, made(language), daemon.address)
    running.append(program)
    return program


def contenders(stock_client: KazooClient, path: str) -> dict[int, bytes]:
    """By czxid, as ZooKeeper has them; none below a path that has gone, as containers do that are empty."""
    try:
        names = stock_client.get_children(path)
    except NoNodeError:
        return {}
    found = {}
    for name in names:
        data, stat = stock_client.get(f"{path}/{name}")
        found[stat.czxid] = data
    return found


def test_a_program_reads_holds_a_lock_leads_watches_and_lets_go(
    language: str, daemon: DaemonProcess, stock_client: KazooClient, running: list[Program]
) -> None:
    program = start(running, language, daemon)
    name = f"in {language}".encode()
    assert program.line() == "read hello"
    token = program.token("lock")
    assert contenders(stock_client, "/clients/lock") == {token: name}
    token = program.token("leader")
    assert contenders(stock_client, "/clients/election") == {token: name}
    assert program.line() == "watch hello"
    stock_client.set("/clients/config", b"gr\xc3\xbc\xc3\x9fe")
    assert program.line() == "watch grüße"
    stock_client.set("/clients/config", b"stop")
    assert program.line() == "watch stop"
    assert program.line() == "released"
    assert contenders(stock_client, "/clients/lock") == {}
    assert program.process.wait(30) == 0


def test_what_a_killed_program_held_goes_to_the_next_in_line_whatever_its_language(
    daemon: DaemonProcess, stock_client: KazooClient, running: list[Program]
) -> None:
    """H2, H4, H7: in the order of the queue, with growing tokens, and in far less than a session timeout."""
    for language in sorted(LANGUAGES):
        before = len(contenders(stock_client, "/clients/lock")) if running else 0
        program = start(running, language, daemon)
        assert program.line() == "read hello"
        _wait_for_contenders(stock_client, before + 1)
    tokens = []
    for program in running:
        tokens.append(program.token("lock"))
        program.token("leader")
        program.process.send_signal(signal.SIGKILL)
        killed_s = time.monotonic()
    assert tokens == sorted(tokens)
    assert len(set(tokens)) == len(LANGUAGES)
    _wait_for_contenders(stock_client, 0)
    assert time.monotonic() - killed_s < 2.0


def _wait_for_contenders(stock_client: KazooClient, number: int) -> None:
    """Until the lock has so many."""
    changed = stock_client.handler.event_object()
    while stock_client.exists("/clients/lock", watch=lambda event: changed.set()) is None:
        assert changed.wait(30)
        changed.clear()
    while len(stock_client.get_children("/clients/lock", watch=lambda event: changed.set())) != number:
        assert changed.wait(30)
        changed.clear()
