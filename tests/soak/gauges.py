"""The daemon as the kernel and its own metrics see it, once a second."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests.ops.process import DaemonProcess

_TICKS = os.sysconf("SC_CLK_TCK")
_LAG = re.compile(r"^zkside_event_loop_lag_max_seconds (\S+)$", re.MULTILINE)
_EPOCH = re.compile(r"^zkside_session_epoch (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Gauge:
    at_s: float
    """By the monotonic clock."""
    rss_mb: float
    cpu_s: float
    """Processor time since its start."""
    lag_max_s: float
    """The worst lag of its loop since its start; the last known where the page did not come in time."""
    epoch: int
    """More than 1: a session was lost."""


ENOUGH_MB = 8_000.0
"""The daemon is killed then: the host has other things to do, and the verdict is clear."""


class Gauges(threading.Thread):
    """Reads until it is stopped, or the daemon is gone."""

    def __init__(self, daemon: DaemonProcess) -> None:
        super().__init__(daemon=True)
        self._process = daemon
        self._over = threading.Event()
        self._lag_max_s, self._epoch = 0.0, 1
        self._pages = threading.Thread(target=self._read_pages, daemon=True)
        self.read: list[Gauge] = []
        self.peak_mb = 0.0
        """What the kernel noted as the most (VmHWM)."""
        self.is_alive_still = True

    def run(self) -> None:
        # A page that is late must not keep us from looking at the memory.
        self._pages.start()
        folder = Path(f"/proc/{self._process.pid}")
        while not self._over.wait(1.0):
            try:
                status = (folder / "status").read_text()
                used = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                status = ""
            if "VmRSS" not in status:
                self.is_alive_still = False
                return
            self.peak_mb = _megabytes(status, "VmHWM")
            cpu_s = (int(used[11]) + int(used[12])) / _TICKS
            rss_mb = _megabytes(status, "VmRSS")
            if rss_mb > ENOUGH_MB:
                self._process.signal(signal.SIGKILL)
            self.read.append(Gauge(time.monotonic(), rss_mb, cpu_s, self._lag_max_s, self._epoch))

    def stop(self) -> None:
        self._over.set()
        self.join()

    def _read_pages(self) -> None:
        while not self._over.wait(1.0):
            try:
                _, page = self._process.get("/metrics")
            except OSError:
                continue  # it is late; the next one tells the worst lag all the same
            lag, epoch = _LAG.search(page), _EPOCH.search(page)
            self._lag_max_s = float(lag[1]) if lag else self._lag_max_s
            self._epoch = int(float(epoch[1])) if epoch else self._epoch


def _megabytes(status: str, name: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else 0.0
