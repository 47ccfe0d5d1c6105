"""`zkside elect`, `join`, `observe` and `members`: real processes, a real daemon, real ZooKeeper."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from kazoo.client import KazooClient

from tests.cli import worker
from tests.cli.conftest import Zkside
from tests.cli.test_lock import line_of, running, wait_silent, working
from tests.ops.process import DaemonProcess
from zkside.cli import exits


def event_of(process: subprocess.Popen[str]) -> Any:
    return json.loads(line_of(process))


def test_the_next_candidate_leads_when_the_leaders_zkside_is_killed(
    zkside: Zkside, chroot: str, tmp_path: Path
) -> None:
    """H1, H4"""
    path = f"{chroot}/e"
    with (
        running(zkside, "elect", path, "--id", "a", "--", *worker.command(tmp_path / "a", stubborn=True)) as first,
        running(zkside, "observe", path, "-o", "json") as observing,
    ):
        _, token = working(first)
        while (leader := event_of(observing)["leader"]) is None:
            pass
        assert (leader["data"], leader["fencing_token"]) == ("a", token)
        command = worker.command(tmp_path / "b")
        with running(zkside, "elect", path, "--id", "b", "--value", "host:80", "-o", "json", "--", *command) as second:
            assert second.stderr is not None
            assert json.loads(second.stderr.readline())["state"] == "WAITING"
            assert [line.split()[0] for line in zkside("who", path).out.splitlines()] == ["holds", "waits"]
            first.kill()
            _, next_token = working(second)
            assert next_token > token
            while (leader := event_of(observing)["leader"]) is None or leader["fencing_token"] == token:
                pass
            assert leader["data"] == "host:80"
            wait_silent(first)
            assert worker.entries(tmp_path / "a")[-1].at_ns < worker.entries(tmp_path / "b")[0].at_ns
            second.send_signal(signal.SIGTERM)
            assert second.wait(30) == worker.ENDED_BY_SIGTERM
        while event_of(observing)["leader"] is not None:
            pass
    assert zkside("who", path).code == exits.NOT_FOUND


def test_a_candidate_stands_again_when_its_command_has_ended(zkside: Zkside, chroot: str) -> None:
    """H2"""
    path = f"{chroot}/e"
    script = "echo $ZKSIDE_FENCING_TOKEN; exit 3"
    with running(zkside, "elect", path, "--again", "--", "sh", "-c", script) as process:
        tokens = [int(line_of(process)) for _ in range(3)]
        assert tokens == sorted(set(tokens))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (3, 128 + signal.SIGTERM)
    assert zkside.process("elect", path, "--again", "--", "there-is-no-such-command").code == exits.NO_COMMAND


def test_a_candidate_stands_again_when_the_leadership_was_lost(
    zkside: Zkside, chroot: str, stock_client: KazooClient, tmp_path: Path
) -> None:
    with running(zkside, "elect", f"{chroot}/e", "--again", "--", *worker.command(tmp_path / "log")) as process:
        _, token = working(process)
        stock_client.delete(f"/e/{stock_client.get_children('/e')[0]}")
        assert working(process)[1] > token
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == worker.ENDED_BY_SIGTERM


def test_a_candidate_stands_again_when_the_daemon_comes_back(hosts: str, tmp_path: Path) -> None:
    with DaemonProcess(tmp_path, ZOOKEEPER_HOSTS=hosts) as daemon:
        zkside = Zkside(daemon.address)
        with running(zkside, "elect", "/e", "--again", "--", *worker.command(tmp_path / "log")) as process:
            _, token = working(process)
            daemon.signal(signal.SIGTERM)
            daemon.wait_ended()
            with DaemonProcess(tmp_path, ZOOKEEPER_HOSTS=hosts):
                assert line_of(process) == "SIGTERM\n"
                assert working(process)[1] > token
                process.send_signal(signal.SIGTERM)
                assert process.wait(30) == worker.ENDED_BY_SIGTERM


def test_members_come_and_go(zkside: Zkside, chroot: str) -> None:
    group = f"{chroot}/g"
    with running(zkside, "members", group, "--watch", "-o", "json") as watching:
        assert event_of(watching)["members"] == []
        with running(zkside, "join", group, "--id", "a", "--data", "here", "--", "sleep", "60") as first:
            joined = event_of(watching)
            assert joined["joined"] == ["a"]
            assert [(one["member_id"], one["data"]) for one in joined["members"]] == [("a", "here")]
            listed = zkside("members", group, "-o", "json").json_lines
            assert [(one["member_id"], one["fencing_token"]) for one in listed] == [
                ("a", joined["members"][0]["fencing_token"])
            ]
            assert zkside("members", group).out.startswith("a  fencing token ")
            assert zkside.process("join", group, "--id", "a", "--", "true").code == exits.EXISTS
            waiting = ("join", group, "--id", "a", "--on-exists", "wait", "--timeout", "200ms", "--", "true")
            assert zkside.process(*waiting).code == exits.NOT_GRANTED
            first.send_signal(signal.SIGTERM)
            assert first.wait(30) == 128 + signal.SIGTERM
            assert event_of(watching)["left"] == ["a"]


def test_a_member_without_a_command_stays_until_a_signal(zkside: Zkside, chroot: str) -> None:
    group = f"{chroot}/services/web"
    service = json.dumps({"address": "10.0.0.1", "port": 80, "payload": {"zone": "a"}})
    with running(zkside, "join", group, "--id", "one", "--service", service, "-o", "json") as process:
        assert event_of(process)["state"] == "HELD"
        found = zkside("members", group, "-o", "json").json["service"]
        assert (found["name"], found["id"], found["address"], found["port"]) == ("web", "one", "10.0.0.1", 80)
        assert json.loads(found["payload"]) == {"zone": "a"}
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == exits.OK
    assert zkside("members", group).out == ""


def test_the_command_of_a_member_is_told_when_somebody_takes_the_membership_away(
    zkside: Zkside, chroot: str, stock_client: KazooClient, tmp_path: Path
) -> None:
    with running(zkside, "join", f"{chroot}/g", "--id", "a", "--", *worker.command(tmp_path / "log")) as process:
        working(process)
        stock_client.delete("/g/a")
        assert line_of(process) == "SIGTERM\n"
        assert process.wait(30) == exits.LOST


@pytest.mark.parametrize("service", ["{", "[]", '{"adress": "x"}', '{"port": "80"}', '{"port": true}'])
def test_a_service_that_makes_no_sense_is_refused(zkside: Zkside, service: str) -> None:
    assert zkside("join", "/g", "--service", service).code == exits.USAGE


def test_data_or_a_service_not_both(zkside: Zkside) -> None:
    assert zkside("join", "/g", "--data", "x", "--service", "{}").code == exits.USAGE
