"""What an operator does with a running daemon: its configuration, its log, taking it out of service."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Zkside
from tests.ops.process import DaemonProcess
from zkside.cli import exits


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "zkside.toml"
    made.write_text("")
    return made


@pytest.fixture
def own(tmp_path: Path, file: Path) -> Iterator[DaemonProcess]:
    """A daemon of this test's own, configured by a file."""
    with DaemonProcess(tmp_path, backend="memory", CONFIG=str(file)) as daemon:
        yield daemon


def test_config_reload_tells_what_is_in_force_and_what_needs_a_restart(own: DaemonProcess, file: Path) -> None:
    zkside = Zkside(own.address)
    assert zkside("config", "reload").out == "in force now: nothing has changed\n"
    file.write_text("[quotas]\nmax_holds = 5\n[lease]\ntick = '1s'\n")
    done = zkside("config", "reload")
    assert (done.code, done.out) == (0, "in force now: quotas.max_holds\nafter a restart: lease.tick\n")
    file.write_text("[quotas]\nmax_holds = 0\n")
    done = zkside("config", "reload")
    assert done.code == exits.CANNOT_START
    assert "quotas.max_holds: must lie between 1 and" in done.err
    done = zkside("-o", "json", "config", "reload")
    assert done.json["problems"]
    metrics = own.get("/metrics")[1]
    assert 'zkside_config_reloads_total{result="reloaded"} 2.0' in metrics
    assert 'zkside_config_reloads_total{result="refused"} 2.0' in metrics
    assert "zkside_config_needs_restart 1.0" in metrics


def test_log_level_is_shown_changed_for_one_logger_and_for_a_while(own: DaemonProcess) -> None:
    zkside = Zkside(own.address)
    assert zkside("log-level").out == "info     all loggers\n"
    assert "debug    zkside.hold" in zkside("log-level", "debug", "--logger", "zkside.hold").out
    holding = zkside.start("hold", "/mine")
    try:
        granted = own.wait_for("hold.granted")
        assert (granted["event"], granted["path"]) == ("hold.granted", "/mine")
    finally:
        holding.send_signal(signal.SIGINT)
        holding.communicate()
    assert zkside("log-level", "default", "--logger", "zkside.hold").out == "info     all loggers\n"
    assert "for 0 s more" in zkside("log-level", "error", "--for", "300ms").out
    while "error" in zkside("log-level").out:
        pass
    assert zkside("log-level").out == "info     all loggers\n"
    assert zkside("log-level", "loud").code == exits.USAGE
    done = zkside("log-level", "debug", "--logger", "zkside.nothing")
    assert done.code == exits.USAGE
    assert "zkside.session" in done.err


def test_a_level_that_was_set_outlives_a_reload_and_a_configured_one_comes_back(own: DaemonProcess, file: Path) -> None:
    zkside = Zkside(own.address)
    zkside("log-level", "debug")
    file.write_text('[log]\nlevel = "warning"\n')
    assert zkside("config", "reload").out == "in force now: log.level\n"
    assert zkside("log-level").out == "debug    all loggers\n"
    assert zkside("log-level", "default").out == "warning  all loggers\n"


def test_debug_log_prints_the_last_lines_of_the_log(own: DaemonProcess) -> None:
    events = [line["event"] for line in Zkside(own.address)("debug", "log").json_lines]
    assert "daemon.serving" in events
    assert "listener.opened" in events


def test_drain_shows_what_is_left_and_ends_when_nothing_is(own: DaemonProcess) -> None:
    """O3: the owner of a hold is told, and goes; a second drain has nothing to do."""
    zkside = Zkside(own.address)
    holding = zkside.start("hold", "/mine")
    assert holding.stdout is not None
    assert "held" in holding.stdout.readline().lower()
    done = zkside.process("drain")
    assert (done.code, done.out) == (0, "drained: 1 stream ended, 1 hold released\n")
    assert holding.wait(20) == exits.LOST
    holding.communicate()
    assert zkside("-o", "json", "drain").json["released_holds"] == 0
    assert zkside("health", "-s", "zkside.v1.LockService").code == exits.UNAVAILABLE
    assert zkside("hold", "/another").code == exits.UNAVAILABLE
    assert zkside("get", "/").code == 0, "reads go on"
    events = [json.loads(line)["event"] for line in zkside("debug", "log").out.splitlines()]
    assert events.count("daemon.draining") == events.count("daemon.drained") == 2
