"""What changed in a group, and whether a loss is believed: against dumb models of both."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkside.core.shrink import Differences, Membership, Named, ShrinkGuard, ShrinkTerms
from zkside.model import record as records
from zkside.model.record import Record
from zkside.model.stat import Stat

TERMS = ShrinkTerms(min_kept=0.5, window_s=10.0)


def node(czxid: int, data: bytes = b"", mzxid: int = 0) -> Record:
    return records.pack(data, Stat(czxid, mzxid or czxid, 0, 0, 0, 0, 0, 7, len(data), 0, czxid))


# The guard


def test_a_sudden_loss_is_withheld_until_enough_are_back() -> None:
    guard = ShrinkGuard(TERMS, 10, 0.0)
    assert [guard.judge(size, 1.0) for size in (9, 5, 4, 0, 4)] == [True, True, False, False, False]
    assert guard.withholds
    assert guard.judge(5, 2.0)
    assert not guard.withholds


def test_waiting_alone_lets_nothing_through() -> None:
    guard = ShrinkGuard(TERMS, 10, 0.0)
    assert not guard.judge(4, 1.0)
    assert (guard.judge(4, 1e6), guard.due_s) == (False, None)


def test_a_slow_decline_is_believed() -> None:
    guard = ShrinkGuard(TERMS, 10, 0.0)
    assert all(guard.judge(10 - step, step * 11.0) for step in range(1, 10))
    # From one to none is always a loss of all.
    assert not guard.judge(0, 1e6)


def test_a_loss_in_small_steps_counts_as_a_whole_within_the_window() -> None:
    guard = ShrinkGuard(TERMS, 10, 0.0)
    assert [guard.judge(10 - step, float(step)) for step in range(1, 8)] == [True] * 5 + [False] * 2


def test_a_loss_is_published_when_it_has_lasted() -> None:
    guard = ShrinkGuard(ShrinkTerms(confirm_after_s=30.0), 10, 0.0)
    assert not guard.judge(2, 1.0)
    assert guard.due_s == 31.0
    assert not guard.judge(3, 20.0)
    assert guard.judge(3, 31.0)
    # What was agreed on is the measure of the next loss.
    assert not guard.judge(1, 31.0)
    assert guard.due_s == 61.0


def test_while_it_cannot_be_seen_whether_a_loss_lasts_it_lasts_for_no_time() -> None:
    guard = ShrinkGuard(ShrinkTerms(confirm_after_s=30.0), 10, 0.0)
    guard.doubt(0.5)
    assert guard.due_s is None
    guard.judge(2, 1.0)
    guard.doubt(20.0)
    assert (guard.judge(2, 31.0), guard.judge(2, 50.0)) == (False, True)


def test_a_confirmation_is_of_the_loss_that_was_seen_and_of_no_larger_one() -> None:
    guard = ShrinkGuard(TERMS, 10, 0.0)
    assert not guard.confirm()
    guard.judge(4, 1.0)
    assert guard.confirm()
    assert not guard.judge(1, 1.0)
    assert guard.confirm()
    assert guard.judge(1, 1.0)
    assert not guard.confirm()


@pytest.mark.parametrize(("min_kept", "of", "kept"), [(0.55, 100, 55), (0.7, 10, 7), (0.1, 3, 1), (1.0, 3, 3)])
def test_the_part_that_is_kept_is_counted_in_whole_members(min_kept: float, of: int, kept: int) -> None:
    terms = ShrinkTerms(min_kept=min_kept)
    assert ShrinkGuard(terms, of, 0.0).judge(kept, 0.0)
    assert not ShrinkGuard(terms, of, 0.0).judge(kept - 1, 0.0)


class DumbGuard:
    """As ShrinkGuard's docstring says it, with all of the past at hand."""

    def __init__(self, terms: ShrinkTerms, published: int, now_s: float) -> None:
        self.terms = terms
        self.past: list[tuple[float, int]] = []
        self.published = self.present = published
        self.withheld: tuple[float, int] | None = None

    def judge(self, present: int, now_s: float) -> bool:
        after_s = self.terms.confirm_after_s
        if self.withheld and after_s is not None and now_s >= self.withheld[0] + after_s:
            self.confirm()
        self.present = present
        recent = [size for until_s, size in self.past if until_s >= now_s - self.terms.window_s]
        most = self.withheld[1] if self.withheld else max([self.published, *recent])
        if present < self.terms.min_kept * most:
            self.withheld = self.withheld or (now_s, most)
            return False
        self.past.append((now_s, self.published))
        self.published, self.withheld = present, None
        return True

    def confirm(self) -> bool:
        if self.withheld is None:
            return False
        self.past, self.published, self.withheld = [], self.present, None
        return True

    def doubt(self, now_s: float) -> None:
        if self.withheld:
            self.withheld = (now_s, self.withheld[1])


STEPS = st.lists(
    st.tuples(st.sampled_from((0.0, 0.5, 1.0, 3.0, 10.0)), st.sampled_from("jjjjcd"), st.integers(0, 12)), max_size=40
)


@given(STEPS, st.sampled_from((0.25, 0.5, 1.0)), st.sampled_from((None, 0.0, 4.0)), st.sampled_from((0.0, 3.0, 10.0)))
def test_the_guard_decides_as_its_docstring_says(
    steps: list[tuple[float, str, int]], min_kept: float, confirm_after_s: float | None, window_s: float
) -> None:
    terms = ShrinkTerms(min_kept, window_s, confirm_after_s)
    guard, dumb = ShrinkGuard(terms, 6, 0.0), DumbGuard(terms, 6, 0.0)
    now_s = 0.0
    for passed_s, what, size in steps:
        now_s += passed_s
        match what:
            case "j":
                assert guard.judge(size, now_s) == dumb.judge(size, now_s)
            case "c":
                assert guard.confirm() == dumb.confirm()
            case _:
                guard.doubt(now_s)
                dumb.doubt(now_s)
        assert guard.withholds == (dumb.withheld is not None)


@given(STEPS)
def test_no_list_in_force_is_a_sudden_loss_unless_that_was_confirmed(steps: list[tuple[float, str, int]]) -> None:
    guard, now_s = ShrinkGuard(TERMS, 6, 0.0), 0.0
    in_force = [(0.0, 6)]
    for passed_s, what, size in steps:
        now_s += passed_s
        if what == "c" and guard.confirm():
            in_force = []
        elif what != "c" and guard.judge(size, now_s):
            begun = [at_s for at_s, _ in in_force[1:]] + [now_s]
            recent = [
                before
                for (_, before), until_s in zip(in_force, begun, strict=False)
                if until_s >= now_s - TERMS.window_s
            ]
            assert size >= TERMS.min_kept * max(recent, default=0)
            in_force.append((now_s, size))


# The differences

NAMES = st.sampled_from("abcd")
NODES = st.builds(node, st.integers(1, 4), st.sampled_from((b"", b"x", b"yy")), st.integers(1, 9))
PUTS = st.lists(st.tuples(NAMES, st.none() | NODES), max_size=8)


def said(members: Iterable[tuple[str, Record]]) -> dict[str, tuple[int, bytes]]:
    return {name: (records.zxids(record)[0], records.data(record)) for name, record in members}


def applied(before: dict[str, Record], differences: Differences) -> dict[str, Record]:
    """What somebody makes of it who has the list from before."""
    after = dict(before)
    for left in differences.left:
        assert said([(left.name, after.pop(left.name))]) == said([left])
    for joined in differences.joined:
        assert joined.name not in after
        after[joined.name] = joined.record
    for changed in differences.changed:
        assert changed.name in after
        after[changed.name] = changed.record
    return after


@given(st.lists(PUTS, max_size=4))
def test_the_differences_lead_from_list_to_list(rounds: list[list[tuple[str, Record | None]]]) -> None:
    membership = Membership()
    told: dict[str, Record] = {}
    present: dict[str, Record] = {}
    for puts in rounds:
        for name, record in puts:
            membership.put(name, record)
            if record is None:
                present.pop(name, None)
            else:
                present[name] = record
        assert (len(membership), membership.published) == (len(present), len(told))
        differences = membership.publish()
        before, told = said(told.items()), applied(told, differences)
        assert said(told.items()) == said(present.items()) == said(membership.members())
        assert [each.name for each in membership.members()] == sorted(present)
        for named in differences.changed:
            assert before[named.name] != said([named])[named.name]
        assert all(several == sorted(several) for several in differences)
    assert membership.publish() == Differences([], [], [])


@given(PUTS, st.dictionaries(NAMES, NODES))
def test_a_whole_list_leads_to_the_same_as_single_changes(
    puts: list[tuple[str, Record | None]], present: dict[str, Record]
) -> None:
    whole = Membership()
    for name, record in puts:
        whole.put(name, record)
    told = applied({}, whole.publish())
    whole.replace(present)
    assert said(applied(told, whole.publish()).items()) == said(present.items())


def test_a_member_that_came_back_is_another_membership() -> None:
    membership = Membership()
    membership.put("a", node(1, b"x"))
    membership.publish()
    membership.put("a", None)
    membership.put("a", node(2, b"x"))
    assert membership.publish() == Differences([], [], [Named("a", node(2, b"x"))])


def test_the_same_data_written_again_is_no_change() -> None:
    membership = Membership()
    membership.put("a", node(1, b"x"))
    membership.publish()
    membership.put("a", node(1, b"x", mzxid=9))
    assert membership.publish() == Differences([], [], [])
