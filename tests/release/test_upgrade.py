"""Daemons of earlier commits, as they were installed then, are replaced by today's, and come back after it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest
from kazoo.client import KazooClient

from tests.release.conftest import ROOT, Built, clean_environment, run
from zkside.cli.zookeeper import Installation, ZooKeeperServer

pytestmark = [pytest.mark.release, pytest.mark.timeout(90)]

EARLIER = {
    "e5c1f932f1": "ephemeral nodes only; before uvloop",
    "460aa71f3f": "locks, elections and groups; before identities",
}
"""Commits whose daemons wrote journals of format 1, and what they knew. Releases are added by their tags."""
APPLICATION = Path(__file__).with_name("application.py")


def earlier() -> list[str]:
    tags = run("git", "tag", "--list", "v[0-9]*", "--sort=-version:refname", cwd=ROOT).stdout.split()
    return [*tags[:1], *EARLIER]


@dataclass(frozen=True, slots=True)
class Version:
    """An installed zkside, without what it depends on: that is the tests' own, at the pinned versions."""

    path: Path

    def environment(self, **variables: str) -> dict[str, str]:
        return clean_environment(PYTHONPATH=str(self.path), PYTHONSAFEPATH="1", **variables)


def install(wheel: Path, into: Path) -> Version:
    pip = (sys.executable, "-m", "pip", "-q", "install", "--no-deps", "--no-index")
    run(*pip, "--target", into, wheel, cwd=into.parent)
    return Version(into)


@pytest.fixture(scope="module")
def today(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Version:
    return install(built.wheel, tmp_path_factory.mktemp("today") / "site")


@pytest.fixture(scope="module", params=earlier())
def before(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Version:
    """From a wheel that is built of that commit. A shallow clone does not have it: `git fetch --unshallow`."""
    directory = tmp_path_factory.mktemp("before")
    run("git", "archive", "--output", directory / "sources.tar", request.param, cwd=ROOT)
    (directory / "sources").mkdir()
    run("tar", "-xf", directory / "sources.tar", "-C", directory / "sources", cwd=directory)
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", directory, cwd=directory / "sources")
    (wheel,) = directory.glob("*.whl")
    return install(wheel, directory / "site")


@pytest.fixture(scope="module")
def patient_zookeeper(zookeeper_installation: Installation) -> Iterator[ZooKeeperServer]:
    """Grants sessions of 20 s: a replacement is in time on a busy machine too."""
    with ZooKeeperServer(zookeeper_installation, tick_ms=1000) as server:
        yield server


@dataclass(frozen=True, slots=True)
class Place:
    """Where the daemons of a test follow each other."""

    directory: Path
    hosts: str

    @property
    def address(self) -> str:
        return f"unix:{self.directory}/zkside.sock"

    @contextmanager
    def daemon(self, version: Version) -> Iterator[subprocess.Popen[bytes]]:
        """Leaves its session to the next one, as the DaemonSet and the systemd unit configure it."""
        settings = {
            "LISTEN": self.address,
            "STATE_DIR": str(self.directory / "state"),
            "ZOOKEEPER_HOSTS": self.hosts,
            "ZOOKEEPER_SESSION_TIMEOUT": "20s",
            "HTTP_LISTEN": "127.0.0.1:0",
            "SHUTDOWN_SESSION": "keep_session",
        }
        environment = version.environment(**{f"ZKSIDE_{name}": value for name, value in settings.items()})
        log = self.directory / "daemons.log"
        with (
            log.open("ab") as output,
            subprocess.Popen([sys.executable, "-m", "zkside", "serve"], env=environment, stderr=output) as process,
        ):
            try:
                yield process
            finally:
                process.kill()

    def application(self, version: Version) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, APPLICATION, self.address],
            env=version.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def log(self) -> str:
        return (self.directory / "daemons.log").read_text()


@pytest.fixture
def place(patient_zookeeper: ZooKeeperServer, tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    chroot = f"/{abs(hash(request.node.name))}"
    client = KazooClient(patient_zookeeper.hosts)
    client.start(timeout=30)
    client.create(chroot)
    client.stop()
    client.close()
    return Place(tmp_path, patient_zookeeper.hosts + chroot)


def hear(output: IO[str], whats: set[str], state: str, reason: str | None = None) -> dict[str, dict[str, Any]]:
    """The newest about each of these, once all are in that state. A loss ends the waiting."""
    heard: dict[str, dict[str, Any]] = {}
    while not whats <= heard.keys():
        line = output.readline()
        assert line, f"the application ended; {heard}"
        told = json.loads(line)
        assert told.get("state") != "LOST", told
        if told.get("state") == state and reason in (None, told["reason"]):
            heard[told["what"]] = told
    return heard


def until(output: IO[str], what: str) -> list[dict[str, Any]]:
    heard: list[dict[str, Any]] = []
    while not heard or heard[-1]["what"] != what:
        heard.append(json.loads(output.readline()))
    return heard


def ephemerals(hosts: str) -> dict[str, tuple[int, int]]:
    """Below /held: each node's session and czxid."""
    client = KazooClient(hosts)
    client.start(timeout=30)
    found: dict[str, tuple[int, int]] = {}
    todo = ["/held"]
    while todo:
        path = todo.pop()
        stat = client.exists(path)
        if stat.ephemeralOwner:
            found[path] = (stat.ephemeralOwner, stat.czxid)
        todo += [f"{path}/{name}" for name in client.get_children(path)]
    client.stop()
    client.close()
    return found


@pytest.mark.parametrize("way", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_an_upgrade_and_a_downgrade_keep_the_session_and_every_hold(
    before: Version, today: Version, place: Place, way: signal.Signals
) -> None:
    """S5 over versions, with an application that keeps its SDK: the same session, nodes and fencing tokens."""
    with ExitStack() as stack:
        first = stack.enter_context(place.daemon(before))
        application = stack.enter_context(place.application(before))
        assert application.stdout is not None
        assert application.stdin is not None
        told = until(application.stdout, "all")
        tokens = {one["what"]: one["token"] for one in told if one.get("state") == "HELD"}
        assert len(tokens) == told[-1]["number"]
        owned = ephemerals(place.hosts)
        assert len({session for session, _ in owned.values()}) == 1
        assert set(tokens.values()) <= {czxid for _, czxid in owned.values()}

        upgraded = _replace(stack, place, first, way, today)
        heard = hear(application.stdout, set(tokens), "HELD", "RESUMED")
        assert {what: one["token"] for what, one in heard.items()} == tokens
        assert ephemerals(place.hosts) == owned

        downgraded = _replace(stack, place, upgraded, way, before)
        heard = hear(application.stdout, set(tokens), "HELD", "RESUMED")
        assert {what: one["token"] for what, one in heard.items()} == tokens
        assert ephemerals(place.hosts) == owned

        application.stdin.close()
        until(application.stdout, "end")
        assert ephemerals(place.hosts) == {}
        downgraded.send_signal(signal.SIGTERM)
        assert downgraded.wait(30) == 0
    assert "set aside" not in place.log


def _replace(
    stack: ExitStack, place: Place, old: subprocess.Popen[bytes], way: signal.Signals, version: Version
) -> subprocess.Popen[bytes]:
    old.send_signal(way)
    assert old.wait(30) == (0 if way is signal.SIGTERM else -signal.SIGKILL), place.log
    return stack.enter_context(place.daemon(version))


def test_an_older_client_works_with_todays_daemon(before: Version, today: Version, place: Place) -> None:
    """The contract only grows: daemons are upgraded first."""
    with place.daemon(today), place.application(before) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        told = until(process.stdout, "all")
        assert len(ephemerals(place.hosts)) >= told[-1]["number"]
        process.stdin.close()
        until(process.stdout, "end")
        assert ephemerals(place.hosts) == {}


def test_todays_client_is_told_what_an_older_daemon_cannot_do(before: Version, today: Version, place: Place) -> None:
    """It reads and writes, and fails at once where it needs what that one does not have."""
    with place.daemon(before), place.application(today) as process:
        _, told = process.communicate(timeout=60)
    knows_all = (before.path / "zkside/rpc/carry.py").exists()
    assert (process.returncode == 0) == knows_all, told
    # grpc.aio loses the status of a call that ends while a message is on its way to it: INTERNAL then.
    assert knows_all or "NotSupported: Method not found!" in told or "Internal error from Core" in told
    assert ephemerals(place.hosts) == {}, "/held was made, and nothing is left in it"
