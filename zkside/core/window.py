"""How many bytes of answers may be expected at a time: as many as come in time.

Answers come in order. If those that were asked for take long, so does the proof behind them: then half as much is
expected, down to what one large node takes. It grows again, slowly, while answers come soon. Whether it is the network,
the server or this host that is slow makes no difference.
"""

from __future__ import annotations

SLOW_S = 0.5
"""An answer that takes longer halves the window."""
SOON_S = 0.25
"""One that takes no longer lets it grow."""
LEAST_BYTES = 2 << 20
GROWTH = 32
"""By one part in so many."""


class Window:
    """Fed with how long answers took; reads no clock."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = self.size_bytes = most_bytes
        self._halved_s = 0.0

    def configure(self, most_bytes: int) -> None:
        """The most from now on."""
        self.most_bytes = most_bytes
        self.size_bytes = min(self.size_bytes, most_bytes)

    def took(self, seconds: float, now_s: float) -> bool:
        """An answer came, that long after it was asked for; returns whether the window is another.

        Those that were asked for before the last halving tell nothing of what it did.
        """
        former = self.size_bytes
        if seconds > SLOW_S:
            if now_s - seconds >= self._halved_s:
                self._halved_s = now_s
                self.size_bytes = max(min(LEAST_BYTES, self.most_bytes), former // 2)
        elif seconds <= SOON_S and former < self.most_bytes:
            self.size_bytes = min(self.most_bytes, former + former // GROWTH)
        return self.size_bytes != former
