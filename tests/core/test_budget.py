"""Who gets room for bytes, and when."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from zkside.core.budget import Budget, Turn
from zkside.core.window import LEAST_BYTES, SLOW_S, SOON_S, Window

TOTAL = 100


def waiting(budget: Budget, owner: str, size: int) -> Turn:
    assert not budget.take(owner, size)
    return budget.wait(owner, size)


def test_one_owner_has_half_and_the_rest_is_the_others() -> None:
    """V4."""
    budget = Budget(TOTAL)
    assert budget.take("a", 50)
    waiting(budget, "a", 1)
    assert budget.take("b", 50)


def test_owners_take_turns_however_much_one_of_them_asks_for() -> None:
    """V4: somebody with a hundred large requests delays somebody else's by one at most."""
    budget = Budget(TOTAL)
    assert budget.take("a", 50)
    assert budget.take("b", 50)
    many = [waiting(budget, "a", 40) for _ in range(100)]
    small = waiting(budget, "c", 10)
    budget.add("a", -50)
    assert budget.admit() == [many[0], small]


def test_who_waits_for_room_is_not_overtaken_by_smaller_ones() -> None:
    budget = Budget(TOTAL)
    assert budget.take("a", 50)
    assert budget.take("b", 40)
    large = waiting(budget, "c", 30)
    assert not budget.take("d", 5)  # there would be room for it
    budget.add("a", -50)
    assert budget.admit() == [large]
    assert budget.take("d", 5)


def test_who_leaves_makes_way() -> None:
    budget = Budget(TOTAL)
    assert budget.take("a", 50)
    assert budget.take("b", 40)
    large, small = waiting(budget, "c", 30), waiting(budget, "d", 5)
    budget.leave(large)
    assert budget.admit() == [small]


def test_one_that_is_larger_than_all_room_goes_alone() -> None:
    budget = Budget(TOTAL)
    assert budget.take("a", 500)
    turn = waiting(budget, "b", 1)
    budget.add("a", -500)
    assert budget.admit() == [turn]


class Callers(RuleBasedStateMachine):
    """Whatever they do, no byte is lost, the bound holds, and nobody waits for room that is there."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = Budget(TOTAL)
        self.have: list[tuple[str, int]] = []
        self.wait: list[Turn] = []

    @rule(owner=st.sampled_from("abc"), size=st.integers(1, 60))
    def ask(self, owner: str, size: int) -> None:
        if self.budget.take(owner, size):
            self.have.append((owner, size))
        else:
            self.wait.append(self.budget.wait(owner, size))

    @precondition(lambda self: self.have)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        owner, size = self.have.pop(data.draw(st.integers(0, len(self.have) - 1)))
        self.budget.add(owner, -size)
        self.admit()

    @precondition(lambda self: self.wait)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.budget.leave(self.wait.pop(data.draw(st.integers(0, len(self.wait) - 1))))
        self.admit()

    def admit(self) -> None:
        for turn in self.budget.admit():
            self.wait.remove(turn)
            self.have.append((turn.owner, turn.size_bytes))

    @invariant()
    def the_bound_holds(self) -> None:
        assert self.budget.in_flight_bytes == sum(size for _, size in self.have)
        assert self.budget.waiting == len(self.wait)
        assert self.budget.in_flight_bytes <= TOTAL
        for owner in "abc":
            sizes = [size for other, size in self.have if other == owner]
            assert sum(sizes) <= TOTAL // 2 or len(sizes) == 1

    @invariant()
    def nobody_waits_while_nothing_is_under_way(self) -> None:
        assert self.have or not self.wait


TestCallers = Callers.TestCase
TestCallers.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)


def test_less_is_expected_while_answers_take_long_and_more_again_when_they_come_soon() -> None:
    """V4: on a slow way a proof waits behind little."""
    window = Window(32 << 20)
    now_s = 0.0
    for _ in range(10):
        now_s += 2 * SLOW_S
        window.took(2 * SLOW_S, now_s, 1 << 20)
    assert window.size_bytes == LEAST_BYTES
    for _ in range(10):
        window.took(SOON_S, now_s, 100)
    assert window.size_bytes < 2 * LEAST_BYTES
    for _ in range(30):
        window.took(SOON_S, now_s, 1 << 20)
    assert window.size_bytes == 32 << 20


def test_answers_of_one_jam_halve_the_window_once() -> None:
    window = Window(32 << 20)
    for _ in range(10):
        window.took(3.0, 5.0, 1 << 20)
    assert window.size_bytes == 8 << 20
