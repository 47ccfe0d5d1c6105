"""When requests wait for others: pure, with a load that answers to how it is written."""

from __future__ import annotations

from zkside.core.pacing import LEAST_PER_S, Pacing

WRITES_PER_S = 400


class Load:
    """So many requests a second get through, depending on how they are written."""

    def __init__(self, at_once_per_s: float, gathering_per_s: float) -> None:
        self.pacing = Pacing()
        self.at_once_per_s, self.gathering_per_s = at_once_per_s, gathering_per_s
        self._now_s = 1_000.0
        self._owed = 0.0

    def go_on(self, seconds: float) -> float:
        """The share of the time in which requests were gathered."""
        gathered = 0
        for _ in range(round(seconds * WRITES_PER_S)):
            gathers = self.pacing.gathers
            gathered += gathers
            self._now_s += 1 / WRITES_PER_S
            self._owed += (self.gathering_per_s if gathers else self.at_once_per_s) / WRITES_PER_S
            self.pacing.wrote(self._now_s, int(self._owed))
            self._owed %= 1
        return gathered / (seconds * WRITES_PER_S)

    def rest(self, seconds: float) -> None:
        self._now_s += seconds


def test_callers_wait_if_that_lets_more_through() -> None:
    load = Load(at_once_per_s=2_000, gathering_per_s=3_000)
    assert load.go_on(20) > 0.9


def test_callers_do_not_wait_if_that_lets_less_through() -> None:
    """A few callers on idle processors: each waits for all others to wait."""
    load = Load(at_once_per_s=8_000, gathering_per_s=2_500)
    assert load.go_on(20) < 0.06


def test_a_load_that_comes_on_time_is_not_kept_waiting() -> None:
    load = Load(at_once_per_s=2_000, gathering_per_s=2_000)
    assert load.go_on(20) < 0.06


def test_a_light_load_is_never_kept_waiting() -> None:
    load = Load(at_once_per_s=LEAST_PER_S * 0.9, gathering_per_s=LEAST_PER_S * 0.9)
    assert load.go_on(20) == 0


def test_what_became_worse_is_given_up() -> None:
    load = Load(at_once_per_s=2_000, gathering_per_s=3_000)
    load.go_on(10)
    load.at_once_per_s = 3_200
    load.go_on(4)
    assert load.go_on(10) < 0.06


def test_what_was_found_out_is_known_after_a_lull() -> None:
    load = Load(at_once_per_s=2_000, gathering_per_s=3_000)
    load.go_on(1)
    load.rest(60)
    load.go_on(0.06)  # the lull is noticed, and that it is over
    assert load.go_on(0.5) > 0.8
