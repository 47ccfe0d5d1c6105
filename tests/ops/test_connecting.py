"""What stands in the way of a session is told in the log, the status, the doctor and the readiness alike."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kazoo.client import KazooClient

from tests.cli.conftest import Zkside
from tests.ops.process import DaemonProcess
from zkside.cli.zookeeper import ZooKeeperServer, free_port


def until(ask: Callable[[], Any], within_s: float = 30.0) -> Any:
    """The first true answer. (The daemon is another process: there is nothing to wait for but its answers.)"""
    end_s = time.monotonic() + within_s
    while not (answer := ask()):
        assert time.monotonic() < end_s, "not within its time"
        time.sleep(0.05)
    return answer


def not_ready(daemon: DaemonProcess, words: str) -> str:
    def ask() -> str:
        status, text = daemon.get("/readyz")
        return text if status == 503 and words in text else ""

    return str(until(ask))


def check_everywhere(daemon: DaemonProcess, words: str) -> None:
    zkside = Zkside(daemon.address)
    assert words in not_ready(daemon, words)
    status = zkside("status", "-o", "json").json["session"]
    assert words in status["last_error"]
    assert abs(status["last_error_unix_s"] - time.time()) < 60
    assert words in zkside("status").out
    doctor = zkside("doctor")
    assert doctor.code == 1
    assert words in doctor.out
    assert words in json.loads(daemon.get("/statusz")[1])["session"]["connecting"]["last_error"]


@pytest.mark.parametrize(
    ("hosts", "keys", "words", "reason"),
    [
        ("nowhere.invalid:2181", {}, "nowhere.invalid:2181: does not resolve: ", "resolve"),
        ("127.0.0.1:{free}", {}, "127.0.0.1:{free}: connection refused", "refused"),
        ("{server}", {"ZOOKEEPER_TLS_ENABLED": "true"}, "{server}: TLS: ", "tls"),
        ("{server}", {"ZOOKEEPER_AUTH": "unheard-of:x"}, "authentication by 'unheard-of'", "auth"),
        ("{server}/none/such", {}, "the chroot /none/such does not exist", "chroot"),
    ],
    ids=["name", "port", "tls", "credentials", "chroot"],
)
def test_it_is_told_once_in_the_log_and_stays_as_the_last_error(
    tmp_path: Path, zookeeper: ZooKeeperServer, hosts: str, keys: dict[str, str], words: str, reason: str
) -> None:
    """O5: and counted by its reason."""
    names = {"free": free_port(), "server": zookeeper.hosts}
    words = words.format(**names)
    with DaemonProcess(tmp_path, ZOOKEEPER_HOSTS=hosts.format(**names), **keys) as daemon:
        check_everywhere(daemon, words)
        assert f'zkside_zookeeper_connect_failures_total{{reason="{reason}"}} 0.0' not in daemon.get("/metrics")[1]
        time.sleep(1.5)
        daemon.signal(signal.SIGTERM)
        daemon.wait_ended()
        told = [line for line in daemon.lines if "connection.failed" in line]
        assert len(told) == 1


def test_a_chroot_that_comes_and_goes_is_followed(tmp_path: Path, hosts: str, stock_client: KazooClient) -> None:
    """O5, H2: within seconds, and what was held is told to be lost."""
    chroot = hosts[hosts.index("/") :]
    with DaemonProcess(tmp_path, ZOOKEEPER_HOSTS=f"{hosts}/app", ZOOKEEPER_SESSION_TIMEOUT="4s") as daemon:
        check_everywhere(daemon, f"the chroot {chroot}/app does not exist")
        doctor = Zkside(daemon.address)("doctor").out
        assert "zookeeper.create_chroot" in doctor
        stock_client.create("/app")
        until(lambda: daemon.get("/readyz")[0] == 200, within_s=3)
        zkside = Zkside(daemon.address)
        assert zkside("doctor").code == 0
        assert zkside("create", "/made").code == 0
        stock_client.delete("/app", recursive=True)
        not_ready(daemon, f"the chroot {chroot}/app does not exist")
        daemon.wait_for("session.lost")
        stock_client.create("/app")
        until(lambda: daemon.get("/readyz")[0] == 200, within_s=10)


def test_a_chroot_is_made_where_that_is_wanted(tmp_path: Path, hosts: str, stock_client: KazooClient) -> None:
    keys = {"ZOOKEEPER_CREATE_CHROOT": "true", "ZOOKEEPER_DEFAULT_ACL": "world:anyone:cdrwa"}
    with DaemonProcess(tmp_path, ZOOKEEPER_HOSTS=f"{hosts}/a/b", **keys) as daemon:
        until(lambda: daemon.get("/readyz")[0] == 200)
        assert stock_client.exists("/a/b") is not None
