"""What the command line tells a person when something does not go as hoped, and by which code it ends."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

from tests.cli import worker
from tests.cli.conftest import Zkside
from tests.cli.test_lock import cut_off, line_of, running, working  # noqa: F401 (a fixture)
from tests.ops.process import DaemonProcess
from tests.parts.proxy import Proxy
from zkside.cli import exits, output, why
from zkside.cli.invocation import Invocation
from zkside.cli.manual import PAGES
from zkside.cli.output import Format
from zkside.cli.root import zkside as root
from zkside.client.fault import BY_REASON
from zkside.client.forked import REASON as FORKED
from zkside.client.holding import _MADE_AGAIN
from zkside.errors import ZksideError
from zkside.model.hold import Reason

INVOCATION = Invocation(None, None, None, None, None, None, Format.TEXT, 1.0, "server")


@contextmanager
def context_of(name: str) -> Iterator[None]:
    """As if this command ran."""
    context = click.Context(root, info_name="zkside")
    for word in name.split():
        assert isinstance(context.command, click.Group)
        command = context.command.get_command(context, word)
        assert command is not None
        context = click.Context(command, parent=context, info_name=word)
    with context.scope():
        yield


@pytest.mark.parametrize("name", PAGES)
def test_no_command_ends_with_a_status_that_its_help_does_not_name(name: str) -> None:
    """Whatever the daemon answers, also a newer one."""
    with context_of(name):
        for raised in (*BY_REASON.values(), KeyboardInterrupt, BrokenPipeError):

            def body(raised: type[BaseException] = raised) -> int:
                raise raised

            with pytest.raises(SystemExit) as ended:
                INVOCATION.end(body)
            assert ended.value.code in PAGES[name].statuses, raised
        for code in exits.MEANINGS:
            with pytest.raises(SystemExit) as ended:
                INVOCATION.end(lambda code=code: code)  # type: ignore[misc]
            assert ended.value.code in PAGES[name].statuses or PAGES[name].passes_on
            assert ended.value.code == code or code not in PAGES[name].statuses


def test_a_code_that_has_no_name_is_told_as_any_other_error(capfd: pytest.CaptureFixture[str]) -> None:
    def body() -> int:
        raise BY_REASON["BAD_VERSION"]("what happened")

    with context_of("status"), pytest.raises(SystemExit) as ended:
        INVOCATION.end(body)
    assert ended.value.code == exits.ERROR
    assert capfd.readouterr().err == "zkside: what happened\n"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("hold", "{}/absent/a"), exits.NOT_FOUND),
        (("hold", "{}/there"), exits.EXISTS),
        (("hold", "{}/there", "--on-exists", "wait"), exits.EXISTS),
        (("hold", "{}/a", "--acl", "auth::cdrwa"), exits.REFUSED),
        (("lock", "{}/l", "--acl", "auth::cdrwa"), exits.REFUSED),
        (("elect", "{}/e", "--acl", "auth::cdrwa"), exits.REFUSED),
        (("join", "{}/g", "--id", "a", "--acl", "auth::cdrwa"), exits.REFUSED),
    ],
)
def test_what_stands_in_the_way_of_a_hold_has_its_code(
    zkside: Zkside, chroot: str, arguments: tuple[str, ...], code: int
) -> None:
    zkside("create", f"{chroot}/there")
    run = zkside(*(argument.format(chroot) for argument in arguments))
    assert run.code == code, run
    assert code in PAGES[arguments[0]].statuses


@pytest.mark.parametrize("what", ["hold", "join"])
def test_a_name_that_stays_taken_is_not_told_as_a_queue(zkside: Zkside, chroot: str, what: str) -> None:
    taken, of = ((f"{chroot}/me",), f"{chroot}/me") if what == "hold" else ((chroot, "--id", "me"), f"{chroot}/me")
    with running(zkside, what, *taken, "-o", "json") as holder:
        line_of(holder)
        waiting = zkside.process(what, *taken, "--on-exists", "wait", "--timeout", "200ms")
        assert waiting.code == exits.NOT_GRANTED
        assert f"{of} was still another's node after 0.2 s; no node was made" in waiting.err
        at_once = zkside.process(what, *taken, "--on-exists", "wait", "--timeout", "0")
        assert (at_once.code, "was not to be waited for" in at_once.err) == (exits.NOT_GRANTED, True)
        assert "queue" not in waiting.err + at_once.err


def test_a_signal_ends_the_wait_of_a_hold(zkside: Zkside, chroot: str) -> None:
    path = f"{chroot}/me"
    with running(zkside, "hold", path) as holder:
        line_of(holder)
        with running(zkside, "hold", path, "--on-exists", "wait") as waiter:
            assert line_of(waiter).startswith("WAITING")
            waiter.send_signal(signal.SIGINT)
            assert waiter.wait(30) == exits.INTERRUPTED


# Why, and how


def test_every_reason_to_end_is_told_in_words() -> None:
    """Those of a hold that goes well, and of one that was never granted, end nothing."""
    well = {Reason.NONE, Reason.QUEUED, Reason.GRANTED, Reason.CREATED, Reason.RESUMED, Reason.WAIT_TIMEOUT}
    reasons = {reason.value for reason in set(Reason) - well} | {*_MADE_AGAIN, "CLIENT_CLOSED", "INTERNAL", FORKED}
    assert reasons - set(why.WORDS) == set()


def message_of(process: subprocess.Popen[str]) -> tuple[str, str]:
    """The next message of a command that talks JSON, and its reason."""
    assert process.stderr is not None
    for line in process.stderr:
        told = json.loads(line)
        if "message" in told:
            return told["message"], told.get("reason", "")
    raise AssertionError("it ended without a message")


def test_a_command_that_does_not_end_is_told_to_have_been_killed(hosts: str, tmp_path: Path) -> None:
    with DaemonProcess(tmp_path, ZOOKEEPER_HOSTS=hosts) as daemon:
        command = worker.command(tmp_path / "log", stubborn=True)
        with running(Zkside(daemon.address), "lock", "/l", "-o", "json", "--", *command) as process:
            working(process)
            daemon.signal(signal.SIGSTOP)
            told, reason = message_of(process)
            assert "the daemon does not answer" in told
            assert told.endswith("was told to end (SIGTERM)")
            assert reason == "DAEMON_SILENT", "not the reason for which it was granted"
            killed, _ = message_of(process)
            assert killed.endswith("had not ended in time, and was killed (SIGKILL)")
            daemon.signal(signal.SIGCONT)
            assert process.wait(30) == exits.LOST


def test_a_lock_that_is_gone_at_once_is_told_so(zkside: Zkside, chroot: str, tmp_path: Path) -> None:
    with running(zkside, "lock", f"{chroot}/l", "-o", "json", "--", *worker.command(tmp_path / "log")) as process:
        working(process)
        zkside("delete", "-r", f"{chroot}/l")
        told, reason = message_of(process)
        assert "somebody deleted its node (NODE_DELETED)" in told
        assert told.endswith("was killed at once (SIGKILL)")
        assert reason == "NODE_DELETED"


def test_no_kill_follows_a_signal_that_was_passed_on(zkside: Zkside, chroot: str, tmp_path: Path) -> None:
    """As docs/cli.md says: what the command makes of it is its own affair."""
    log = tmp_path / "log"
    command = worker.command(log, stubborn=True)
    with running(zkside, "lock", f"{chroot}/l", "--kill-after", "100ms", "--", *command) as process:
        working(process)
        process.send_signal(signal.SIGTERM)
        assert line_of(process) == "SIGTERM\n"
        process.send_signal(signal.SIGUSR1)
        assert line_of(process) == "SIGUSR1\n"
        at_ns = worker.entries(log)[-1].at_ns
        while worker.entries(log)[-1].at_ns < at_ns + 500_000_000:
            assert process.poll() is None


# Without an answer of ZooKeeper


def test_a_watch_says_when_it_is_stale_and_when_it_is_current_again(cut_off: Zkside, proxy: Proxy) -> None:  # noqa: F811
    with running(cut_off, "watch", "/") as watching:
        assert line_of(watching).startswith("SNAPSHOT")
        assert line_of(watching).split() == ["/"]
        proxy.refuse()
        proxy.cut()
        lost = line_of(watching)
        assert lost.startswith("SESSION   SUSPENDED")
        assert "stale from here on" in lost
        proxy.accept()
        seen = [line_of(watching)]
        while "current again" not in seen[-1]:
            assert "still stale" in seen[-1], seen
            seen.append(line_of(watching))
        assert seen[-1].startswith("SESSION   CONNECTED")


def test_it_is_told_who_does_not_answer(proxy: Proxy, proxy_hosts: str, tmp_path: Path) -> None:
    with DaemonProcess(tmp_path, ZOOKEEPER_HOSTS=proxy_hosts, ZOOKEEPER_SESSION_TIMEOUT="4s") as daemon:
        zkside = Zkside(daemon.address)
        daemon.wait_for("session.connected")
        proxy.half_open()
        late = zkside("get", "/", "-t", "300ms")
        assert late.code == exits.TIMEOUT
        assert f"The daemon is there, so it waits for ZooKeeper: its server {proxy.hosts} has not answered" in late.err
        daemon.wait_for("session.suspended")
        assert f"{proxy.hosts}: no answer for" in zkside("status").out
        daemon.signal(signal.SIGSTOP)
        assert "hangs or is stopped" in zkside("get", "/", "-t", "300ms").err
        daemon.signal(signal.SIGCONT)
        proxy.heal()


# Small things


@pytest.mark.parametrize(
    ("number", "noun", "told"),
    [
        (0, "key", "0 keys"),
        (1, "key", "1 key"),
        (2, "key", "2 keys"),
        (1, "process", "1 process"),
        (2, "process", "2 processes"),
    ],
)
def test_one_is_told_in_the_singular(number: int, noun: str, told: str) -> None:
    assert output.count(number, noun) == told


def test_a_configuration_is_told_by_how_many_keys_it_is_not_the_defaults(zkside: Zkside, tmp_path: Path) -> None:
    file = tmp_path / "zkside.toml"
    for text, told in (
        ("", "valid; every key is at its default\n"),
        ('state_dir = "/x"\n', "valid; 1 key is not at its default\n"),
        ('state_dir = "/x"\nsocket_mode = "0600"\n', "valid; 2 keys are not at their default\n"),
    ):
        file.write_text(text)
        assert zkside("config", "check", "--config", str(file)).out == told


def test_dev_does_not_offer_what_it_refuses(zkside: Zkside) -> None:
    assert "--zookeeper-hosts" not in zkside("dev", "--help").out
    assert "--zookeeper-session-timeout" in zkside("dev", "--help").out
    assert "--zookeeper-hosts" in zkside("serve", "--help").out


def test_errors_that_no_table_knows_are_no_loss_of_words() -> None:
    assert why.told("SOMETHING_NEW") == "SOMETHING_NEW"
    assert why.told("") == "for an unknown reason"
    assert exits.code_of(ZksideError()) == exits.ERROR
