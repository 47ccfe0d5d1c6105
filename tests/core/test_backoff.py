"""Waiting longer and longer, but not for ever."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkside.core.backoff import Backoff


@given(attempt=st.integers(0, 10_000), chance=st.floats(0, 1, exclude_max=True))
def test_every_wait_is_within_its_bounds(attempt: int, chance: float) -> None:
    backoff = Backoff(first_s=0.1, max_s=5.0)
    assert 0.05 <= backoff.delay_s(attempt, chance) <= 5.0


def test_the_waits_double_up_to_the_longest() -> None:
    backoff = Backoff(first_s=1.0, max_s=5.0)
    assert [backoff.delay_s(attempt, 0.999999) for attempt in range(5)] == [
        pytest.approx(wait_s, rel=1e-3) for wait_s in (1, 2, 4, 5, 5)
    ]


def test_half_of_a_wait_is_left_to_chance() -> None:
    backoff = Backoff(first_s=1.0, max_s=5.0)
    assert backoff.delay_s(0, 0.0) == 0.5
