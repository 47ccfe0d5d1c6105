"""The overlap detector finds what there is, and only that."""

from __future__ import annotations

import pytest

from tests.safety.belief import STILL, Belief, Sample, beliefs_of, disorders, overlaps

MS = 1_000_000


def looks(*entries: tuple[int, int, int]) -> list[Sample]:
    """(at, believed until, token), in ms."""
    return [Sample(at * MS, until * MS, token) for at, until, token in entries]


def stretches(who: str, *entries: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    found = beliefs_of(who, looks(*entries), gap_ns=20 * MS)
    return [(each.from_ns // MS, -(-each.until_ns // MS), each.token) for each in found]


def test_two_who_believe_at_once_overlap_by_as_long_as_both_do() -> None:
    found = overlaps([Belief(0, 10, "a", 1), Belief(7, 20, "b", 2), Belief(20, 30, "c", 3)])
    assert [(each.one.who, each.other.who, each.length_ns) for each in found] == [("a", "b", 3)]


def test_a_long_belief_overlaps_with_all_that_fall_into_it() -> None:
    beliefs = [Belief(0, STILL, "a", 1), Belief(5, 6, "b", 2), Belief(7, 9, "c", 3)]
    assert [(each.one.who, each.other.who) for each in overlaps(beliefs)] == [("a", "b"), ("a", "c")]


def test_one_who_follows_another_at_once_does_not_overlap() -> None:
    assert overlaps([Belief(0, 10, "a", 1), Belief(10, 20, "b", 2)]) == []


def test_two_grants_of_one_program_are_rivals() -> None:
    assert len(overlaps([Belief(0, 10, "a", 1), Belief(5, 20, "a", 2)])) == 1
    assert overlaps([Belief(0, 10, "a", 1), Belief(5, 20, "a", 1)]) == []


def test_tokens_that_do_not_grow_are_found() -> None:
    """H2."""
    assert disorders([Belief(0, 1, "a", 5), Belief(2, 3, "a", 5), Belief(4, 5, "b", 6)]) == []
    assert len(disorders([Belief(0, 1, "a", 5), Belief(2, 3, "b", 6), Belief(4, 5, "a", 5)])) == 1
    assert len(disorders([Belief(0, 1, "a", 5), Belief(2, 3, "b", 4)])) == 1


def test_a_program_that_looks_often_believes_up_to_its_last_yes() -> None:
    assert stretches("a", (0, 100, 1), (5, 105, 1), (10, 0, 1)) == [(0, 6, 1)]


@pytest.mark.parametrize(("next_look", "until"), [(30, 30), (400, 100)])
def test_a_program_that_was_stopped_might_have_gone_on_until_its_lease_was_over(next_look: int, until: int) -> None:
    assert stretches("a", (0, 100, 1), (next_look, 0, 1)) == [(0, until, 1)]


def test_a_program_that_is_dead_counts_as_one_that_was_stopped() -> None:
    assert stretches("a", (0, 90, 1), (5, 100, 1)) == [(0, 100, 1)]


def test_each_grant_is_a_belief_of_its_own() -> None:
    assert stretches("a", (0, 100, 1), (5, 0, 1), (10, 110, 2), (15, 0, 2)) == [(0, 1, 1), (10, 11, 2)]


def test_a_lease_that_ended_between_two_looks_leaves_a_hole() -> None:
    assert stretches("a", (0, 30, 1), (50, 90, 1), (55, 0, 1)) == [(0, 30, 1), (50, 51, 1)]


def test_a_program_that_never_looked_believed_nothing() -> None:
    assert stretches("a") == []
