"""What the tests run under a hold: it logs all that it does, with the host's clock.

Lines of the log, written at once: what, fencing token, CLOCK_BOOTTIME in nanoseconds. It works every 10 ms. A signal
is an entry too, and SIGTERM ends it, with exit code 7, unless it is stubborn. All end by themselves in the end.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NamedTuple

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
ENDED_BY_SIGTERM = 7
LIFE_S = 60.0
"""Nobody is left behind by a test that fails."""


class Entry(NamedTuple):
    what: str
    token: int
    at_ns: int


def entries(log: Path) -> list[Entry]:
    """All that was done, in the order of the writing."""
    found = (line.split() for line in log.read_text().splitlines())
    return [Entry(what, int(token), int(at_ns)) for what, token, at_ns in found]


def command(log: Path, *, stubborn: bool = False) -> tuple[str, ...]:
    """Its command line. On its standard output are a line when it works, and the signals."""
    return (sys.executable, "-S", "-I", __file__, str(log), *(["stubborn"] if stubborn else []))


def _work(log: str, *, stubborn: bool) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    token = os.environ["ZKSIDE_FENCING_TOKEN"]

    def note(what: str) -> None:
        os.write(descriptor, f"{what} {token} {time.clock_gettime_ns(time.CLOCK_BOOTTIME)}\n".encode())

    def heard(number: int, _: FrameType | None) -> None:
        note(signal.Signals(number).name)
        os.write(1, f"{signal.Signals(number).name}\n".encode())
        if number == signal.SIGTERM and not stubborn:
            os._exit(ENDED_BY_SIGTERM)

    for number in SIGNALS:
        signal.signal(number, heard)
    note("WORK")
    print(os.getpid(), token, flush=True)
    until_s = time.monotonic() + LIFE_S
    while time.monotonic() < until_s:
        time.sleep(0.01)
        note("WORK")


if __name__ == "__main__":
    _work(sys.argv[1], stubborn="stubborn" in sys.argv[2:])
