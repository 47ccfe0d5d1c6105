"""When the command that runs under a hold is told to end, and when it is killed: decisions over the host's clock."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass

RESERVE_NS = 100_000_000
"""So long before the lease ends the command is killed: to be dead by then."""
SILENCE_NS = 300_000_000
"""It is told when so little is left of what may be believed without hearing more. An undisturbed hold has never
less than 0.9 s: 1.5 s from a pulse that comes every 0.4 s."""
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boottime_ns() -> int:
    """The host's clock, as zkside.client.clock has it, without loading the client."""
    return time.clock_gettime_ns(_CLOCK)


@dataclass(frozen=True, slots=True)
class Deadlines:
    """On the host's clock; None: never."""

    tell_ns: int | None = None
    kill_ns: int | None = None

    def moved(self, tell_ns: int | None, kill_ns: int | None) -> Deadlines:
        """With what was said newly; None leaves a deadline as it is."""
        return Deadlines(self.tell_ns if tell_ns is None else tell_ns, self.kill_ns if kill_ns is None else kill_ns)

    def due(self, now_ns: int, told_ns: int, kill_after_ns: int) -> signal.Signals | None:
        """What to send now to a command that was told at `told_ns` (0: not yet)."""
        if self.kill_ns is not None and now_ns >= self.kill_ns:
            return signal.SIGKILL
        if told_ns:
            return signal.SIGKILL if now_ns >= told_ns + kill_after_ns else None
        return signal.SIGTERM if self.tell_ns is not None and now_ns >= self.tell_ns else None

    def next_ns(self, told_ns: int, kill_after_ns: int) -> int | None:
        """When to look again."""
        first = told_ns + kill_after_ns if told_ns else self.tell_ns
        return min((moment for moment in (first, self.kill_ns) if moment is not None), default=None)


def deadlines(now_ns: int, left_s: float, lease_ns: int, margin_s: float, *, in_jeopardy: bool) -> Deadlines:
    """For a hold that may be believed for `left_s` from now, whose daemon's lease ends at `lease_ns`.

    While the daemon cannot reach ZooKeeper the command is told `margin_s` before the daemon's lease ends."""
    until_ns = now_ns + round(left_s * 1e9)
    tell_ns = until_ns - SILENCE_NS
    if in_jeopardy:
        tell_ns = min(tell_ns, lease_ns - round(margin_s * 1e9))
    return Deadlines(tell_ns, until_ns - RESERVE_NS)
