"""The hour-long run judges as it says, and each kind of abuse does what it is for."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ops.process import DaemonProcess
from tests.parts import http2
from tests.soak import verdict
from tests.soak.__main__ import JUDGED, REASONS, soak
from tests.soak.abuse.__main__ import KINDS
from tests.soak.gauges import Gauge
from tests.soak.verdict import Run, Sample


def run_of(*samples: Sample) -> Run:
    """Two good minutes, and these."""
    beat = [Sample(kind, tenth / 10, 0.01, "") for kind in JUDGED for tenth in range(1_200)]
    return Run(0.0, [*beat, *samples], gauges=[Gauge(1.0, 90.0, 1.0, 0.01, 1)], peak_mb=100.0)


def faults(run: Run) -> list[str]:
    return verdict.faults(run, JUDGED, REASONS)


def test_a_run_without_a_fault_is_good() -> None:
    assert faults(run_of()) == []


def test_one_minute_that_is_slow_is_enough() -> None:
    slow = [Sample("set", 70.0, 0.4, "") for _ in range(10)]
    assert faults(run_of(*slow)) == ["set: p99 over 250 ms in 1 of 2 minutes, 400 ms in the worst"]


def test_what_waits_for_a_zookeeper_that_stands_still_does_not_count_but_a_cached_read_does() -> None:
    waits = [Sample(kind, 70.0, 0.9, "") for kind in ("set", "get cached") for _ in range(10)]
    run = run_of(*waits)
    run.pauses.append((70.0, 71.0))
    assert [fault.partition(":")[0] for fault in faults(run)] == ["get cached"]


@pytest.mark.parametrize(
    ("end", "is_documented"),
    [
        ("SESSION_SUSPENDED", True),
        ("QUOTA", True),
        ("UNAVAILABLE without a reason", True),
        ("CANCELLED without a reason", False),
        ("UNKNOWN without a reason", False),
        ("CONNECTION_LOSS", False),
        ("INTERNAL", False),
    ],
)
def test_a_call_ends_with_a_reason_of_the_table(end: str, is_documented: bool) -> None:
    assert bool(faults(run_of(Sample("set", 5.0, 0.01, end)))) is not is_documented


def test_a_change_counts_as_told_with_a_later_one_and_one_that_is_never_told_is_a_fault() -> None:
    run = run_of()
    run.samples = [one for one in run.samples if one.kind != "watch" or one.began_s < 30 or one.began_s > 30.3]
    assert faults(run) == [], "0.3 s of one hundred and twenty: conflated"
    run.samples = [one for one in run.samples if one.kind != "watch" or one.began_s < 100]
    slow, failed = faults(run)
    assert slow.startswith("watch: p99 over 250 ms in 1 of 2 minutes")
    assert failed.startswith("watch: 179 of 1179 calls failed"), "those of the last 2 s may still come"


def test_what_else_is_looked_at() -> None:
    run = run_of(Sample("lock", 5.0, 0.0, "is_held() is false"))
    run.peak_mb, run.gauges = 401.0, [Gauge(1.0, 90.0, 1.0, 0.01, 2)]
    run.is_daemon_alive = run.is_client_whole = False
    assert len(faults(run)) == 5
    assert "401" in " ".join(faults(run))


def test_frames_are_heard_and_answered(tmp_path: Path) -> None:
    """A call whose message never comes is answered by nobody; a ping is."""
    answers = http2.Answers()
    assert answers.to(http2.frame(4, 0, 0)[:5]) == b"", "half a frame"
    assert answers.to(http2.frame(4, 0, 0)[5:]) == http2.frame(4, 1, 0)
    ping = http2.frame(6, 0, 0, b"12345678")
    assert answers.to(ping + http2.frame(6, 1, 0, b"12345678")) == http2.frame(6, 1, 0, b"12345678")
    assert not answers.received[http2.GOAWAY]
    answers.to(http2.frame(7, 0, 0, b"bye"))
    assert answers.received[http2.GOAWAY]


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"pauses"}))
def test_each_kind_reaches_a_daemon_and_ends_in_time(kind: str, tmp_path: Path) -> None:
    with DaemonProcess(tmp_path, backend="memory") as daemon:
        command = [sys.executable, "-m", "tests.soak.abuse", kind, daemon.address, "1", "1", "0"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert f'{{"kind": "{kind}", "done": {{"' in done.stdout
        daemon.signal(signal.SIGKILL)


@pytest.mark.faults
def test_a_short_run_measures_all(tmp_path: Path) -> None:
    run, done = soak(list(KINDS), 40.0, 1)
    assert done.keys() == KINDS.keys()
    assert all(done.values())
    assert {sample.kind for sample in run.samples} == {*JUDGED, "lock"}
    assert len(run.pauses) == 1
    assert len(run.gauges) > 20
