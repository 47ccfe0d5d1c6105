"""`zkside lock … -- COMMAND`: real processes, a real daemon, real ZooKeeper."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kazoo.client import KazooClient

from tests.cli import worker
from tests.cli.conftest import Zkside, environment
from tests.ops.process import DaemonProcess
from tests.parts.proxy import Proxy
from zkside.cli import exits
from zkside.cli.deadline import boottime_ns

BOUND_NS = 1_500_000_000
"""What a process believes without hearing more (ADR 7)."""


@contextmanager
def running(zkside: Zkside, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command that is killed in the end, and all that it runs with it."""
    with zkside.start(*arguments) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.stderr.read() if process.stderr else ""
    return line


def working(process: subprocess.Popen[str]) -> tuple[int, int]:
    """Wait until the worker works; its process and its fencing token."""
    pid, token = line_of(process).split()
    return int(pid), int(token)


def wait_silent(process: subprocess.Popen[str]) -> None:
    """Until nobody has its standard output any more: zkside, its guard and the command have ended."""
    assert process.stdout is not None
    process.stdout.read()


@pytest.fixture
def cut_off(tmp_path: Path, proxy: Proxy, proxy_hosts: str) -> Iterator[Zkside]:
    """The command, with a daemon of the test's own behind a network of the test's own."""
    with DaemonProcess(tmp_path, ZOOKEEPER_HOSTS=proxy_hosts) as daemon:
        yield Zkside(daemon.address)


def test_no_two_commands_run_at_the_same_time(zkside: Zkside, chroot: str, tmp_path: Path) -> None:
    """H1, H2"""
    log = tmp_path / "log"
    script = f'echo in $ZKSIDE_FENCING_TOKEN >> "{log}"; sleep 0.05; echo out $ZKSIDE_FENCING_TOKEN >> "{log}"'
    loop = f"for i in 1 2 3; do \"{sys.executable}\" -m zkside lock {chroot}/l -- sh -c '{script}'; done"
    both = [subprocess.Popen(["/bin/sh", "-c", loop], env=environment(zkside.address)) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [what for what, _ in lines] == ["in", "out"] * 6
    tokens = [int(token) for _, token in lines]
    assert tokens[::2] == tokens[1::2]
    assert tokens[::2] == sorted(set(tokens))


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "kill -KILL $$"), 137),
        (("sh", "-c", "kill -USR1 $$"), 128 + signal.SIGUSR1),
        (("there-is-no-such-command",), exits.NO_COMMAND),
        (("/etc/passwd",), exits.CANNOT_RUN),
    ],
)
def test_it_exits_as_its_command_does(zkside: Zkside, chroot: str, command: tuple[str, ...], code: int) -> None:
    done = zkside.process("lock", f"{chroot}/l", "--", *command)
    assert (done.code, done.out) == (code, "")
    assert "Traceback" not in done.err
    assert zkside("who", f"{chroot}/l").code == exits.NOT_FOUND


def test_the_command_knows_what_it_holds(zkside: Zkside, chroot: str, tmp_path: Path) -> None:
    """H2"""
    script = 'echo "$ZKSIDE_PATH $ZKSIDE_FENCING_TOKEN $ZKSIDE_HOLD_ID $ZKSIDE_ADDRESS"; exec sleep 60'
    with running(zkside, "lock", f"{chroot}/l", "--owner", "me", "--", "sh", "-c", script) as process:
        path, token, hold_id, address = line_of(process).split()
        node = zkside("get", path, "-o", "json").json
        assert (int(token), node["data"], address) == (node["stat"]["czxid"], "me", zkside.address)
        assert zkside("txn", "--guard", hold_id, f"create {chroot}/guarded").code == exits.OK
        listed = zkside("who", f"{chroot}/l", "-o", "json").json["contenders"]
        assert [(one["data"], one["is_holder"]) for one in listed] == [("me", True)]
        assert "holds" in zkside("who", f"{chroot}/l").out


def test_who_does_not_wait_is_told_so_at_once(zkside: Zkside, chroot: str, tmp_path: Path) -> None:
    path, ran = f"{chroot}/l", tmp_path / "ran"
    with running(zkside, "lock", path, "--", *worker.command(tmp_path / "log")) as process:
        working(process)
        assert zkside.process("lock", "-n", path, "--", "touch", str(ran)).code == exits.NOT_GRANTED
        limited = zkside.process("lock", "--timeout", "200ms", path, "-o", "json", "--", "touch", str(ran))
        assert limited.code == exits.NOT_GRANTED
        assert json.loads(limited.err.splitlines()[-1])["error"]["reason"] == "WAIT_TIMEOUT"
        assert len(zkside("who", path, "-o", "json").json["contenders"]) == 1, "nothing is left in the queue"
    assert not ran.exists()
    assert zkside("lock", "-n", "--timeout", "1s", path, "--", "true").code == exits.USAGE
    assert zkside("lock", "--shared", "--permits", "2", path, "--", "true").code == exits.USAGE


def test_readers_share_and_permits_are_counted(zkside: Zkside, chroot: str, tmp_path: Path) -> None:
    for name, options in (("shared", ("--shared",)), ("permits", ("--permits", "2"))):
        path = f"{chroot}/{name}"
        with (
            running(zkside, "lock", path, *options, "--", *worker.command(tmp_path / "1")) as first,
            running(zkside, "lock", path, *options, "--", *worker.command(tmp_path / "2")) as second,
        ):
            working(first)
            working(second)
            exclusive = () if name == "shared" else options
            assert zkside.process("lock", "-n", path, *exclusive, "--", "true").code == exits.NOT_GRANTED
            listed = zkside("who", path, *(["--semaphore"] if name == "permits" else [])).out
            assert len(listed.splitlines()) == 2


def test_signals_are_passed_on(zkside: Zkside, chroot: str, tmp_path: Path) -> None:
    with running(zkside, "lock", f"{chroot}/l", "--", *worker.command(tmp_path / "log")) as process:
        working(process)
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            process.send_signal(number)
            assert line_of(process) == f"{number.name}\n"
        assert process.wait(30) == worker.ENDED_BY_SIGTERM, "its own exit code, as nothing was in danger"


def test_a_signal_ends_the_wait(zkside: Zkside, chroot: str, tmp_path: Path) -> None:
    """H6"""
    path = f"{chroot}/l"
    with running(zkside, "lock", path, "--", *worker.command(tmp_path / "log")) as holder:
        working(holder)
        with running(zkside, "lock", path, "-o", "json", "--", "touch", str(tmp_path / "ran")) as waiter:
            assert waiter.stderr is not None
            assert json.loads(waiter.stderr.readline())["state"] == "WAITING"
            waiter.send_signal(signal.SIGTERM)
            assert waiter.wait(30) == 128 + signal.SIGTERM
        assert len(zkside("who", path, "-o", "json").json["contenders"]) == 1
    assert not (tmp_path / "ran").exists()


def test_without_a_command_it_holds_until_a_signal(zkside: Zkside, chroot: str) -> None:
    path = f"{chroot}/l"
    with running(zkside, "lock", path, "-o", "json") as process:
        held = json.loads(line_of(process))
        assert (held["state"], held["path"].startswith(path)) == ("HELD", True)
        assert zkside("who", path).code == exits.OK
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == exits.OK
    assert zkside("who", path).code == exits.NOT_FOUND


def test_when_zkside_is_killed_the_command_goes_with_all_that_it_started_and_the_lock_is_free(
    zkside: Zkside, chroot: str, tmp_path: Path
) -> None:
    """H1, H4: the lock goes after the command, and does not wait for the grace time."""
    path = f"{chroot}/l"
    inner = " ".join(worker.command(tmp_path / "grandchild", stubborn=True))
    script = f"{inner} & exec {' '.join(worker.command(tmp_path / 'child', stubborn=True))}"
    with running(zkside, "lock", path, "--grace", "30s", "--", "sh", "-c", script) as first:
        token = {working(first)[1], working(first)[1]}
        command = worker.command(tmp_path / "next")
        with running(zkside, "lock", path, "-o", "json", "--", *command) as second:
            assert second.stderr is not None
            assert json.loads(second.stderr.readline())["state"] == "WAITING"
            first.kill()
            killed_s = time.monotonic()
            working(second)
            assert time.monotonic() - killed_s < 15, "half of its grace time: it did not wait for it"
        wait_silent(first)
        begun_ns = worker.entries(tmp_path / "next")[0].at_ns
        for name in ("child", "grandchild"):
            found = worker.entries(tmp_path / name)
            assert {entry.token for entry in found} == token
            assert found[-1].at_ns < begun_ns


def test_when_the_guard_is_killed_the_kernel_kills_the_command(zkside: Zkside, chroot: str, tmp_path: Path) -> None:
    """H1"""
    command = worker.command(tmp_path / "log", stubborn=True)
    with running(zkside, "lock", f"{chroot}/l", "--", *command) as process:
        pid, _ = working(process)
        guard = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        assert guard != process.pid
        os.kill(guard, signal.SIGKILL)
        assert process.wait(30) == exits.LOST
        wait_silent(process)
    assert zkside("who", f"{chroot}/l").code == exits.NOT_FOUND


BEHIND = {"in its process group": "", "twice forked into a session of its own": "setsid -f "}
"""How the command starts what it leaves behind."""


def shell(script: str) -> tuple[str, ...]:
    return ("sh", "-c", script)


def leaving(log: Path, how: str, *, then: str) -> tuple[str, ...]:
    """A command that starts a worker in the background, which only SIGKILL ends, and then does something."""
    return shell(f"{BEHIND[how]}{' '.join(worker.command(log, stubborn=True))} & {then}")


def assert_over_before_the_next(zkside: Zkside, path: str, first: subprocess.Popen[str], log: Path) -> None:
    """The next holder begins after the last deed of what was left behind."""
    next_log = log.with_name("next")
    with running(zkside, "lock", path, "--", *worker.command(next_log)) as second:
        working(second)
        wait_silent(first)
        assert worker.entries(log)[-1].at_ns < worker.entries(next_log)[0].at_ns


@pytest.mark.parametrize("how", BEHIND)
@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_nothing_that_the_command_left_behind_lives_beside_the_next_holder(
    zkside: Zkside, chroot: str, tmp_path: Path, number: signal.Signals, how: str
) -> None:
    """H1: a shell lets its background jobs ignore SIGINT and SIGQUIT, and dies of them itself."""
    path, log = f"{chroot}/l", tmp_path / "log"
    command = leaving(log, how, then="sleep 60")
    with running(zkside, "lock", path, "--kill-after", "300ms", "--grace", "30s", "--", *command) as first:
        working(first)
        first.send_signal(number)
        assert_over_before_the_next(zkside, path, first, log)


@pytest.mark.parametrize("how", BEHIND)
@pytest.mark.parametrize("what", [("lock",), ("elect",), ("join", "--id", "me")], ids=lambda what: str(what[0]))
def test_a_command_has_ended_when_all_that_it_started_has(
    zkside: Zkside, chroot: str, tmp_path: Path, what: tuple[str, ...], how: str
) -> None:
    """H1: the hold is kept meanwhile, and the exit code is the command's own."""
    path, log = f"{chroot}/l", tmp_path / "log"
    name, *options = what
    command = leaving(log, how, then=f'while ! [ -s "{log}" ]; do sleep 0.02; done; exit 3')
    with running(zkside, name, path, *options, "--kill-after", "300ms", "--", *command) as first:
        working(first)
        assert first.wait(30) == 3
        assert first.stderr is not None
        assert "sh left 1 process behind" in first.stderr.read()
        last = worker.entries(log)
        assert "SIGTERM" in {entry.what for entry in last}, "it was told before it was killed"
        wait_silent(first)
        assert worker.entries(log) == last, "dead when zkside ends"


def test_what_ends_when_it_is_told_is_not_waited_for_any_longer(zkside: Zkside, chroot: str, tmp_path: Path) -> None:
    script = f"sleep 60 & echo $! > {tmp_path}/pid; exit 0"
    began_s = time.monotonic()
    assert zkside.process("lock", f"{chroot}/l", "--kill-after", "60s", "--", *shell(script)).code == 0
    assert time.monotonic() - began_s < 30
    assert not Path(f"/proc/{int((tmp_path / 'pid').read_text())}").exists()


def test_when_the_guard_is_killed_all_that_the_command_started_goes_too(
    zkside: Zkside, chroot: str, tmp_path: Path
) -> None:
    """H1"""
    path, log = f"{chroot}/l", tmp_path / "log"
    command = leaving(log, "twice forked into a session of its own", then="echo $PPID; sleep 60")
    with running(zkside, "lock", path, "--", *command) as first:
        guard, started = sorted((line_of(first).split() for _ in range(2)), key=len)
        assert len(started) == 2, "the worker works"
        os.kill(int(guard[0]), signal.SIGKILL)
        assert first.wait(30) == exits.LOST
        wait_silent(first)
    assert zkside("who", path).code == exits.NOT_FOUND


@pytest.mark.parametrize("stubborn", [False, True])
def test_cut_off_from_zookeeper_the_command_ends_before_the_lease(
    cut_off: Zkside, proxy: Proxy, tmp_path: Path, stubborn: bool
) -> None:
    """H1"""
    log = tmp_path / "log"
    command = worker.command(log, stubborn=stubborn)
    with running(cut_off, "lock", "/l", "--margin", "1s", "--", *command) as process:
        working(process)
        proxy.refuse()
        proxy.cut()
        # While there is no connection nothing moves it.
        lease_ns = cut_off("status", "-o", "json").json["session"]["lease_boottime_ns"]
        assert lease_ns > boottime_ns()
        assert process.wait(30) == exits.LOST
        assert process.stderr is not None
        assert "told to end" in process.stderr.read()
    found = worker.entries(log)
    told_ns = next(entry.at_ns for entry in found if entry.what == "SIGTERM")
    assert lease_ns - 1_200_000_000 < told_ns < lease_ns - 500_000_000, "by the margin"
    assert found[-1].at_ns < lease_ns
    if stubborn:
        assert found[-1].at_ns > told_ns + 500_000_000, "it had until shortly before the lease's end"


def test_a_connection_that_comes_back_in_time_harms_nobody(cut_off: Zkside, proxy: Proxy, tmp_path: Path) -> None:
    """H5"""
    log = tmp_path / "log"
    with running(cut_off, "lock", "/l", "-o", "json", "--", *worker.command(log)) as process:
        working(process)
        assert process.stderr is not None
        proxy.cut()
        states: list[str] = []
        while states[-2:] != ["JEOPARDY", "HELD"]:
            states.append(json.loads(process.stderr.readline())["state"])
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == worker.ENDED_BY_SIGTERM


@pytest.mark.parametrize("who", ["zkside", "daemon"])
def test_when_zkside_or_the_daemon_is_stopped_the_command_ends_before_what_could_be_believed(
    who: str, hosts: str, tmp_path: Path
) -> None:
    """H1: nobody is there to hear that it is over, and the command does not go on."""
    log = tmp_path / "log"
    with (
        DaemonProcess(tmp_path, ZOOKEEPER_HOSTS=hosts) as daemon,
        running(Zkside(daemon.address), "lock", "/l", "--", *worker.command(log, stubborn=True)) as process,
    ):
        pid, _ = working(process)
        ended = os.pidfd_open(pid)
        stopped_ns = boottime_ns()
        if who == "daemon":
            daemon.signal(signal.SIGSTOP)
        else:
            process.send_signal(signal.SIGSTOP)
        _wait_ended(ended)
        found = worker.entries(log)
        assert found[-1].at_ns < stopped_ns + BOUND_NS
        assert "SIGTERM" in {entry.what for entry in found}
        process.send_signal(signal.SIGCONT)
        assert process.wait(30) == exits.LOST
        daemon.signal(signal.SIGCONT)


def _wait_ended(pidfd: int) -> None:
    """Until that process has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(20_000)
    os.close(pidfd)


def test_a_daemon_that_is_killed_and_comes_back_harms_no_command(hosts: str, tmp_path: Path) -> None:
    """S5: within the grace time."""
    keys = {"ZOOKEEPER_HOSTS": hosts, "STATE_DIR": f"{tmp_path}/state"}
    log = tmp_path / "log"
    with DaemonProcess(tmp_path, **keys) as daemon:
        zkside = Zkside(daemon.address)
        arguments = ("lock", "/l", "--grace", "20s", "-o", "json", "--", *worker.command(log))
        with running(zkside, *arguments) as process:
            _, token = working(process)
            daemon.signal(signal.SIGKILL)
            daemon.wait_ended()
            with DaemonProcess(tmp_path, **keys):
                assert process.stderr is not None
                while '"RESUMED"' not in (line := process.stderr.readline()):
                    assert '"state"' in line, line
                assert [one["fencing_token"] for one in zkside("who", "/l", "-o", "json").json["contenders"]] == [token]
                process.send_signal(signal.SIGTERM)
                assert process.wait(30) == worker.ENDED_BY_SIGTERM
    assert [entry.what for entry in worker.entries(log) if entry.what != "WORK"] == ["SIGTERM"]


def test_without_a_daemon_the_command_is_told_before_the_grace_time_ends(hosts: str, tmp_path: Path) -> None:
    """H1"""
    log = tmp_path / "log"
    with DaemonProcess(tmp_path, ZOOKEEPER_HOSTS=hosts) as daemon:
        arguments = ("lock", "/l", "--grace", "2s", "--", *worker.command(log))
        with running(Zkside(daemon.address), *arguments) as process:
            working(process)
            daemon.signal(signal.SIGKILL)
            killed_ns = boottime_ns()
            assert process.wait(30) == exits.LOST
    *_, last = worker.entries(log)
    assert last.what == "SIGTERM"
    assert last.at_ns < killed_ns + 2_000_000_000


def test_a_daemon_that_stops_in_order_asks_for_the_lock_back(hosts: str, tmp_path: Path) -> None:
    """O3"""
    log = tmp_path / "log"
    with DaemonProcess(tmp_path, ZOOKEEPER_HOSTS=hosts) as daemon:
        with running(Zkside(daemon.address), "lock", "/l", "--", *worker.command(log)) as process:
            working(process)
            daemon.signal(signal.SIGTERM)
            assert process.wait(30) == exits.LOST
            assert process.stderr is not None
            assert "DRAINED" in process.stderr.read()
        assert daemon.wait_ended() == 0
    assert worker.entries(log)[-1].what == "SIGTERM"


def test_a_lock_that_somebody_takes_away_ends_the_command(
    zkside: Zkside, chroot: str, stock_client: KazooClient, tmp_path: Path
) -> None:
    """H5"""
    with running(zkside, "lock", f"{chroot}/l", "--", *worker.command(tmp_path / "log")) as process:
        working(process)
        stock_client.delete(f"/l/{stock_client.get_children('/l')[0]}")
        assert process.wait(30) == exits.LOST
        assert process.stderr is not None
        assert "NODE_DELETED" in process.stderr.read()


def test_a_revocable_lock_is_given_back_when_somebody_asks(
    zkside: Zkside, chroot: str, stock_client: KazooClient, tmp_path: Path
) -> None:
    with running(zkside, "lock", f"{chroot}/l", "--revocable", "--", *worker.command(tmp_path / "log")) as process:
        working(process)
        stock_client.set(f"/l/{stock_client.get_children('/l')[0]}", b"__REVOKE__")
        assert process.wait(30) == exits.LOST
    assert worker.entries(tmp_path / "log")[-1].what == "SIGTERM"


def in_terminal(zkside: Zkside, *arguments: str) -> tuple[int, int]:
    """Run it in a terminal of its own: its process and the terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, "-m", "zkside", *arguments], environment(zkside.address))
    return pid, terminal


def read_until(terminal: int, words: bytes) -> bytes:
    seen = b""
    while words not in seen:
        seen += os.read(terminal, 4096)
    return seen


def test_the_command_has_the_terminal(zkside: Zkside, chroot: str) -> None:
    script = (
        "read -r line; echo got $line; trap 'echo interrupted; exit 9' INT; echo ready; while :; do sleep 0.1; done"
    )
    pid, terminal = in_terminal(zkside, "lock", f"{chroot}/l", "--", "sh", "-c", script)
    os.write(terminal, b"hello\n")
    seen = read_until(terminal, b"ready")
    assert b"got hello" in seen, "it reads from the terminal, which the kernel allows the foreground only"
    os.write(terminal, b"\x03")
    read_until(terminal, b"interrupted")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 9


def test_ctrl_z_stops_both_and_who_is_stopped_loses_the_lock(zkside: Zkside, chroot: str, tmp_path: Path) -> None:
    """H1"""
    log = tmp_path / "log"
    pid, terminal = in_terminal(zkside, "lock", f"{chroot}/l", "--", *worker.command(log))
    ended = os.pidfd_open(int(read_until(terminal, b"\n").split()[0]))
    os.write(terminal, b"\x1a")
    _, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), "as its shell expects"
    stopped_ns = boottime_ns()
    _wait_ended(ended)
    assert worker.entries(log)[-1].at_ns < stopped_ns + BOUND_NS
    os.kill(pid, signal.SIGCONT)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == exits.LOST
