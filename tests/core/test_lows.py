"""How low the lease fell, for whoever looks now and then."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zkside.core.lows import PERIOD_NS, Lows


def ns(seconds: float) -> int:
    return round(seconds * 1e9)


def test_the_lowest_point_is_just_before_a_proof_moves_the_lease() -> None:
    lows = Lows()
    lows.moved(ns(100), ns(110))
    lows.moved(ns(108), ns(118))
    lows.moved(ns(109), ns(119))
    assert lows.lowest_ns(ns(110)) == ns(2)


def test_who_looks_sees_what_remains_at_that_moment_too() -> None:
    lows = Lows()
    lows.moved(ns(100), ns(110))
    assert lows.lowest_ns(ns(107)) == ns(3)


def test_a_lease_that_ran_out_was_at_nothing() -> None:
    lows = Lows()
    lows.moved(ns(100), ns(110))
    lows.ended(ns(111))
    assert lows.lowest_ns(ns(112)) == 0


def test_while_nothing_is_owned_there_is_nothing_to_tell() -> None:
    lows = Lows()
    assert lows.lowest_ns(ns(100)) is None
    lows.moved(ns(100), ns(110))
    lows.ended(ns(101))
    assert lows.lowest_ns(ns(102)) == ns(9)
    assert lows.lowest_ns(ns(102) + 2 * PERIOD_NS) is None


def test_a_lease_that_ran_down_unneeded_was_not_low() -> None:
    """The first proof for a new owner finds whatever the last one left."""
    lows = Lows()
    lows.moved(ns(100), ns(110))
    lows.ended(ns(101))
    lows.moved(ns(109), ns(119))
    assert lows.lowest_ns(ns(110)) == ns(9)


def test_it_is_told_for_at_least_one_period_and_at_most_two() -> None:
    lows = Lows()
    now_ns = ns(100)
    lows.moved(now_ns, now_ns + ns(10))
    lows.moved(now_ns + ns(9), now_ns + ns(19))
    seen = []
    for second in range(9, 3 * PERIOD_NS // ns(1)):
        lows.moved(now_ns + ns(second), now_ns + ns(second + 10))
        seen.append(lows.lowest_ns(now_ns + ns(second)) == ns(1))
    assert PERIOD_NS <= ns(seen.count(True)) <= 2 * PERIOD_NS
    assert seen == sorted(seen, reverse=True)


@given(
    lengths=st.lists(st.floats(0.0, 9.0), min_size=1, max_size=200),
    pause_s=st.floats(0.0, 60.0),
    interval_s=st.floats(0.5, 60.0),
)
def test_whoever_looks_once_a_minute_or_more_often_misses_nothing(
    lengths: list[float], pause_s: float, interval_s: float
) -> None:
    """Proofs at any distances, a lease of 10 s each time: the lowest that a scraper saw is the lowest there was."""
    lows, now_s, look_s, seen = Lows(), 1000.0, 1000.0 + pause_s, []
    lows.moved(ns(now_s), ns(now_s + 10))
    lowest_ns = ns(10)
    for length_s in lengths:
        due_s = now_s + length_s
        while look_s < due_s:
            seen.append(lows.lowest_ns(ns(look_s)))
            look_s += interval_s
        lowest_ns = min(lowest_ns, ns(now_s + 10) - ns(due_s))
        lows.moved(ns(due_s), ns(due_s + 10))
        now_s = due_s
    lows.ended(ns(now_s))
    seen.append(lows.lowest_ns(ns(look_s)))
    assert min(low for low in seen if low is not None) == lowest_ns
