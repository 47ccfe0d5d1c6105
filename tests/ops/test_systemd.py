"""The daemon under systemd: what it tells its service manager, and the unit that runs it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ops.process import DaemonProcess
from zkside.cli.zookeeper import ZooKeeperServer
from zkside.client import Client
from zkside.config_source import read

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "deploy" / "systemd" / "zkside.service"
WATCHDOG_S = 1.0


class Systemd:
    """The receiving end of sd_notify(3): a datagram socket, as PID 1 has it."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def hear(self, within_s: float = 20.0) -> str:
        """The next message. Raises: TimeoutError."""
        self._socket.settimeout(within_s)
        return self._socket.recv(4096).decode()

    def hear_until(self, words: str) -> list[str]:
        heard = [self.hear()]
        while not heard[-1].startswith(words):
            heard.append(self.hear())
        return heard

    def hears_nothing_for(self, seconds: float) -> bool:
        """What was under way already does not count."""
        self._socket.setblocking(False)
        try:
            while True:
                self._socket.recv(4096)
        except BlockingIOError:
            pass
        try:
            self.hear(seconds)
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    path = tmp_path / "notify"
    manager = Systemd(path)
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    monkeypatch.setenv("WATCHDOG_USEC", str(int(WATCHDOG_S * 1e6)))
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    yield manager
    manager.close()


def test_it_tells_when_it_is_ready_reloads_and_stops(tmp_path: Path, systemd: Systemd) -> None:
    """O3."""
    with DaemonProcess(tmp_path, backend="memory") as daemon:
        assert systemd.hear() == "READY=1", "not before its listeners are open"
        assert "holds" in systemd.hear_until("STATUS=")[-1]
        before_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        daemon.signal(signal.SIGHUP)
        reloading = systemd.hear_until("RELOADING=1")[-1]
        match = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", reloading)
        assert match is not None
        assert before_us <= int(match[1]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        systemd.hear_until("READY=1")
        daemon.signal(signal.SIGTERM)
        systemd.hear_until("STOPPING=1")
        assert daemon.wait_ended() == 0


def test_pings_come_from_the_event_loop_so_a_daemon_that_hangs_sends_none(tmp_path: Path, systemd: Systemd) -> None:
    with DaemonProcess(tmp_path, backend="memory") as daemon:
        pinged_s: list[float] = []
        while len(pinged_s) < 4:
            systemd.hear_until("WATCHDOG=1")
            pinged_s.append(time.monotonic())
        assert (pinged_s[-1] - pinged_s[0]) / 3 < WATCHDOG_S
        daemon.signal(signal.SIGSTOP)
        assert systemd.hears_nothing_for(2 * WATCHDOG_S), "stopped as a whole"
        daemon.signal(signal.SIGCONT)
        systemd.hear_until("WATCHDOG=1")
        daemon.signal(signal.SIGWINCH)
        assert systemd.hears_nothing_for(2 * WATCHDOG_S), "its loop hangs, the rest of the process lives"
        assert daemon.get("/healthz")[0] == 503


async def test_what_the_watchdog_does_to_a_daemon_that_hangs_loses_nothing(
    tmp_path: Path, systemd: Systemd, own_zookeeper: ZooKeeperServer
) -> None:
    """S5: SIGABRT, the stacks in the log, and the next daemon has the same session."""
    keys = {"ZOOKEEPER_HOSTS": own_zookeeper.hosts, "STATE_DIR": str(tmp_path / "state")}

    async def session(daemon: DaemonProcess) -> str:
        async with Client(daemon.address) as client, asyncio.timeout(30):
            await client.get("/", wait_for_ready=True)
            return (await client.session()).session.session_id

    with DaemonProcess(tmp_path, **keys) as first:
        before = await session(first)
        first.signal(signal.SIGWINCH)
        while systemd.hear(30).startswith("WATCHDOG=1") and not systemd.hears_nothing_for(WATCHDOG_S):
            pass
        first.signal(signal.SIGABRT)
        assert first.wait_ended() == -signal.SIGABRT
        assert "Fatal Python error: Aborted" in first.log
        assert "daemon.py" in first.log
    with DaemonProcess(tmp_path, **keys) as second:
        assert await session(second) == before


def test_without_a_service_manager_nothing_is_sent(
    tmp_path: Path, systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And an address that is none of systemd's is left alone."""
    monkeypatch.setenv("NOTIFY_SOCKET", "vsock:2:1")
    with DaemonProcess(tmp_path, backend="memory") as daemon:
        daemon.signal(signal.SIGTERM)
        assert daemon.wait_ended() == 0
    assert systemd.hears_nothing_for(0.1)


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    own = ROOT / ".zkside" / "systemd"
    found = shutil.which("systemd-analyze") or str(own / "usr/bin/systemd-analyze")
    libraries = ":".join(str(folder) for folder in own.glob("usr/lib/*/systemd")) if found.startswith(str(own)) else ""
    environment = {**os.environ, "SYSTEMD_LOG_LEVEL": "warning"} | ({"LD_LIBRARY_PATH": libraries} if libraries else {})
    return subprocess.run([found, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False)


def unit_on_this_machine(tmp_path: Path) -> Path:
    """The unit with a path that exists here in the place of /opt/zkside."""
    copy = tmp_path / "zkside.service"
    text = UNIT.read_text()
    assert "ExecStart=/opt/zkside/bin/zkside serve" in text
    copy.write_text(text.replace("/opt/zkside/bin/zkside", sys.executable))
    return copy


def test_systemd_has_no_complaint_about_the_unit(tmp_path: Path) -> None:
    unit = unit_on_this_machine(tmp_path)
    done = analyze("verify", "--man=no", str(unit))
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if "zkside" in line]
    assert complaints == []
    unit.write_text(unit.read_text().replace("ProtectSystem=strict", "ProtectSystem=strictly"))
    assert "zkside.service" in analyze("verify", "--man=no", str(unit)).stderr, "a mistake would be found"


def test_the_unit_exposes_little(tmp_path: Path) -> None:
    """systemd's own measure: 0 is nothing, 10 everything; a service without any setting has 9.6."""
    unit = unit_on_this_machine(tmp_path)
    done = analyze("security", "--offline=true", "--threshold=20", "--no-pager", str(unit))
    overall = re.search(r"Overall exposure level for zkside\.service: ([\d.]+)", done.stdout)
    assert overall is not None, done.stdout + done.stderr
    assert float(overall[1]) <= 2.0
    assert done.returncode == 0


def test_the_configuration_beside_the_unit_fits_it() -> None:
    config = read(file=UNIT.with_name("zkside.toml"), environment={}).config
    unit = UNIT.read_text()
    assert "StateDirectory=zkside" in unit
    assert str(config.state_dir) == "/var/lib/zkside"
    assert [str(address) for address in config.addresses] == ["unix:/run/zkside/zkside.sock"]
    stop = re.search(r"^TimeoutStopSec=(\d+)s$", unit, re.MULTILINE)
    watchdog = re.search(r"^WatchdogSec=(\d+)s$", unit, re.MULTILINE)
    assert stop is not None
    assert watchdog is not None
    assert config.shutdown.grace_s < int(stop[1])
    assert int(watchdog[1]) < config.zookeeper.session_timeout_s
