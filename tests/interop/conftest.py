"""One ensemble, two daemons as processes of their own, and a path for each test."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final, Protocol

import pytest

from bench.stand import daemon
from tests.interop.contest import Crew, Stage, contest
from tests.interop.ledger import Ledger
from tests.interop.score import CONTESTS, DEATHS, Death, Score, table
from zkside.cli.zookeeper import ZooKeeperServer

GRANTS: Final = 2000
SCORES: Final = pytest.StashKey[list[Score]]()
KILLED: Final = pytest.StashKey[list[Death]]()


class Contend(Protocol):
    async def __call__(self, *crews: Crew, grants: int = GRANTS, permits: int = 1) -> Ledger: ...


@pytest.fixture(scope="session")
def stage(zookeeper: ZooKeeperServer) -> Iterator[Stage]:
    """The shared server with a daemon for each of two hosts."""
    with daemon(zookeeper.hosts) as one, daemon(zookeeper.hosts) as other:
        yield Stage(zookeeper.hosts, (one.address, other.address))


@pytest.fixture
def path(chroot: str) -> str:
    """What the contenders of a test are after; absent."""
    return f"{chroot}/contest"


@pytest.fixture
def contend(stage: Stage, path: str, pytestconfig: pytest.Config) -> Contend:
    """Holds a contest for `path`, and remembers what it came to for the table at the end."""

    async def contend(*crews: Crew, grants: int = GRANTS, permits: int = 1) -> Ledger:
        began = time.monotonic()
        ledger = await contest(stage, path, *crews, grants=grants, permits=permits)
        score = Score(", ".join(map(str, crews)), ledger, time.monotonic() - began)
        pytestconfig.stash.setdefault(SCORES, []).append(score)
        return ledger

    return contend


@pytest.fixture
def deaths(pytestconfig: pytest.Config) -> list[Death]:
    """What is appended here is told at the end."""
    return pytestconfig.stash.setdefault(KILLED, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for headings, lines in ((CONTESTS, config.stash.get(SCORES, [])), (DEATHS, config.stash.get(KILLED, []))):
        if lines:
            terminalreporter.section("interop")
            for line in table(headings, lines):
                terminalreporter.write_line(line)
