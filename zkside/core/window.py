"""How many bytes of answers may be expected at a time: as many as come in time.

Answers come in order. If those that were asked for take long, so does the proof behind them: then half as much is
expected, down to what one large node takes. It grows by what came, as long as that comes soon: small answers do not
show that there is room for large ones. Whether the network, the server or this host is slow makes no difference.
"""

from __future__ import annotations

SLOW_S = 0.5
"""An answer that takes longer halves the window."""
SOON_S = 0.25
"""One that takes no longer lets it grow."""
FIRST_BYTES = 16 << 20
LEAST_BYTES = 2 << 20
GROWTH_BYTES = 4096
"""By an answer, at least, so that it recovers in a while from what is over."""


class Window:
    """Fed with how long answers took; reads no clock."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.size_bytes = min(FIRST_BYTES, most_bytes)
        self._halved_s = 0.0

    def configure(self, most_bytes: int) -> None:
        """The most from now on."""
        self.most_bytes = most_bytes
        self.size_bytes = min(self.size_bytes, most_bytes)

    def took(self, seconds: float, now_s: float, size_bytes: int) -> bool:
        """An answer of this size came, that long after it was asked for; returns whether the window is another.

        Those that were asked for before the last halving tell nothing of what it did.
        """
        former = self.size_bytes
        if seconds > SLOW_S:
            if now_s - seconds >= self._halved_s:
                self._halved_s = now_s
                self.size_bytes = max(min(LEAST_BYTES, self.most_bytes), former // 2)
        elif seconds <= SOON_S and former < self.most_bytes:
            self.size_bytes = min(self.most_bytes, former + max(size_bytes, GROWTH_BYTES))
        return self.size_bytes != former
