"""The pulse of an application that feeds its hold, and when it was missed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from zkside.zk.clock import Clock, Timer


class Heartbeat:
    """Runs from its first `feed` until it is stopped or missed."""

    def __init__(self, clock: Clock, timeout_s: float) -> None:
        self._clock = clock
        self._timeout_ns = round(timeout_s * 1e9)
        self._timer: Timer | None = None
        self.due_ns = 0
        """The boottime by which the next has to come; 0 while it does not run."""

    def feed(self, on_missed: Callable[[], None]) -> None:
        """The application lives. `on_missed` is called, once, if it is not fed again in time."""
        if not self._timeout_ns:
            return
        self.due_ns = self._clock.boottime_ns() + self._timeout_ns
        if self._timer is None:
            # It is not moved by every heartbeat, and looks at the clock when it fires.
            self._arm(on_missed)

    def stop(self) -> None:
        """Nothing is due any more, until it is fed again."""
        self.due_ns = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, on_missed: Callable[[], None]) -> None:
        self._timer = self._clock.call_at(self.due_ns, partial(self._look, on_missed))

    def _look(self, on_missed: Callable[[], None]) -> None:
        if self._clock.boottime_ns() < self.due_ns:
            self._arm(on_missed)
        else:
            self.stop()
            on_missed()
