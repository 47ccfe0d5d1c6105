"""Who waits for whom, against a model that knows everything and takes its time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from zkside.core.queueing import Contender, Kind, Queue, contender, contenders, holders, mixed

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


def named(kind: Kind, number: int, prefix: str = "") -> str:
    """As ZooKeeper names it, whose counter turns negative in the end."""
    return f"{prefix}{kind.value}{number:010d}"


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
        found = mixed(one, everybody)
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
    """All whose turn is before: the rule, as a sentence."""
    return [
        ahead
        for ahead in everybody
        if ahead.number < waiter.number and not (ahead.kind.is_shared and waiter.kind.is_shared)
    ]


class KnowsTheQueue(RuleBasedStateMachine):
    """A queue that hears of some of it, late, beside one that has it all."""

    def __init__(self) -> None:
        super().__init__()
        self.family: tuple[Kind, ...] = ()
        self.alive: list[Contender] = []
        self.dead: list[Contender] = []
        self.listings: list[list[str]] = []
        """Under way; they arrive in their order."""
        self.queue = Queue()

    @precondition(lambda self: not self.family)
    @rule(family=st.sampled_from(QUEUES))
    def begin(self, family: tuple[Kind, ...]) -> None:
        self.family = family

    @precondition(lambda self: self.family)
    @rule(data=st.data(), prefix=uuids)
    def somebody_comes(self, data: st.DataObject, prefix: str) -> None:
        number = len(self.alive) + len(self.dead)
        kind = data.draw(st.sampled_from(self.family))
        self.alive.append(Contender(number, named(kind, number, prefix), kind))

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

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def the_parent_is_listed(self, data: st.DataObject) -> None:
        names = [each.name for each in self.alive]
        self.listings.append(data.draw(st.permutations([*names, "no contender"])))

    @precondition(lambda self: self.listings)
    @rule()
    def a_listing_arrives(self) -> None:
        self.queue.listed(self.listings.pop(0))

    @invariant()
    def it_lacks_nobody_who_is_ahead_of_one_that_it_has(self) -> None:
        """H1: what it takes for the head of the queue has nobody alive ahead."""
        known = self.queue.known
        assert known == sorted(known)
        assert len({each.name for each in known}) == len(known)
        if known:
            assert {each.name for each in self.alive if each < known[-1]} <= {each.name for each in known}

    @invariant()
    def who_waits_for_nobody_has_its_turn_and_who_waits_watches_one_that_may_be_there(self) -> None:
        """H1, H7."""
        for waiter in self.alive:
            if not self.queue.has(waiter):
                continue
            truly = _waits_for(waiter, self.alive)
            believed = self.queue.blockers(waiter)
            nearest = self.queue.nearest_blocker(waiter)
            assert set(truly) <= set(believed)
            assert nearest == (believed[0] if believed else None)
            assert believed == _waits_for(waiter, self.queue.known)[::-1]
            ahead = [each for each in self.queue.known if each < waiter]
            assert self.queue.position(waiter) == max(0, len(ahead) - len(holders(self.queue.known)))

    @precondition(lambda self: not self.listings)
    @rule()
    def when_every_end_is_known_it_is_right(self) -> None:
        for gone in self.dead:
            self.queue.remove(gone)
        assert self.queue.known == [each for each in self.alive if self.queue.has(each)]
        for waiter in self.alive:
            if self.queue.has(waiter):
                assert self.queue.blockers(waiter) == _waits_for(waiter, self.alive)[::-1]


TestKnowsTheQueue = KnowsTheQueue.TestCase
TestKnowsTheQueue.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
