"""What happened lately is remembered within bounds, and what matters is not washed away."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zkside.core.recent import KEPT, Recent


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_flood_of_one_kind_pushes_out_no_other() -> None:
    clock = Clock()
    recent = Recent(clock)
    recent.note("session.lost", "expired")
    for number in range(100_000):
        clock.now_s += 1.0
        recent.note("hold.granted", "", f"/{number}")
    found = recent.list()
    assert [each.name for each in found] == ["session.lost"] + ["hold.granted"] * KEPT
    assert [each.subject for each in found[1:]] == [f"/{number}" for number in range(100_000 - KEPT, 100_000)]


def test_what_repeats_within_a_second_is_one_entry_that_counts() -> None:
    clock = Clock()
    recent = Recent(clock)
    for number in range(5000):
        clock.now_s += 0.0001
        recent.note("hold.ended", "SESSION_LOST", f"/{number}")
    clock.now_s += 1.0
    recent.note("hold.ended", "SESSION_LOST", "/later")
    assert [(each.count, each.subject) for each in recent.list()] == [(5000, "/4999"), (1, "/later")]


def test_a_clock_that_is_set_back_loses_nothing() -> None:
    clock = Clock()
    recent = Recent(clock)
    recent.note("session.lost")
    clock.now_s = 10.0
    recent.note("session.lost")
    assert [each.at_s for each in recent.list()] == [10.0, 1000.0]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.floats(0, 3)), max_size=300))
def test_it_is_bounded_in_order_and_counts_all_that_it_still_has(steps: list[tuple[str, str, float]]) -> None:
    clock = Clock()
    recent = Recent(clock)
    for name, reason, pause_s in steps:
        clock.now_s += pause_s
        recent.note(name, reason)
    found = recent.list()
    assert [each.at_s for each in found] == sorted(each.at_s for each in found)
    kinds = {(name, reason) for name, reason, _ in steps}
    for kind in kinds:
        of_kind = [each for each in found if (each.name, each.reason) == kind]
        assert 1 <= len(of_kind) <= KEPT
        if len(of_kind) < KEPT:
            assert sum(each.count for each in of_kind) == sum(step[:2] == kind for step in steps)
