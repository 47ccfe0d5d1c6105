"""What the status page lists: the worst of any number, looked at a few at a time, and nothing that is a secret."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkside.hub.hub import RootStatus
from zkside.model.hold import HoldState, HoldStatus, HoldUpdate, Reason
from zkside.model.watch import Place, Scope
from zkside.ops.status_page import LONGEST, lists
from zkside.ops.survey import (
    AT_ONCE,
    MOST_COUNTED,
    MOST_OWNERS,
    MOST_ROWS,
    MOST_SUBSCRIBERS,
    MOST_WAITERS,
    Sources,
    Survey,
    Worst,
    survey,
)
from zkside.ops.turns import SHARE, SLICE_S, InTurns, LoopHangs

T = TypeVar("T")


def hold(
    number: int,
    *,
    path: str = "/lock",
    state: HoldState = HoldState.HELD,
    recipe: str = "lock",
    attached: bool = True,
    position: int = 0,
    owner: str = "",
) -> HoldStatus:
    update = HoldUpdate(f"id-{number}", f"{path}/node", 1, number, 0, "a secret", state, Reason.GRANTED, position)
    return HoldStatus(update, recipe, path, owner, float(number), attached, None)


def root(number: int, *, users: int = 0, holds: int = 0, stale_s: float = 0.0, scope: Scope = Scope.NODE) -> RootStatus:
    return RootStatus(f"/cached-{number}", scope, users, holds, True, stale_s, f"/cached-{number}", False)


@dataclass(frozen=True)
class Line:
    """An open stream."""

    peer: str
    unread: float = 0.0
    places: tuple[Place, ...] = ()
    method: str = "zkside.v1.WatchService/Watch"
    sent: int = 1
    is_infrastructure: bool = False

    @property
    def pending(self) -> Callable[[], int]:
        return lambda: 7

    @property
    def watches(self) -> Callable[[], Sequence[Place]]:
        return lambda: self.places

    def age_s(self) -> float:
        return 60.0

    def unread_s(self) -> float:
        return self.unread


def look(
    holds: Sequence[HoldStatus] = (),
    roots: Sequence[RootStatus] = (),
    streams: Sequence[Line] = (),
    nodes: Callable[[Place], Iterator[object]] = lambda place: iter(()),
) -> Survey:
    return finish(survey(Sources(lambda: holds, lambda: roots, nodes, lambda: streams)))


def finish(gathering: Generator[None, None, T]) -> T:
    while True:
        try:
            next(gathering)
        except StopIteration as done:
            found: T = done.value
            return found


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3))), st.integers(1, 8))
def test_the_worst_are_those_that_sorting_all_would_find(rows: list[tuple[int, int]], most: int) -> None:
    worst: Worst[int] = Worst(most)
    for number, badness in enumerate(rows):
        worst.offer(badness, number)
    # Of equal ones the first: sorting is stable.
    assert worst.rows() == sorted(range(len(rows)), key=lambda number: rows[number], reverse=True)[:most] or not rows


def test_holds_are_gathered_by_what_they_are_of_with_those_in_trouble_first() -> None:
    found = look(
        [
            *(hold(number, path=f"/quiet-{number}") for number in range(100)),
            hold(1, path="/contended", owner="db-1"),
            *(hold(n, path="/contended", state=HoldState.WAITING, position=20 - n) for n in range(20)),
            hold(2, path="/orphaned", attached=False),
            hold(3, path="/jeopardy", state=HoldState.JEOPARDY),
            hold(4, path="/leader", recipe="election"),
        ]
    )
    assert [each.path for each in found.held[:3]] == ["/orphaned", "/jeopardy", "/contended"]
    assert (len(found.held), found.held_paths) == (MOST_ROWS, 104)
    counts = found.counts
    assert (counts.owned, counts.waiting, counts.in_jeopardy, counts.unattended, counts.led) == (104, 20, 1, 1, 1)
    contended = found.held[2]
    assert [each.owner for each in contended.owners] == ["db-1"]
    assert [each.update.position for each in contended.waiters] == list(range(1, MOST_WAITERS + 1))
    assert contended.longest_wait_s == 19.0


def test_of_many_owners_those_in_jeopardy_and_the_oldest_are_named() -> None:
    owners = [hold(n, owner=f"o-{n}") for n in range(50)] + [hold(0, state=HoldState.JEOPARDY, owner="in jeopardy")]
    (held,) = look(owners).held
    assert [each.owner for each in held.owners] == ["in jeopardy", "o-49", "o-48", "o-47"]
    assert (len(held.owners), held.counts.owned) == (MOST_OWNERS, 51)


def test_caches_are_listed_stale_first_with_their_subscribers_and_without_the_nodes_of_holds() -> None:
    watched = Place("/cached-7", Scope.NODE)
    found = look(
        roots=[
            *(root(number, users=1, holds=1) for number in range(5000)),
            root(7, users=9),
            root(8, users=2, stale_s=3.0),
        ],
        streams=[Line(f"ipv4:10.0.0.{number}:1", unread=number, places=(watched,)) for number in range(9)],
        nodes=lambda place: iter(range(MOST_COUNTED + 5 if place == watched else 3)),
    )
    assert [each.root.path for each in found.caches] == ["/cached-8", "/cached-7"]
    assert (found.cached, found.of_holds, found.stale) == (5002, 5000, 1)
    assert [(each.nodes, each.is_all) for each in found.caches] == [(3, True), (MOST_COUNTED, False)]
    assert [each.unread_s for each in found.caches[1].subscribers] == [8, 7, 6, 5, 4, 3]
    assert len(found.caches[1].subscribers) == MOST_SUBSCRIBERS


def test_only_clients_that_do_not_read_are_slow() -> None:
    found = look(
        streams=[
            Line("quick"),
            Line("probe", unread=99.0, is_infrastructure=True),
            Line("slow", unread=2.0, places=(Place("/a", Scope.SUBTREE),)),
            Line("slower", unread=20.0),
        ]
    )
    assert [(each.peer, each.pending) for each in found.slow] == [("slower", 7), ("slow", 7)]
    assert (found.slow_streams, found.streams) == (2, 3)


def test_no_more_than_a_few_are_looked_at_between_two_turns_of_the_loop() -> None:
    """O4: for 10,000 holds, 100,000 watches and 20,000 streams; what is found is bounded."""
    looked = most = 0

    def counted(rows: Sequence[T]) -> Iterator[T]:
        nonlocal looked, most
        for row in rows:
            looked += 1
            most = max(most, looked)
            yield row

    holds = [hold(number, path=f"/lock-{number % 5000}") for number in range(10_000)]
    roots = [root(number, users=1) for number in range(100_000)]
    streams = [Line("unix:", unread=5.0, places=(Place("/cached-1", Scope.NODE),)) for _ in range(20_000)]
    sources = Sources(
        lambda: counted(holds), lambda: counted(roots), lambda place: counted(range(3000)), lambda: counted(streams)
    )
    gathering = survey(sources)
    while True:
        looked = 0
        try:
            next(gathering)
        except StopIteration as done:
            found: Survey = done.value
            break
    assert most <= 17 * AT_ONCE
    assert len(found.held) == len(found.caches) == len(found.slow) == MOST_ROWS
    assert len(json.dumps(lists(found, 0.0))) < 150_000


def test_what_travels_has_no_secret_and_is_bounded() -> None:
    """Neither the token that takes a hold up, nor the id that lets it go; and no name longer than a line or two."""
    long = "/x" * 5000
    told = json.dumps(lists(look([hold(1, path=long, owner=long)], streams=[Line("unix:", unread=9.0)]), 0.0))
    assert "a secret" not in told
    assert "id-1" not in told
    assert long not in told
    assert all(len(part) <= LONGEST + 4 for part in told.split('"'))


# In turns


def endless(turns: int, found: str = "found") -> Generator[None, None, str]:
    for _ in range(turns):
        yield
    return found


async def test_the_loop_gets_its_turns_while_something_long_is_gathered() -> None:
    """O4: a timer that is due every millisecond is called in between, again and again."""
    called = 0

    def count() -> None:
        nonlocal called
        called += 1
        asyncio.get_running_loop().call_later(SLICE_S, count)

    count()
    gathering = InTurns(asyncio.get_running_loop(), lambda: endless(1_000_000))
    found, age_s = await asyncio.to_thread(gathering.ask)
    assert found == "found"
    assert age_s < 1.0
    assert called > gathering.cost_s / SLICE_S / 20
    assert called > 10


async def test_however_many_ask_it_is_gathered_once_and_kept_the_longer_the_more_it_cost() -> None:
    """O4: looking takes a twentieth of the loop's time at most."""
    begun = 0

    def gather() -> Generator[None, None, int]:
        nonlocal begun
        begun += 1
        yield from (None for _ in range(500_000))
        return begun

    gathering = InTurns(asyncio.get_running_loop(), gather)
    answers = await asyncio.gather(*(asyncio.to_thread(gathering.ask) for _ in range(8)))
    assert {found for found, _ in answers} == {1}
    loop = asyncio.get_running_loop()
    until_s = loop.time() + SHARE * gathering.cost_s * 0.5
    while loop.time() < until_s:
        assert (await asyncio.to_thread(gathering.ask))[0] == 1
        await asyncio.sleep(0.05)


async def test_what_goes_wrong_while_gathering_is_told_to_who_asked_and_the_next_may_try_again() -> None:
    fails = [True]

    def gather() -> Generator[None, None, str]:
        yield
        if fails.pop() if fails else False:
            raise ZeroDivisionError
        return "found"

    gathering = InTurns(asyncio.get_running_loop(), gather)
    with pytest.raises(ZeroDivisionError):
        await asyncio.to_thread(gathering.ask)
    assert (await asyncio.to_thread(gathering.ask))[0] == "found"


def test_a_loop_that_is_over_is_told_from_one_that_answers() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(LoopHangs):
        InTurns(loop, lambda: endless(1)).ask()
