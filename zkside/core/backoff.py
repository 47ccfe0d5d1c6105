"""How long to wait before the next attempt."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Grows by `factor` from `first_s` to `max_s`; half of each wait is left to chance, so that many hosts
    that failed together do not come back together."""

    first_s: float
    max_s: float
    factor: float = 2.0

    def delay_s(self, attempt: int, chance: float) -> float:
        """The wait before attempt number `attempt` (0 is the first retry); `chance` is in [0, 1)."""
        # The exponent is bounded so that a long outage cannot overflow the float.
        whole_s = min(self.max_s, self.first_s * self.factor ** min(attempt, 64))
        return whole_s * (1 + chance) / 2
