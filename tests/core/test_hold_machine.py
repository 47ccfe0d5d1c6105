"""The life of a hold, as a table."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zkside.core.hold import TABLE, Input, NoTransition, advance
from zkside.model.hold import HoldState

_S, _I = HoldState, Input
OVER = (_S.RELEASED, _S.LOST)


def dumb(inputs: list[Input]) -> HoldState:
    """The state after these inputs, said in sentences."""
    granted = _I.GRANTED in inputs
    if inputs and inputs[-1] is _I.RELEASED:
        return _S.RELEASED
    if inputs and inputs[-1] is _I.LOST:
        return _S.LOST
    if not granted:
        return _S.WAITING
    since = inputs[inputs.index(_I.GRANTED) + 1 :]
    in_danger = [each for each in since if each in (_I.DISCONNECTED, _I.RECALLED, _I.RECONNECTED)]
    return _S.JEOPARDY if in_danger and in_danger[-1] is not _I.RECONNECTED else _S.HELD


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(Input)))
def test_a_hold_goes_its_way_or_says_that_there_is_none(inputs: list[Input]) -> None:
    """H5."""
    state, taken = _S.WAITING, list[Input]()
    for given_ in inputs:
        if (state, given_) not in TABLE:
            with pytest.raises(NoTransition, match=f"{state.name} by {given_.name}"):
                advance(state, given_)
            continue
        state = advance(state, given_)
        taken.append(given_)
        assert state is dumb(taken)


@pytest.mark.parametrize("state", OVER)
@pytest.mark.parametrize("given_", Input)
def test_nothing_leads_out_of_an_end(state: HoldState, given_: Input) -> None:
    """S4."""
    assert state.is_over
    with pytest.raises(NoTransition):
        advance(state, given_)


@pytest.mark.parametrize("state", [each for each in HoldState if each not in OVER])
def test_every_other_state_can_be_left_by_its_owner_and_by_fate(state: HoldState) -> None:
    assert advance(state, _I.RELEASED) is _S.RELEASED
    assert advance(state, _I.LOST) is _S.LOST


def test_only_a_grant_leads_into_holding_and_only_once() -> None:
    """H1."""
    into = {(before, given_) for (before, given_), after in TABLE.items() if after is _S.HELD}
    assert {each for each in into if each[0] is _S.WAITING} == {(_S.WAITING, _I.GRANTED)}
    assert {before for before, given_ in TABLE if given_ is _I.GRANTED} == {_S.WAITING}
