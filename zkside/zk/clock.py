"""The one clock that leases are counted on: CLOCK_BOOTTIME, which goes on while the machine sleeps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A callback that waits for its instant."""

    def cancel(self) -> None:
        """It will not run any more. Cancelling one that ran is no error."""


class Clock(Protocol):
    """Time as the session sees it; the memory backend's tests bring a virtual one."""

    def boottime_ns(self) -> int: ...

    def call_at(self, boottime_ns: int, callback: Callable[[], object]) -> Timer:
        """Run the callback on the event loop at that instant or later.

        Later may be much later, after a SIGSTOP or a suspended machine: whoever is called looks at
        `boottime_ns()` again before it believes anything.
        """


class SystemClock:
    """CLOCK_BOOTTIME, with timers of the running event loop."""

    def boottime_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def call_at(self, boottime_ns: int, callback: Callable[[], object]) -> Timer:
        """The loop's own clock stands still while the machine sleeps, so after a sleep a timer is late by
        the part of its wait that was left when the machine fell asleep."""
        delay_s = max(0, boottime_ns - self.boottime_ns()) / 1e9
        return asyncio.get_running_loop().call_later(delay_s, callback)
