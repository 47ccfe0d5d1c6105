"""serve and dev, as they are run."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import Zkside, environment
from zkside.cli import exits


@contextmanager
def running(address: str, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "zkside", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        env=environment(address) | variables,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], words: str) -> list[str]:
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if words in line:
            return lines
    raise AssertionError(f"ended without {words!r}: {lines}")


def test_dev_runs_a_real_zookeeper_and_what_it_prints_works_when_pasted(tmp_path: Path) -> None:
    runtime = {"XDG_RUNTIME_DIR": str(tmp_path)}
    with running("", "dev", **runtime) as process:
        lines = read_until(process, "Ctrl-C")
        assert any("ZooKeeper" in line and "private" in line for line in lines)
        pasted = [line.strip() for line in lines if re.search(r" (create|get|set|doctor)\b", line)]
        assert len(pasted) == 4
        for command in pasted:
            done = subprocess.run(
                ["/bin/sh", "-c", command],
                capture_output=True,
                text=True,
                env=environment("") | runtime,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, (command, done)
        zookeeper_port = next(re.search(r"127\.0\.0\.1:(\d+)", line) for line in lines if "private" in line)
        assert zookeeper_port is not None
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == exits.OK
    assert not (tmp_path / "zkside" / "zkside.sock").exists()
    listening = Path("/proc/net/tcp").read_text()
    assert f":{int(zookeeper_port[1]):04X} 00000000:0000 0A" not in listening, "ZooKeeper ended with it"


def test_dev_on_memory_says_so_and_the_doctor_too(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/zkside.sock"
    with running(address, "dev", "--memory") as process:
        lines = read_until(process, "Ctrl-C")
        assert any("memory" in line for line in lines)
        assert f"  export ZKSIDE_ADDRESS={shlex.quote(address)}" in lines
        zkside = Zkside(address)
        assert zkside("create", "/a", "x").code == exits.OK
        doctor = zkside("doctor", "-o", "json")
        assert doctor.code == exits.OK
        assert [one["level"] for one in doctor.json_lines if one["check"] == "daemon"] == ["warn"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == exits.OK


def test_dev_is_configured_as_serve_is_and_says_by_what(tmp_path: Path) -> None:
    listen = f"unix:{tmp_path}/zkside.sock,127.0.0.1:0"
    (tmp_path / "zkside.toml").write_text('[log]\nlevel = "error"\n')
    flags = ("--memory", "--http-listen", "127.0.0.1:0", "--config", str(tmp_path / "zkside.toml"))
    variables = {
        "ZKSIDE_LISTEN": listen,
        "ZKSIDE_ZOOKEEPER_HOSTS": "real.example:2181",
        "ZKSIDE_HTTP_LISTEN": "[::1]:1",
    }
    with running("", "dev", *flags, **variables) as process:
        told = "\n".join(read_until(process, "Ctrl-C"))
        page = re.search(r"http://(127\.0\.0\.1:\d+)/metrics", told)
        assert page is not None, "the flag, not the variable"
        with urllib.request.urlopen(f"http://{page[1]}/metrics", timeout=20) as answer:
            assert b"zkside_" in answer.read()
        assert re.search(r"clients +unix:\S+/zkside\.sock, 127\.0\.0\.1:[1-9]", told)
        for key in ("listen", "http.listen", "log.level"):
            assert re.search(rf"^  {key}: ", told, re.MULTILINE), told
        assert re.search(r"zookeeper\.hosts .*ZKSIDE_ZOOKEEPER_HOSTS.* is not used", told)
        assert Zkside(f"unix:{tmp_path}/zkside.sock")("create", "/a", "x").code == exits.OK
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == exits.OK


def test_dev_runs_no_other_ensemble(zkside: Zkside) -> None:
    run = zkside("dev", "--zookeeper-hosts", "real.example:2181")
    assert run.code == exits.USAGE
    assert "zkside serve" in run.err


def test_dev_says_which_directory_cannot_be_made(zkside: Zkside) -> None:
    run = zkside("dev", "--data", "/proc/nope")
    assert run.code == exits.CANNOT_START
    assert run.err.splitlines()[-1].startswith("zkside: --data /proc/nope: ")


def test_dev_without_any_zookeeper_goes_on_with_memory(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    address = f"unix:{tmp_path}/zkside.sock"
    with running(address, "dev", PATH=str(tmp_path / "empty"), JAVA_HOME=str(tmp_path / "empty")) as process:
        lines = read_until(process, "Ctrl-C")
        assert any("apt-get install" in line for line in lines), "it says how to get one"
        assert Zkside(address)("create", "/a", "x").code == exits.OK
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == exits.OK


def test_serve_takes_flags_and_ends_in_order(hosts: str, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/zkside.sock"
    flags = ("--listen", address, "--zookeeper-hosts", hosts, "--http-listen", "127.0.0.1:0", "--log-format", "json")
    with running("", "serve", *flags) as process:
        read_until(process, "session.connected")
        assert Zkside(address)("create", "/a", "x", "-t", "20s").code == exits.OK
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == exits.OK


def test_a_second_daemon_on_the_socket_is_refused_with_a_code_of_its_own(zkside: Zkside, hosts: str) -> None:
    run = Zkside("").process("serve", "--listen", zkside.address, "--zookeeper-hosts", hosts, "--http-listen", "")
    assert run.code == exits.CANNOT_START
    assert "Traceback" not in run.err
    assert zkside("health").code == exits.OK, "the first one is not disturbed"


def test_serve_does_not_take_the_clients_option(zkside: Zkside) -> None:
    run = zkside("--address", "127.0.0.1:1", "serve")
    assert run.code == exits.USAGE
    assert "--listen" in run.err


@pytest.mark.parametrize(
    "arguments", [("--help",), ("completion", "bash"), ("get", "--help"), ("lock", "--help"), ("elect", "--help")]
)
def test_what_needs_no_daemon_loads_no_grpc(arguments: tuple[str, ...]) -> None:
    code = (
        "import sys, atexit; atexit.register(lambda: print('LOADED' if 'grpc' in sys.modules else 'light',"
        " file=sys.stderr)); from zkside.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=dict(os.environ), check=True
    )
    assert done.stderr.strip() == "light"


def test_a_get_loads_none_of_the_daemon(zkside: Zkside) -> None:
    code = (
        "import sys, atexit; atexit.register(lambda: print(sorted(m for m in sys.modules if m.startswith('zkside.')),"
        " file=sys.stderr)); from zkside.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "get", "/"],
        capture_output=True,
        text=True,
        env=environment(zkside.address),
        check=True,
    )
    for floor in ("zk", "hub", "rpc", "core", "recipes", "ops", "daemon", "config"):
        assert f"'zkside.{floor}" not in done.stderr
