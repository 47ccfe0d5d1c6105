"""When requests wait for others: pure, with a load that answers to how it is written."""

from __future__ import annotations

import random

from zkside.core.pacing import LEAST_PER_S, LONGEST_ROUND, ROUND, SLICE_S, Pacing

WRITES_PER_S = 400
LONGEST_ROUND_S = LONGEST_ROUND * SLICE_S


class Load:
    """So many requests a second get through, depending on how they are written."""

    def __init__(self, at_once_per_s: float, gathering_per_s: float, *, noise: float = 0.0) -> None:
        self.pacing = Pacing()
        self._chance = random.Random(7)
        self._noise = noise
        self._luck = 1.0
        self.at_once_per_s, self.gathering_per_s = at_once_per_s, gathering_per_s
        self._now_s = 1_000.0
        self._owed = 0.0

    def go_on(self, seconds: float) -> float:
        """The share of the time in which requests were gathered."""
        gathered = 0
        for number in range(round(seconds * WRITES_PER_S)):
            if number % 12 == 0:
                self._luck = self._chance.lognormvariate(0.0, self._noise)
            gathers = self.pacing.gathers
            gathered += gathers
            self._now_s += 1 / WRITES_PER_S
            per_s = self.gathering_per_s if gathers else self.at_once_per_s
            self._owed += per_s * self._luck / WRITES_PER_S
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


def test_callers_who_do_not_wait_are_seldom_made_to_for_a_trial() -> None:
    load = Load(at_once_per_s=8_000, gathering_per_s=2_500)
    load.go_on(10)
    assert load.go_on(60) < 0.02


def test_callers_who_wait_are_seldom_sent_on_for_a_trial() -> None:
    load = Load(at_once_per_s=2_000, gathering_per_s=3_000)
    load.go_on(10)
    assert load.go_on(60) > 0.98


def test_a_busy_host_does_not_hide_what_is_better() -> None:
    """A third more or less in each slice, by chance."""
    load = Load(at_once_per_s=2_000, gathering_per_s=2_700, noise=0.3)
    load.go_on(10)
    assert load.go_on(60) > 0.9
    load = Load(at_once_per_s=3_000, gathering_per_s=2_200, noise=0.3)
    load.go_on(10)
    assert load.go_on(60) < 0.06


def test_what_became_much_worse_is_given_up_in_the_next_trial() -> None:
    """Though its rate does not tell: a crowd went, and a few came whose processors are idle."""
    load = Load(at_once_per_s=2_000, gathering_per_s=3_000)
    load.go_on(60)
    load.at_once_per_s, load.gathering_per_s = 9_000, 2_700
    load.go_on(LONGEST_ROUND_S)
    assert load.go_on(10) < 0.06


def test_another_rate_is_tried_soon() -> None:
    load = Load(at_once_per_s=2_000, gathering_per_s=3_000)
    load.go_on(60)
    load.at_once_per_s, load.gathering_per_s = 5_000, 1_500
    load.go_on(ROUND * SLICE_S)
    assert load.go_on(10) < 0.06


def test_what_became_a_little_worse_is_given_up_in_a_few_trials() -> None:
    load = Load(at_once_per_s=2_000, gathering_per_s=3_000)
    load.go_on(60)
    load.at_once_per_s = 3_200
    load.go_on(4 * LONGEST_ROUND_S)
    assert load.go_on(10) < 0.06


def test_what_was_found_out_is_known_after_a_lull() -> None:
    load = Load(at_once_per_s=2_000, gathering_per_s=3_000)
    load.go_on(1)
    load.rest(60)
    load.go_on(0.06)  # the lull is noticed, and that it is over
    assert load.go_on(0.5) > 0.8
