"""Who waits for whom, against a model that knows everything and takes its time."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.core.queues import named, queue_of, stat_of
from zkside.core.queueing import Contender, Kind, Question, Queue, contender, contenders, holders
from zkside.model.stat import LAST_NUMBER, Stat

FAMILIES = (
    (Kind.LOCK, Kind.READ),
    (Kind.WRITE, Kind.READ),
    (Kind.KAZOO_LOCK, Kind.KAZOO_READ),
    (Kind.LATCH,),
    (Kind.LEASE,),
)
"""Kinds that queue together."""
QUEUES = FAMILIES[:-1]
"""Where one waits for another."""

FEW = settings(max_examples=50, deadline=None)

uuids = st.sampled_from(("_c_0b1f-", "_c_9e4d-", "f00d"))
kinds = st.sampled_from(Kind)


def of(*kinds: Kind) -> list[Contender]:
    return contenders(named(kind, number) for number, kind in enumerate(kinds))


@FEW
@given(kinds, st.integers(-(2**31), 2**31 - 1), uuids)
def test_a_name_tells_the_kind_and_the_number_whatever_stands_before(kind: Kind, number: int, prefix: str) -> None:
    """H8."""
    name = named(kind, number, prefix)
    assert contender(name) == Contender(number, name, kind)


@pytest.mark.parametrize("name", ["", "lock-", "lock-12", "lock-0000000012x", "-0000000012", "locks", "leases"])
def test_a_child_that_is_no_contender_is_none(name: str) -> None:
    assert contender(name) is None
    assert contenders([name]) == []


@FEW
@given(st.lists(st.tuples(kinds, st.integers(-(2**31), 2**31 - 1), uuids), max_size=8, unique_by=lambda each: each[1]))
def test_the_order_is_that_of_the_numbers_whatever_the_names(children: list[tuple[Kind, int, str]]) -> None:
    """H7: the UUIDs before them, and the kinds, would sort otherwise."""
    queue = contenders(named(kind, number, prefix) for kind, number, prefix in children)
    assert [each.number for each in queue] == sorted(number for _, number, _ in children)


TOGETHER = {kind: {each for family in FAMILIES if kind in family for each in family} for kind in Kind}


@FEW
@given(st.lists(kinds, min_size=1, max_size=6))
def test_who_cannot_wait_for_those_ahead_is_told_and_nobody_else(queue: list[Kind]) -> None:
    """H8: the layout is that of the first; who was refused himself makes nobody else be refused."""
    everybody = of(*queue)
    settled: list[Contender] = []
    for one in everybody:
        strangers = {each.kind for each in settled} - TOGETHER[one.kind]
        found = queue_of(everybody).mixed(one)
        assert found in strangers if strangers else found is None
        if not strangers:
            settled.append(one)


@FEW
@given(st.sampled_from(QUEUES).flatmap(lambda family: st.lists(st.sampled_from(family), max_size=8)))
def test_the_holders_are_those_that_wait_for_nobody(queue: list[Kind]) -> None:
    """H1."""
    everybody = of(*queue)
    first_come = [each for each in everybody if not _waits_for(each, everybody)]
    assert holders(everybody) == first_come


def test_all_who_have_a_lease_node_hold() -> None:
    assert holders(of(Kind.LEASE, Kind.LEASE)) == of(Kind.LEASE, Kind.LEASE)


def _waits_for(waiter: Contender, everybody: list[Contender]) -> list[Contender]:
    """All whose turn is before, or who knows: the rule, as a sentence."""
    return [
        other
        for other in everybody
        if other.number <= waiter.number
        and other.name != waiter.name
        and not (other.kind.is_shared and waiter.kind.is_shared)
    ]


def test_who_holds_with_a_write_lock_that_is_being_downgraded() -> None:
    """H8: Curator's reader has the number of its writer, and both are its own."""
    writer, reader = named(Kind.WRITE, 3, "b-"), named(Kind.READ, 3, "a-")
    queue = contenders([named(Kind.READ, 4), reader, writer, named(Kind.WRITE, 5)])
    assert [each.name for each in holders(queue)] == [writer, reader]
    assert queue_of(queue).position(queue[-1]) == 1
    assert [each.name for each in holders(queue[1:])] == [reader, named(Kind.READ, 4)]
    assert queue_of(queue[1:]).position(queue[-1]) == 0


def test_a_reader_that_came_late_with_the_number_of_a_writer_is_waited_for() -> None:
    """H1: the older listing has the writer alone, and that has gone."""
    writer, waiter = contenders([named(Kind.WRITE, 0), named(Kind.WRITE, 1)])
    late = contenders([named(Kind.READ, 0)])[0]
    queue = queue_of([writer, waiter])
    queue.remove(writer)
    assert queue.nearest_blocker(waiter) is None
    assert not queue.has_turn(waiter)
    assert not queue.answered(queue.asks(), stat_of(3, 2))
    assert not queue.has_turn(waiter)
    queue.listed([late.name, waiter.name], stat_of(3, 2))
    assert queue.nearest_blocker(waiter) == late
    queue.remove(late)
    assert queue.answered(queue.asks(), stat_of(3, 1))
    assert queue.has_turn(waiter)
    assert queue.is_whole


def test_what_went_while_the_stat_was_on_its_way_may_have_been_there() -> None:
    """H1: a writer that goes behind the answer may have left a reader behind it too."""
    writer, waiter = contenders([named(Kind.WRITE, 0), named(Kind.WRITE, 1)])
    queue = queue_of([writer, waiter])
    question = queue.asks()
    queue.remove(writer)
    assert queue.answered(question, stat_of(2, 2))
    assert not queue.has_turn(waiter)


def test_a_counter_that_stands_still_proves_nothing() -> None:
    """H1: behind its last number ZooKeeper counts no more."""
    first, waiter = contenders([named(Kind.LOCK, 7), named(Kind.LOCK, 8)])
    queue = Queue()
    queue.listed([first.name, waiter.name], stat_of(LAST_NUMBER, 2))
    queue.remove(first)
    assert not queue.answered(queue.asks(), stat_of(LAST_NUMBER, 2))


def test_a_parent_that_was_made_again_proves_nothing() -> None:
    """H1"""
    first, waiter = contenders([named(Kind.LOCK, 0), named(Kind.LOCK, 1)])
    queue = queue_of([first, waiter])
    queue.remove(first)
    assert not queue.answered(queue.asks(), stat_of(2, 2, czxid=9))
    queue.nobody()
    assert not queue.has(waiter)


@FEW
@given(st.integers(0, LAST_NUMBER), st.integers(0, 100_000))
def test_the_creates_of_a_parent_can_be_told_from_its_stat(creates: int, children: int) -> None:
    """Also where ZooKeeper's count of creates and deletes has turned over."""
    assert stat_of(creates, children).creates == creates


def _lines(work: Callable[[], object]) -> int:
    """How many lines of Python it takes."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("kind", [Kind.LOCK, Kind.READ])
def test_what_one_waiter_costs_does_not_grow_with_the_queue(kind: Kind) -> None:
    """O1: not a line more of work, whether a hundred are ahead or a thousand, and whoever of them has gone."""

    def cost(size: int) -> float:
        everybody = of(Kind.LOCK, *[kind] * (size - 1))
        queue = queue_of(everybody)
        order = everybody[:]
        random.Random(size).shuffle(order)

        def all_come_and_go() -> None:
            for each in everybody:
                assert queue.has(each)
                assert queue.mixed(each) is None
                queue.position(each)
                queue.nearest_blocker(each)
                queue.has_turn(each)
            for each in order:
                queue.remove(each)
                queue.nearest_blocker(everybody[-1])
                queue.position(everybody[-1])
                queue.answered(queue.asks(), stat_of(size, len(queue)))
                queue.has_turn(everybody[-1])

        return _lines(all_come_and_go) / size

    assert cost(1000) < 1.3 * cost(100)


class Seen(NamedTuple):
    """What the server answers to a look."""

    question: Question | None
    """None: it is a listing."""
    alive: list[Contender]
    parent: Stat
    absent: list[Contender]


class KnowsTheQueue(RuleBasedStateMachine):
    """A queue that hears of some of it, late, beside one that has it all."""

    def __init__(self) -> None:
        super().__init__()
        self.family: tuple[Kind, ...] = ()
        self.creates = 0
        self.alive: list[Contender] = []
        self.dead: list[Contender] = []
        self.asked: list[tuple[Question | None, list[Contender]]] = []
        """Not answered yet."""
        self.answers: list[Seen] = []
        """On their way; they arrive in their order."""
        self.queue = Queue()
        self.moment: list[Contender] = []
        """Who was there at the moment of which the queue is."""

    @precondition(lambda self: not self.family)
    @rule(family=st.sampled_from(QUEUES))
    def begin(self, family: tuple[Kind, ...]) -> None:
        self.family = family

    @precondition(lambda self: self.family)
    @rule(data=st.data(), prefix=uuids)
    def somebody_comes(self, data: st.DataObject, prefix: str) -> None:
        self._create(data.draw(st.sampled_from(self.family)), self.creates, prefix)

    @precondition(lambda self: any(each.kind is Kind.WRITE for each in self.alive))
    @rule(data=st.data(), prefix=uuids)
    def a_writer_downgrades(self, data: st.DataObject, prefix: str) -> None:
        """As Curator does: late, and with the same number."""
        writer = data.draw(st.sampled_from([each for each in self.alive if each.kind is Kind.WRITE]))
        self._create(Kind.READ, writer.number, f"late-{prefix}")

    def _create(self, kind: Kind, number: int, prefix: str) -> None:
        self.alive.append(Contender(number, named(kind, number, f"{self.creates}-{prefix}"), kind))
        self.alive.sort()
        self.creates += 1

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), is_known=st.booleans())
    def somebody_goes(self, data: st.DataObject, is_known: bool) -> None:
        gone = data.draw(st.sampled_from(self.alive))
        self.alive.remove(gone)
        self.dead.append(gone)
        if is_known:
            self.queue.remove(gone)

    @precondition(lambda self: self.dead)
    @rule(data=st.data())
    def an_end_becomes_known(self, data: st.DataObject) -> None:
        self.queue.remove(data.draw(st.sampled_from(self.dead)))

    @precondition(lambda self: self.family)
    @rule()
    def the_parent_is_listed(self) -> None:
        self.asked.append((None, []))

    @precondition(lambda self: self.family)
    @rule(count=st.integers(0, 3))
    def it_is_asked_whether_anybody_has_come(self, count: int) -> None:
        self.asked.append((self.queue.asks(), list(self.queue)[:count]))

    @precondition(lambda self: self.asked)
    @rule()
    def the_server_answers(self) -> None:
        question, doubtful = self.asked.pop(0)
        absent = [each for each in doubtful if each not in self.alive]
        others = 1  # a child that is no contender
        parent = stat_of(self.creates + others, len(self.alive) + others)
        self.answers.append(Seen(question, self.alive[:], parent, absent))

    @precondition(lambda self: self.answers)
    @rule(data=st.data())
    def an_answer_arrives(self, data: st.DataObject) -> None:
        seen = self.answers.pop(0)
        if seen.question is None:
            self.queue.listed(
                data.draw(st.permutations([*(each.name for each in seen.alive), "no contender"])), seen.parent
            )
            self.moment = seen.alive
        elif self.queue.answered(seen.question, seen.parent, seen.absent):
            self.moment = seen.alive

    @invariant()
    def nobody_is_granted_beside_somebody_ahead(self) -> None:
        """H1: whatever came late, and however old what it knows. (What has its own number is the writer's own.)"""
        for waiter in self.alive:
            if self.queue.has(waiter) and self.queue.has_turn(waiter):
                assert all(each.number == waiter.number for each in _waits_for(waiter, self.alive))

    @invariant()
    def it_is_of_one_moment(self) -> None:
        """H1: who has the turn by it had nobody ahead at that moment; and the other way round, if it is whole."""
        for waiter in filter(self.queue.has, self.moment):
            if self.queue.has_turn(waiter):
                assert _waits_for(waiter, self.moment) == []
            elif self.queue.is_whole:
                assert _waits_for(waiter, self.moment) != []
        if self.queue.is_whole:
            assert set(self.queue) <= set(self.moment)

    @invariant()
    def who_waits_watches_the_last_of_those_ahead_that_are_not_known_to_be_gone(self) -> None:
        """H7, and the positions."""
        known = list(self.queue)
        assert known == sorted(known)
        assert len(known) == len(self.queue)
        for waiter in known:
            believed = list(self.queue.blockers(waiter))
            assert believed == _waits_for(waiter, known)[::-1]
            assert self.queue.nearest_blocker(waiter) == (believed[0] if believed else None)
            ahead = [each for each in known if each < waiter]
            assert self.queue.position(waiter) == max(0, len(ahead) - len(holders(known)))

    @precondition(lambda self: self.family and not self.asked and not self.answers)
    @rule()
    def a_look_at_all_tells_whose_turn_it_is(self) -> None:
        """H7: nobody is forgotten, and nobody waits for who has the same number as somebody else."""
        self.queue.listed([each.name for each in self.alive], stat_of(self.creates, len(self.alive)))
        self.moment = self.alive[:]
        for waiter in self.alive:
            assert self.queue.has(waiter)
            assert self.queue.has_turn(waiter) == (not _waits_for(waiter, self.alive))


TestKnowsTheQueue = KnowsTheQueue.TestCase
TestKnowsTheQueue.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
