"""What libraries write to standard error past Python, and peers through them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.ops.process import DaemonProcess
from tests.parts.http2 import Http2
from zkside import log
from zkside.ops.foreign_output import LONGEST_LINE_BYTES, MOST_LINES_PER_S, ForeignOutput, is_wanted

FORGED = b'\n{"time":"2025-01-01T00:00:00.000Z","level":"error","event":"session.lost","message":"forged"}\n'


def shout(address: str, times: int) -> None:
    """Connections that end with a GOAWAY of a hundred forged lines."""
    for _ in range(times):
        with Http2(address) as connection:
            connection.go_away(FORGED * 100)
            time.sleep(0.02)


def stopped(daemon: DaemonProcess) -> list[str]:
    """All lines of its log, once it has ended."""
    daemon.signal(signal.SIGTERM)
    assert daemon.wait_ended() == 0
    return daemon.lines


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRPC_VERBOSITY", "info")


def test_a_peer_writes_nothing_into_the_log(tmp_path: Path) -> None:
    """O1: gRPC's core would print the debug text of a GOAWAY, whoever sent it."""
    with DaemonProcess(tmp_path, backend="memory") as daemon:
        shout(daemon.address, 5)
        lines = stopped(daemon)
    assert "forged" not in "".join(lines)
    assert all(json.loads(line)["event"].startswith(("daemon.", "session.", "listener.")) for line in lines)


@pytest.mark.usefixtures("asked")
def test_what_grpc_is_asked_to_write_comes_as_events_of_the_log(tmp_path: Path) -> None:
    """O1: one event for each of its lines, whatever is in it, and no more than can be read."""
    with DaemonProcess(tmp_path, backend="memory") as daemon:
        shout(daemon.address, 20)
        lines = stopped(daemon)
    told = [json.loads(line) for line in lines]
    assert [line for line in told if line["event"] == "session.lost"] == []
    assert any("Got goaway" in line.get("line", "") for line in told if line["event"] == "stderr.line")
    assert len(lines) < 10 * MOST_LINES_PER_S


def test_a_flood_of_lines_is_cut_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """O1."""
    told: list[str] = []
    left_out: list[int] = []
    now_s = 100.0
    monkeypatch.setattr(log, "stderr_line", lambda *, line: told.append(line))
    monkeypatch.setattr(log, "stderr_left_out", lambda *, lines: left_out.append(lines))
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    output = ForeignOutput()
    output.take(b"one\ntw")
    output.take(b"o\n" + b"x" * 10_000)
    output.take(b"x" * 10_000 + b"\n")
    assert told[:2] == ["one", "two"]
    assert told[2] == "x" * LONGEST_LINE_BYTES
    output.take(b"again\n" * 1_000)
    assert len(told) == MOST_LINES_PER_S
    now_s += 1
    output.take(b"\xff later\n")
    assert (told[-1], left_out) == ("\\xff later", [1_003 - MOST_LINES_PER_S])


def test_grpc_is_silent_in_the_daemon_unless_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import zkside.daemon, os; print(os.environ['GRPC_VERBOSITY'])"
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    for given, expected in (({}, "NONE"), ({"GRPC_VERBOSITY": "debug"}, "debug")):
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment | given, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == expected
    assert [is_wanted({}), is_wanted({"GRPC_VERBOSITY": "none"}), is_wanted({"GRPC_VERBOSITY": "ERROR"})] == [
        False,
        False,
        True,
    ]
