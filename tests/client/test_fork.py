"""Processes that fork while they hold something, and processes whose threads are greenlets."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.client.parts import forking
from tests.ops.process import DaemonProcess
from zkside.client import HoldState, HoldStatus, sync

ROOT = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    """As a user has it: nothing is said of gRPC's own handlers of fork()."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("ZKSIDE_", "GRPC_"))}


@contextmanager
def forking_process(address: str, path: str, way: str) -> Iterator[subprocess.Popen[str]]:
    """In a process group of its own, which is killed in the end: its children outlive it."""
    command = [sys.executable, "-m", "tests.client.parts.forking", address, path, way]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def run(address: str, path: str, way: str) -> list[str]:
    """All that it said; it ends by itself."""
    command = [sys.executable, "-m", "tests.client.parts.forking", address, path, way]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def read_both(process: subprocess.Popen[str]) -> dict[str, str]:
    """What parent and child believe."""
    assert process.stdout is not None
    said: dict[str, str] = {}
    while {"child is_held", "parent is_held"} - said.keys():
        who, what, answer = process.stdout.readline().rstrip("\n").split(" ", 2)
        said[f"{who} {what}"] = answer
    return said


def granted_after_s(address: str, path: str, process: subprocess.Popen[str]) -> float:
    """Wait behind the process, kill it with -9, and be granted."""
    killed_s = 0.0

    def on_update(status: HoldStatus) -> None:
        nonlocal killed_s
        if status.state is HoldState.WAITING and not killed_s:
            killed_s = time.monotonic()
            process.kill()

    with sync.Client(address, timeout_s=20) as client, client.lock(path, on_update=on_update):
        granted_s = time.monotonic()
    assert killed_s
    return granted_s - killed_s


@pytest.mark.parametrize("way", [*forking.CHILDREN, "asyncio"])
def test_a_child_that_lives_on_does_not_keep_the_lock_of_a_parent_that_is_killed(
    daemon: DaemonProcess, root: str, way: str
) -> None:
    """H1, H4: the child has no part in it, and the kernel closes the connection with the parent."""
    path = f"{root}/lock"
    with forking_process(daemon.address, path, way) as process:
        said = read_both(process)
        assert said["parent is_held"] == "True", "the parent goes on as before"
        assert said["child is_held"] in ("False", "is another program")
        assert "before a fork" in said.get("child get", "before a fork")
        assert granted_after_s(daemon.address, path, process) < 1.0


def test_nor_by_one_of_several_connections(daemon: DaemonProcess, root: str) -> None:
    """H4: a client with many streams has more than one."""
    path = f"{root}/lock"
    with forking_process(daemon.address, path, "with_many_streams") as process:
        said = read_both(process)
        assert (said["parent connections"], said["child connections"]) == ("3", "0")
        assert (said["parent is_held"], said["child is_held"]) == ("True", "False")
        assert granted_after_s(daemon.address, path, process) < 1.0


def test_nor_over_tcp(hosts: str, tmp_path: Path) -> None:
    """H4"""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (
        DaemonProcess(tmp_path, ZOOKEEPER_HOSTS=hosts, LISTEN=f"127.0.0.1:{port}"),
        forking_process(f"localhost:{port}", "/lock", "fork") as process,
    ):
        assert read_both(process) == {"parent is_held": "True", "child is_held": "False"}
        assert granted_after_s(f"localhost:{port}", "/lock", process) < 1.0


def test_what_a_child_tries_with_its_parents_client_is_refused_with_what_to_do(
    daemon: DaemonProcess, root: str
) -> None:
    """H1: nothing waits for threads that are not there, and the parent is not disturbed."""
    said = run(daemon.address, f"{root}/a", "look_around")
    children = [line.removeprefix("child ") for line in said if line.startswith("child ")]
    assert children[0] == "lost True FORKED LOST 0.0"
    tried = dict(line.split(" ZksideError ") for line in children[1:])
    assert tried.keys() == {"get", "mirror", "heartbeat", "lost.wait", "new", "new asynchronous"}
    assert all("make a new Client" in error and "'spawn'" in error for error in tried.values())
    assert [line for line in said if line.startswith("parent ")] == [
        "parent child ended with 3",
        "parent is_held True",
        "parent watch Changes",
        "parent closed",
    ]


def test_a_child_that_leaves_the_block_of_a_lock_hears_that_it_is_not_its_own(daemon: DaemonProcess, root: str) -> None:
    """H5"""
    said = run(daemon.address, f"{root}/lock", "fall_through")
    assert sorted(said) == [
        "child is_held False",
        "child lost FORKED",
        "parent child ended with 0",
        "parent is_held True",
    ]


def test_no_child_is_ended_by_what_grpc_does_at_a_fork(daemon: DaemonProcess, root: str) -> None:
    """Its own handlers, which are on by default, crash about ten of these."""
    assert run(daemon.address, f"{root}/lock", "many") == ["parent failed 0"]


def test_a_client_that_is_closed_before_a_fork_leaves_the_child_free_to_make_its_own(
    daemon: DaemonProcess, root: str
) -> None:
    said = run(daemon.address, f"{root}/lock", "afterwards")
    assert said == ["child is_held True", "child get /", "parent child ended with 0"]


def patched(address: str, who: str) -> list[str]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.client.parts.patched", address, who]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("who", ["gevent", "gevent without threads", "eventlet"])
def test_where_threads_are_greenlets_a_client_is_refused_instead_of_hanging(daemon: DaemonProcess, who: str) -> None:
    both = patched(daemon.address, who)
    assert len(both) == 2
    assert all(line.startswith(f"{who.split()[0]} has patched") and "not patched" in line for line in both)


def test_sockets_that_are_greenlets_own_do_no_harm(daemon: DaemonProcess) -> None:
    assert patched(daemon.address, "gevent for sockets alone") == ["made", "made", "/"]
