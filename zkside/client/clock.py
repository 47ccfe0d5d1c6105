"""The host's clock, by which leases are told: it goes on while a process or the whole machine is stopped."""

from __future__ import annotations

import time

from zkside.client.value import HoldStatus

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)


def now_ns() -> int:
    """CLOCK_BOOTTIME; the monotonic clock where there is none."""
    return time.monotonic_ns() if _BOOTTIME is None else time.clock_gettime_ns(_BOOTTIME)


def lease_ns(hold: HoldStatus) -> int:
    """When the lease that the daemon told ends, by `now_ns`; 0: let go now."""
    return hold.lease_monotonic_ns if _BOOTTIME is None else hold.lease_boottime_ns


def lease_left_s(hold: HoldStatus) -> float:
    """How long the daemon's lease still lasts; negative once it is over."""
    return (lease_ns(hold) - now_ns()) / 1e9
