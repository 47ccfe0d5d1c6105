"""The pulse of an application that feeds its hold, and when it was missed."""

from __future__ import annotations

from collections.abc import Callable

from zkside.zk.clock import Clock, Timer


class Heartbeat:
    """Runs from its first `feed` until it is stopped or missed; `on_missed` is called once then."""

    def __init__(self, clock: Clock, timeout_s: float, on_missed: Callable[[], None]) -> None:
        self._clock = clock
        self._timeout_ns = round(timeout_s * 1e9)
        self._on_missed = on_missed
        self._timer: Timer | None = None
        self.due_ns = 0
        """The boottime by which the next has to come; 0 while it does not run."""

    def feed(self) -> None:
        """The application lives."""
        if not self._timeout_ns:
            return
        self.due_ns = self._clock.boottime_ns() + self._timeout_ns
        if self._timer is None:
            # It is not moved by every heartbeat, and looks at the clock when it fires.
            self._timer = self._clock.call_at(self.due_ns, self._look)

    def stop(self) -> None:
        """Nothing is due any more, until it is fed again."""
        self.due_ns = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        if self._clock.boottime_ns() < self.due_ns:
            self._timer = self._clock.call_at(self.due_ns, self._look)
        else:
            self.stop()
            self._on_missed()
