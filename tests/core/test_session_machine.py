"""The session machine's table: what leads where, and that nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from zkside.core.session import (
    INITIAL,
    KEEPER_STATES,
    SESSION_STATES,
    TABLE,
    Effect,
    Input,
    NoTransition,
    advance,
    diagram,
)
from zkside.model.event import KeeperState
from zkside.model.session import SessionState

EVERY_PAIR = [(state, given) for state in SessionState for given in Input]


def reachable() -> set[SessionState]:
    found, todo = {INITIAL}, [INITIAL]
    while todo:
        state = todo.pop()
        for (source, _), transition in TABLE.items():
            if source is state and transition.state not in found:
                found.add(transition.state)
                todo.append(transition.state)
    return found


@pytest.mark.parametrize(("state", "given"), EVERY_PAIR)
def test_every_input_leads_somewhere_or_is_refused_by_name(state: SessionState, given: Input) -> None:
    if (state, given) in TABLE:
        assert advance(state, given) is TABLE[state, given]
        return
    with pytest.raises(NoTransition) as refused:
        advance(state, given)
    assert (refused.value.state, refused.value.given) == (state, given)
    assert state.name in str(refused.value)
    assert given.name in str(refused.value)


def test_every_state_can_be_reached() -> None:
    assert reachable() == set(SessionState)


def test_only_open_and_close_lead_out_of_lost() -> None:
    """S4: whatever the dead session's connection still reports, the machine does not know it."""
    ways = {given: transition.state for (state, given), transition in TABLE.items() if state is SessionState.LOST}
    assert ways == {Input.OPEN: SessionState.CONNECTING, Input.CLOSE: SessionState.CLOSED}


def test_nothing_leads_out_of_closed() -> None:
    assert {t.state for (state, _), t in TABLE.items() if state is SessionState.CLOSED} == {SessionState.CLOSED}


def test_every_other_state_can_be_closed() -> None:
    assert all(TABLE[state, Input.CLOSE].state is SessionState.CLOSED for state in SessionState)


def test_an_epoch_ends_in_lost_or_closed_and_nowhere_else() -> None:
    """S4."""
    for (source, _), transition in TABLE.items():
        is_end = transition.state in (SessionState.LOST, SessionState.CLOSED)
        was_over = source in (SessionState.LOST, SessionState.CLOSED)
        assert (Effect.END_EPOCH in transition.effects) == (is_end and not was_over)


def test_lost_cuts_the_connection_before_anybody_hears_of_it() -> None:
    """S4: effects come before the announcement."""
    for transition in TABLE.values():
        if transition.state is SessionState.LOST:
            assert Effect.ABANDON in transition.effects


def test_a_session_is_adopted_exactly_where_a_connection_is_reported() -> None:
    for (_, given), transition in TABLE.items():
        assert (Effect.ADOPT in transition.effects) == (given in (Input.CONNECTED, Input.CONNECTED_READ_ONLY))
        assert (transition.state is SessionState.CONNECTED) == (given is Input.CONNECTED)


def test_keeper_states_and_session_states_map_onto_each_other() -> None:
    assert set(KEEPER_STATES) == set(SessionState)
    assert set(SESSION_STATES) == set(KeeperState)
    for state, keeper_state in KEEPER_STATES.items():
        if state is not SessionState.CONNECTING:
            assert SESSION_STATES[keeper_state] is state
    assert KEEPER_STATES[SessionState.CONNECTING] is KEEPER_STATES[SessionState.SUSPENDED]


def test_the_diagram_shows_every_way_between_two_states() -> None:
    drawn = diagram()
    for (source, given), transition in TABLE.items():
        if source is not transition.state:
            arrow = next(line for line in drawn.splitlines() if f" {source.name} --> {transition.state.name}:" in line)
            assert given.value in arrow


def is_connected(state: SessionState) -> bool:
    return state.is_connected


class Life(RuleBasedStateMachine):
    """A session as its shell drives it: a connection reports only while it is live, and only what can happen."""

    def __init__(self) -> None:
        super().__init__()
        self.state = INITIAL
        self.has_connection = False
        self.is_up = False
        self.owns = False
        self.epoch = 0
        self.epochs_ended: list[int] = []

    def give(self, given: Input) -> None:
        transition = advance(self.state, given)
        self.state = transition.state
        for effect in transition.effects:
            match effect:
                case Effect.ABANDON | Effect.LEAVE:
                    self.has_connection = self.is_up = False
                case Effect.CONNECT:
                    assert not self.has_connection, "two connections at once (S1)"
                    self.has_connection = True
                case Effect.ADOPT:
                    if not self.owns:
                        self.epoch += 1
                    self.owns = True
                case Effect.END_EPOCH:
                    if self.owns:
                        self.epochs_ended.append(self.epoch)
                    self.owns = False

    @precondition(lambda self: not self.has_connection and self.state is not SessionState.CLOSED)
    @rule()
    def open(self) -> None:
        self.give(Input.OPEN)

    @precondition(lambda self: self.has_connection and not self.is_up)
    @rule()
    def rebuild(self) -> None:
        self.give(Input.OPEN)

    @precondition(lambda self: self.has_connection and not self.is_up)
    @rule(read_only=st.booleans())
    def connected(self, read_only: bool) -> None:
        self.is_up = True
        self.give(Input.CONNECTED_READ_ONLY if read_only else Input.CONNECTED)

    @precondition(lambda self: self.has_connection)
    @rule()
    def disconnected(self) -> None:
        self.is_up = False
        self.give(Input.DISCONNECTED)

    @precondition(lambda self: self.has_connection)
    @rule(given=st.sampled_from([Input.EXPIRED, Input.AUTH_FAILED]))
    def ended(self, given: Input) -> None:
        self.give(given)

    @precondition(lambda self: self.owns)
    @rule()
    def lease_passed(self) -> None:
        self.give(Input.LEASE_PASSED)

    @rule()
    def close(self) -> None:
        self.give(Input.CLOSE)

    @invariant()
    def is_up_where_the_state_says_so(self) -> None:
        assert self.state.is_connected == self.is_up
        assert self.owns or self.state not in (SessionState.SUSPENDED, *filter(is_connected, SessionState))

    @invariant()
    def owns_nothing_after_the_end(self) -> None:
        if self.state in (SessionState.LOST, SessionState.CLOSED, SessionState.AUTH_FAILED):
            assert not self.owns
            assert not self.has_connection

    @invariant()
    def ends_each_epoch_once_and_in_order(self) -> None:
        assert self.epochs_ended == sorted(set(self.epochs_ended))
        assert all(epoch <= self.epoch for epoch in self.epochs_ended)
        if self.owns:
            assert self.epoch not in self.epochs_ended


TestNoLifeLeavesTheTable = Life.TestCase
TestNoLifeLeavesTheTable.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestNoLifeLeavesTheTable.__doc__ = "S4: no sequence of inputs meets a missing transition, and epochs only grow."
