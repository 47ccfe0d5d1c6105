"""How low the lease fell: kept for longer than a lease lasts, so that whoever looks now and then sees it.

A lease that runs out takes seconds, and is renewed in one. Looking at what remains of it every 15 s, or every
minute as Prometheus does by default, mostly finds it high. Its lowest points are just before a proof moves it
forward and at its end, so no sampling is needed to catch them.

All times are nanoseconds of CLOCK_BOOTTIME; this module reads no clock.
"""

from __future__ import annotations

PERIOD_NS = 60_000_000_000


class Lows:
    """The lowest that a lease fell to in the last one to two periods, while something was owned.

    A lease that nothing needs runs out unseen. That it is low when the first need arises is nobody's fault,
    so what counts begins with the first proof after that.
    """

    __slots__ = ("_before_ns", "_began_ns", "_lease_ns", "_present_ns")

    def __init__(self) -> None:
        self._lease_ns = 0
        """The end of the lease that is needed; 0 while none is, or while it is not proven."""
        self._began_ns = 0
        self._present_ns: int | None = None
        self._before_ns: int | None = None

    def moved(self, now_ns: int, lease_ns: int) -> None:
        """A proof has moved the lease that is needed."""
        if self._lease_ns:
            self._note(now_ns)
        self._lease_ns = lease_ns

    def ended(self, now_ns: int) -> None:
        """The lease is over, or nothing needs it any more."""
        if self._lease_ns:
            self._note(now_ns)
        self._lease_ns = 0

    def lowest_ns(self, now_ns: int) -> int | None:
        """None if no lease was needed for so long."""
        if self._lease_ns:
            self._note(now_ns)
        self._turn(now_ns)
        known = [low for low in (self._present_ns, self._before_ns) if low is not None]
        return min(known, default=None)

    def _note(self, now_ns: int) -> None:
        self._turn(now_ns)
        low_ns = max(0, self._lease_ns - now_ns)
        self._present_ns = low_ns if self._present_ns is None else min(low_ns, self._present_ns)

    def _turn(self, now_ns: int) -> None:
        """Forget what is older than the period before the present one."""
        age_ns = now_ns - self._began_ns
        if age_ns >= PERIOD_NS:
            self._before_ns = self._present_ns if age_ns < 2 * PERIOD_NS else None
            self._present_ns = None
            self._began_ns = now_ns if age_ns >= 2 * PERIOD_NS else self._began_ns + PERIOD_NS
