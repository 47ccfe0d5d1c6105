"""The overlap detector catches what it is there for."""

from __future__ import annotations

from tests.interop.ledger import Ledger


def test_who_excludes_each_other_must_not_be_inside_together() -> None:
    ledger = Ledger()
    ledger.enter("a-1")
    ledger.enter("b-1")
    assert ledger.overlaps == ["grant 1: b-1 while a-1"]
    ledger.leave("a-1")
    ledger.leave("b-1")
    ledger.enter("a-1")
    assert len(ledger.overlaps) == 1


def test_one_contender_cannot_be_granted_twice() -> None:
    ledger = Ledger(permits=2)
    ledger.enter("a-1")
    ledger.enter("a-1")
    assert ledger.overlaps == ["grant 1: a-1 while a-1"]


def test_readers_share_and_exclude_writers_both_ways() -> None:
    ledger = Ledger()
    ledger.enter("a-1", shared=True)
    ledger.enter("a-2", shared=True)
    assert ledger.overlaps == []
    ledger.enter("b-1")
    assert ledger.overlaps == ["grant 2: b-1 while a-1, a-2"]
    ledger = Ledger()
    ledger.enter("b-1")
    ledger.enter("a-1", shared=True)
    assert ledger.overlaps == ["grant 1: a-1 while b-1"]


def test_a_semaphore_lets_in_as_many_as_it_has_permits() -> None:
    ledger = Ledger(permits=2)
    ledger.enter("a-1")
    ledger.enter("b-1")
    assert ledger.overlaps == []
    ledger.enter("b-2")
    assert ledger.overlaps == ["grant 2: b-2 while a-1, b-1"]


def test_overtaking_an_earlier_contender_is_a_disorder() -> None:
    ledger = Ledger()
    for who, sequence in (("a-1", 0), ("b-1", 2), ("a-1", 1)):
        ledger.enter(who, sequence=sequence)
        ledger.leave(who)
    assert ledger.disorders == ["grant 2: a-1 with 1 after 2"]


def test_readers_may_report_in_any_order_but_not_overtake_a_writer() -> None:
    ledger = Ledger()
    ledger.enter("a-2", shared=True, sequence=2)
    ledger.enter("a-1", shared=True, sequence=1)
    ledger.leave("a-1")
    ledger.leave("a-2")
    assert ledger.disorders == []
    ledger.enter("b-1", sequence=4)
    ledger.leave("b-1")
    ledger.enter("a-1", shared=True, sequence=3)
    assert ledger.disorders == ["grant 3: a-1 with 3 after 4"]


def test_shares_and_handovers_are_counted() -> None:
    ledger = Ledger()
    for who in ("a-1", "a-1", "a-2", "b-1", "a-1", "a-1", "a-1", "a-1"):
        ledger.enter(who)
        ledger.leave(who)
    assert ledger.handovers == 3
    assert ledger.foreign_handovers == 2
    assert ledger.longest_wait == {"a-1": 2, "a-2": 2, "b-1": 3}
    assert ledger.smallest_share() == 3 / 8
