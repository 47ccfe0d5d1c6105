"""A hold's life as a table: WAITING → HELD → (JEOPARDY ⇄ HELD) → RELEASED | LOST."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

from zkside.errors import ZksideError
from zkside.model.hold import HoldState


class Input(Enum):
    GRANTED = "granted"
    DISCONNECTED = "disconnected"
    RECONNECTED = "reconnected"
    """To the same session."""
    RECALLED = "recalled"
    """The daemon asks for it back."""
    RELEASED = "released"
    LOST = "lost"


class NoTransition(ZksideError):
    """A hold met an input that its state does not know: a bug in zkside."""


_S, _I = HoldState, Input

TABLE: Mapping[tuple[HoldState, Input], HoldState] = MappingProxyType(
    {
        (_S.WAITING, _I.GRANTED): _S.HELD,
        # Who owns nothing yet has nothing to fear from a lost connection.
        (_S.WAITING, _I.DISCONNECTED): _S.WAITING,
        (_S.WAITING, _I.RECONNECTED): _S.WAITING,
        (_S.WAITING, _I.RELEASED): _S.RELEASED,
        (_S.WAITING, _I.LOST): _S.LOST,
        (_S.HELD, _I.DISCONNECTED): _S.JEOPARDY,
        (_S.HELD, _I.RECONNECTED): _S.HELD,
        (_S.HELD, _I.RECALLED): _S.JEOPARDY,
        (_S.HELD, _I.RELEASED): _S.RELEASED,
        (_S.HELD, _I.LOST): _S.LOST,
        (_S.JEOPARDY, _I.DISCONNECTED): _S.JEOPARDY,
        (_S.JEOPARDY, _I.RECONNECTED): _S.HELD,
        (_S.JEOPARDY, _I.RECALLED): _S.JEOPARDY,
        (_S.JEOPARDY, _I.RELEASED): _S.RELEASED,
        (_S.JEOPARDY, _I.LOST): _S.LOST,
    }
)


def advance(state: HoldState, given: Input) -> HoldState:
    """Raises NoTransition."""
    try:
        return TABLE[state, given]
    except KeyError:
        raise NoTransition(f"a hold has no way from {state.name} by {given.name}") from None
