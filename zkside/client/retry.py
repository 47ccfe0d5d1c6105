"""When a broken stream is opened again. Pure."""

from __future__ import annotations

import random

from zkside.errors import BadRequest, Denied, Refused, ZksideError

FIRST_DELAY_S = 0.05
MAX_DELAY_S = 2.0


def is_final(error: ZksideError) -> bool:
    """Whether asking again would bring the same answer."""
    return isinstance(error, BadRequest | Refused | Denied)


class Delays:
    """Delays between attempts: none at first, then doubling with jitter, so that the clients of a restarted
    daemon do not come back in step."""

    def __init__(self) -> None:
        self._attempts = 0

    def succeeded(self) -> None:
        self._attempts = 0

    def next_s(self) -> float:
        attempts, self._attempts = self._attempts, self._attempts + 1
        if attempts == 0:
            return 0.0
        ceiling: float = min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** min(attempts, 10))
        return random.uniform(ceiling / 2, ceiling)
