"""The command line end to end: a process each, a real daemon, real ZooKeeper."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Zkside, environment
from zkside.cli import exits


def test_a_node_goes_through_its_life(zkside: Zkside, chroot: str) -> None:
    path = f"{chroot}/greeting"
    made = zkside.process("create", path, "hello")
    assert (made.code, made.out) == (exits.OK, f"{path}\n")
    assert zkside.process("get", path).out == "hello\n"
    assert zkside("set", path, "again", "--version", "0").code == exits.OK
    assert zkside("get", path).out == "again\n"
    assert zkside("delete", path).code == exits.OK
    assert zkside("get", path).code == exits.NOT_FOUND


def test_json_has_data_stat_and_freshness(zkside: Zkside, chroot: str) -> None:
    zkside("create", f"{chroot}/a", "text")
    got = zkside("-o", "json", "get", f"{chroot}/a").json
    assert (got["path"], got["data"], got["stat"]["version"], got["stale"]) == (f"{chroot}/a", "text", 0, False)
    assert got["zxid"] >= got["stat"]["czxid"]
    assert zkside("get", f"{chroot}/a", "-o", "json").json["data"] == "text", "options may stand behind the command"


def test_bytes_that_are_no_text_come_back_as_they_were(zkside: Zkside, chroot: str, tmp_path: Path) -> None:
    data = bytes(range(256))
    (tmp_path / "data").write_bytes(data)
    assert zkside("create", f"{chroot}/file", "--file", str(tmp_path / "data")).code == exits.OK
    assert zkside.process("create", f"{chroot}/stdin", "-", data=data).code == exits.OK
    for name in ("file", "stdin"):
        raw = zkside.process("get", "--raw", f"{chroot}/{name}").out
        assert raw.encode(errors="surrogateescape") == data
    assert "data" not in zkside("get", "-o", "json", f"{chroot}/file").json
    escaped = zkside("get", f"{chroot}/file").out
    assert "\\xff" in escaped
    assert "\x1b" not in escaped, "no control character reaches the terminal"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("get", "{}/absent"), exits.NOT_FOUND),
        (("create", "{}/a"), exits.EXISTS),
        (("set", "{}/a", "x", "--version", "9"), exits.VERSION_CONFLICT),
        (("delete", "{}"), exits.REFUSED),
        (("get", "no/slash"), exits.USAGE),
        (("stat", "{}/absent"), exits.NOT_FOUND),
        (("get", "{}/a", "{}/absent"), exits.NOT_FOUND),
        (("acl", "set", "{}/a", "nonsense"), exits.USAGE),
        (("-t", "soon", "get", "/"), exits.USAGE),
        (("get", "--max-stale", "1s", "-c", "cached", "{}/a"), exits.OK),
    ],
)
def test_exit_codes_tell_what_happened(zkside: Zkside, chroot: str, arguments: tuple[str, ...], code: int) -> None:
    zkside("create", f"{chroot}/a")
    run = zkside(*(argument.format(chroot) for argument in arguments))
    assert run.code == code, run
    assert "Traceback" not in run.err
    if code:
        assert run.err


def test_errors_are_json_too(zkside: Zkside, chroot: str) -> None:
    zkside("create", f"{chroot}/a")
    run = zkside("-o", "json", "set", f"{chroot}/a", "x", "--version", "9")
    told = json.loads(run.err)["error"]
    assert (told["reason"], told["metadata"]["actual"]) == ("BAD_VERSION", "0")


def test_without_a_daemon_the_message_says_what_to_do(tmp_path: Path) -> None:
    run = Zkside(f"unix:{tmp_path}/none.sock").process("get", "/a")
    assert run.code == exits.UNAVAILABLE
    assert "zkside serve" in run.err


def test_a_subtree_is_listed_and_drawn(zkside: Zkside, chroot: str) -> None:
    zkside("create", "--parents", f"{chroot}/a/b", "data")
    zkside("create", f"{chroot}/c")
    assert zkside("ls", chroot).out == "a\nc\n"
    assert zkside("ls", "-R", chroot).out == f"{chroot}/a\n{chroot}/a/b\n{chroot}/c\n"
    assert [line.split()[-1] for line in zkside("ls", "-l", chroot).out.splitlines()] == ["a", "c"]
    assert [node["path"] for node in zkside("ls", "-o", "json", chroot).json_lines] == [f"{chroot}/a", f"{chroot}/c"]
    assert zkside("tree", "--data", chroot).out == f"{chroot}\n├── a\n│   └── b = data\n└── c\n"
    assert zkside("tree", "-d", "1", chroot).out == f"{chroot}\n├── a\n└── c\n"
    assert zkside("delete", "-r", f"{chroot}/a").out == "2 nodes deleted\n"


def test_what_may_not_be_read_is_listed_all_the_same(zkside: Zkside, chroot: str) -> None:
    """V3"""
    zkside("create", "--parents", f"{chroot}/l/open")
    zkside("create", "--acl", "digest:them:uQXq6aGuxLlMhPUCkLwqwL3EIsM=:cdrwa", f"{chroot}/l/secret")
    path = f"{chroot}/l"
    assert zkside("ls", path).out == "open\nsecret\n"
    assert zkside("ls", "-R", path).out == f"{path}/open\n{path}/secret\n"
    assert [line.split()[-1] for line in zkside("ls", "-l", path).out.splitlines()] == ["open", "secret"]
    assert zkside("ls", "-o", "json", path).json_lines[1] == {"path": f"{path}/secret", "unreadable": True}
    assert zkside("tree", path).out == f"{path}\n├── open\n└── secret (may not be read)\n"
    assert zkside("watch", "-R", path, "-n", "1").out.splitlines()[-1].split()[0] == f"{path}/secret"


def test_a_stat_has_eleven_fields(zkside: Zkside, chroot: str) -> None:
    assert len(zkside("stat", chroot).out.splitlines()) == 11
    assert zkside("stat", "-o", "json", f"{chroot}/absent").json["exists"] is False


def test_a_transaction_comes_from_arguments_or_a_file(zkside: Zkside, chroot: str) -> None:
    """N1"""
    done = zkside("txn", f"create {chroot}/a 'two words'", f"check {chroot}/a 0", f"set {chroot}/a x 0")
    assert done.code == exits.OK
    assert done.out.startswith("committed at 0x")
    script = f"# undone as a whole\nset {chroot}/a y\n\ndelete {chroot}/absent\n"
    refused = zkside("-o", "json", "txn", "--file", "-", data=script.encode())
    assert refused.code == exits.NOT_FOUND
    assert refused.json["committed"] is False
    assert [result["reason"] for result in refused.json["results"]] == ["ROLLED_BACK", "NO_NODE"]
    assert zkside("get", f"{chroot}/a").out == "x\n"
    assert zkside("txn", "explode /a").code == exits.USAGE


def test_an_acl_is_read_as_it_is_written(zkside: Zkside, chroot: str) -> None:
    zkside("create", f"{chroot}/a", "--acl", "world:anyone:r", "--acl", "ip:127.0.0.1:cdrwa")
    assert zkside("acl", "get", f"{chroot}/a").out == "world:anyone:r\nip:127.0.0.1:cdrwa\n"
    assert zkside("acl", "set", f"{chroot}/a", "world:anyone:cdrwa").code == exits.OK
    assert zkside("acl", "get", f"{chroot}/a").out == "world:anyone:cdrwa\n"


def test_a_watch_prints_a_line_for_each_change(zkside: Zkside, chroot: str) -> None:
    with zkside.start("watch", "-R", chroot, "-o", "json", "--count", "3") as watching:
        assert watching.stdout is not None
        first = json.loads(watching.stdout.readline())
        assert (first["event"], first["reason"]) == ("SNAPSHOT", "INITIAL")
        zkside("create", f"{chroot}/a", "1")
        made = json.loads(watching.stdout.readline())
        assert (made["event"], made["path"], made["data"]) == ("CREATED", f"{chroot}/a", "1")
        zkside("delete", f"{chroot}/a")
        assert json.loads(watching.stdout.readline())["event"] == "DELETED"
        assert watching.wait(20) == exits.OK


def test_events_can_be_watched_as_zookeeper_tells_them(zkside: Zkside, chroot: str) -> None:
    """W10"""
    with zkside.start("watch", "--events", f"{chroot}/a", "--kind", "exists", "-n", "2") as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline().split()[0] == "NONE"
        zkside("create", f"{chroot}/a")
        assert watching.stdout.readline().split()[:2] == ["NODE_CREATED", f"{chroot}/a"]
        assert watching.wait(20) == exits.OK


def test_a_watch_ends_quietly_with_ctrl_c(zkside: Zkside, chroot: str) -> None:
    with zkside.start("watch", chroot) as watching:
        assert watching.stdout is not None
        watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == exits.INTERRUPTED
        assert watching.stderr is not None
        assert watching.stderr.read() == ""


def test_a_reader_that_goes_away_is_no_error(zkside: Zkside, chroot: str) -> None:
    with zkside.start("watch", "-R", "--bookmarks", chroot) as watching:
        assert watching.stdout is not None
        watching.stdout.readline()
        watching.stdout.close()
        zkside("create", f"{chroot}/a")
        assert watching.wait(20) == exits.OK
        assert watching.stderr is not None
        assert watching.stderr.read() == ""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_hold_lasts_until_it_is_interrupted(zkside: Zkside, chroot: str, signum: signal.Signals) -> None:
    with zkside.start("hold", f"{chroot}/me", "here", "-o", "json") as holding:
        assert holding.stdout is not None
        held = json.loads(holding.stdout.readline())
        node = zkside("get", f"{chroot}/me", "-o", "json").json
        assert (held["state"], held["fencing_token"]) == ("HELD", node["stat"]["czxid"])
        listed = zkside("admin", "holds", "-o", "json").json_lines
        assert [one["path"] for one in listed if one["hold_id"] == held["hold_id"]] == [f"{chroot}/me"]
        guarded = zkside("txn", "--guard", held["hold_id"], f"create {chroot}/guarded")
        assert guarded.code == exits.OK
        holding.send_signal(signum)
        assert holding.wait(20) == exits.OK
    assert zkside("stat", f"{chroot}/me").code == exits.NOT_FOUND


def test_a_lost_hold_has_an_exit_code_of_its_own(zkside: Zkside, chroot: str) -> None:
    with zkside.start("hold", f"{chroot}/me") as holding:
        assert holding.stdout is not None
        holding.stdout.readline()
        zkside("delete", f"{chroot}/me")
        assert holding.wait(20) == exits.LOST


def test_the_daemon_tells_of_itself(zkside: Zkside) -> None:
    status = zkside("status", "-o", "json").json
    assert (status["session"]["state"], status["backend"], status["draining"]) == ("CONNECTED", "kazoo", False)
    assert "CONNECTED" in zkside("status").out
    health = zkside("health")
    assert (health.code, health.out) == (exits.OK, "SERVING\n")
    assert zkside("health", "--service", "nonsense").code == exits.UNAVAILABLE


def test_watches_and_streams_are_listed(zkside: Zkside, chroot: str) -> None:
    with zkside.start("watch", chroot) as watching:
        assert watching.stdout is not None
        watching.stdout.readline()
        watches = zkside("admin", "watches", "-o", "json").json_lines
        assert [one["subscribers"] for one in watches if one["path"] == chroot] == [1]
        assert any(
            one["method"].endswith("WatchService/Watch") for one in zkside("admin", "streams", "-o", "json").json_lines
        )
        watching.kill()


def test_the_doctor_finds_a_healthy_daemon_healthy(zkside: Zkside) -> None:
    findings = zkside("doctor", "-o", "json").json_lines
    assert {finding["level"] for finding in findings} == {"ok"}
    assert {"address", "socket", "versions", "daemon", "session", "lease", "zookeeper", "clock"} == {
        finding["check"] for finding in findings
    }


def test_the_doctor_says_what_to_do_about_a_dead_socket(tmp_path: Path) -> None:
    (tmp_path / "file.sock").write_text("")
    missing = Zkside(f"unix:{tmp_path}/none.sock")("doctor")
    wrong = Zkside(f"unix:{tmp_path}/file.sock")("doctor")
    assert (missing.code, wrong.code) == (exits.ERROR, exits.ERROR)
    assert "zkside serve" in missing.out
    assert "is no socket" in wrong.out


def test_configuration_is_checked_and_printed(zkside: Zkside, tmp_path: Path) -> None:
    good = tmp_path / "good.toml"
    good.write_text('[zookeeper]\nhosts = "zk1:2181"\n')
    assert zkside("config", "check", "--config", str(good)).code == exits.OK
    printed = zkside("config", "print", "--config", str(good), "--log-level", "debug").out
    assert 'hosts = "zk1:2181"' in printed
    assert "flag: --log-level" in printed
    bad = tmp_path / "bad.toml"
    bad.write_text('[zookeeper]\nhost = "zk1:2181"\n')
    refused = zkside("config", "check", "--config", str(bad))
    assert refused.code == exits.CANNOT_START
    assert "did you mean zookeeper.hosts" in refused.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(zkside: Zkside, shell: str) -> None:
    run = zkside("completion", shell)
    assert run.code == exits.OK
    assert "_ZKSIDE_COMPLETE" in run.out


def test_the_shell_completes_paths_of_nodes(zkside: Zkside, chroot: str) -> None:
    zkside("create", f"{chroot}/greeting")
    variables = environment(zkside.address) | {
        "_ZKSIDE_COMPLETE": "bash_complete",
        "COMP_WORDS": f"zkside get {chroot}/gr",
        "COMP_CWORD": "2",
    }
    run = subprocess.run([sys.executable, "-m", "zkside"], capture_output=True, text=True, env=variables, check=True)
    assert run.stdout == f"plain,{chroot}/greeting\n"
