"""The session machine: one table, (state, input) → (state, effects). Nothing here acts.

What the table promises:

* An epoch ends in LOST or CLOSED and nowhere else, and both say so with END_EPOCH.
* From LOST only OPEN leads on (and CLOSE, which ends everything): nothing that a dead session's connection
  still reports can bring it back (GUARANTEES S4).
* CONNECTED and CONNECTED_READ_ONLY are entered only by a connection's own report.
* What is not in the table cannot happen; should it happen, `advance` raises NoTransition and leaves the
  state as it was.

Source: the states of ZooKeeper's programmer's guide ("ZooKeeper Sessions"), with LOST decided also by the
local clock, as Curator's ConnectionState does.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from zkside.errors import ZksideError
from zkside.model.event import KeeperState
from zkside.model.session import SessionState

_S = SessionState


class Input(Enum):
    """What can happen to a session."""

    OPEN = "open"
    """Connect, or connect again with a new connection object."""
    CONNECTED = "connected"
    CONNECTED_READ_ONLY = "connected read-only"
    DISCONNECTED = "disconnected"
    EXPIRED = "expired"
    """The server says that the session is over."""
    LEASE_PASSED = "lease passed"
    """The local clock says that the session may be over."""
    AUTH_FAILED = "auth failed"
    CLOSE = "close"


class Effect(Enum):
    """What the shell has to do, in the order given, before it announces the new state."""

    ABANDON = "abandon"
    """Cut the connection, for ever deaf to what it still reports."""
    CONNECT = "connect"
    """Make a new connection, for the session that is being kept if there is one."""
    ADOPT = "adopt"
    """This connection's session is the present one; if it was not so before, an epoch begins."""
    END_EPOCH = "end epoch"
    """What the session owned is gone, and everything that runs inside the epoch ends."""
    RETRY = "retry"
    """OPEN soon."""
    RETRY_SLOWLY = "retry slowly"
    """OPEN later: hammering a server with refused credentials helps nobody."""
    LEAVE = "leave"
    """Close the session, or leave it to be taken up again, as the caller of close chose."""


class Transition(NamedTuple):
    """Where an input leads, and what is to be done on the way."""

    state: SessionState
    effects: tuple[Effect, ...] = ()


class NoTransition(ZksideError):
    """The session machine met an input that its state does not know: a bug in zkside."""

    def __init__(self, state: SessionState, given: Input) -> None:
        super().__init__(
            f"the session machine has no way from {state.name} by {given.name}; the state is unchanged",
            state=state.name,
            input=given.name,
        )
        self.state = state
        self.given = given


_LOST = Transition(_S.LOST, (Effect.END_EPOCH, Effect.ABANDON, Effect.RETRY))
_CLOSED = Transition(_S.CLOSED, (Effect.END_EPOCH, Effect.LEAVE))
_AGAIN = (Effect.ABANDON, Effect.CONNECT)

_ENDINGS = {
    Input.EXPIRED: _LOST,
    Input.LEASE_PASSED: _LOST,
    # The port gives the session up with its credentials. If it has one to lose it is lost first; the next
    # connection then finds out whether the credentials are still refused.
    Input.AUTH_FAILED: _LOST,
    Input.CLOSE: _CLOSED,
}

_ROWS: dict[SessionState, dict[Input, Transition]] = {
    _S.CONNECTING: {
        **_ENDINGS,
        Input.OPEN: Transition(_S.CONNECTING, _AGAIN),
        Input.CONNECTED: Transition(_S.CONNECTED, (Effect.ADOPT,)),
        Input.CONNECTED_READ_ONLY: Transition(_S.CONNECTED_READ_ONLY, (Effect.ADOPT,)),
        Input.DISCONNECTED: Transition(_S.CONNECTING),
        Input.AUTH_FAILED: Transition(_S.AUTH_FAILED, (Effect.ABANDON, Effect.RETRY_SLOWLY)),
    },
    _S.CONNECTED: {
        **_ENDINGS,
        Input.DISCONNECTED: Transition(_S.SUSPENDED),
    },
    _S.CONNECTED_READ_ONLY: {
        **_ENDINGS,
        Input.CONNECTED: Transition(_S.CONNECTED, (Effect.ADOPT,)),
        Input.DISCONNECTED: Transition(_S.SUSPENDED),
    },
    _S.SUSPENDED: {
        **_ENDINGS,
        Input.OPEN: Transition(_S.SUSPENDED, _AGAIN),
        Input.CONNECTED: Transition(_S.CONNECTED, (Effect.ADOPT,)),
        Input.CONNECTED_READ_ONLY: Transition(_S.CONNECTED_READ_ONLY, (Effect.ADOPT,)),
        Input.DISCONNECTED: Transition(_S.SUSPENDED),
    },
    _S.LOST: {
        Input.OPEN: Transition(_S.CONNECTING, (Effect.CONNECT,)),
        Input.CLOSE: Transition(_S.CLOSED),
    },
    _S.AUTH_FAILED: {
        Input.OPEN: Transition(_S.CONNECTING, (Effect.CONNECT,)),
        Input.CLOSE: _CLOSED,
    },
    _S.CLOSED: {
        Input.CLOSE: Transition(_S.CLOSED),
    },
}

TABLE: Mapping[tuple[SessionState, Input], Transition] = MappingProxyType(
    {(state, given): transition for state, row in _ROWS.items() for given, transition in row.items()}
)

INITIAL = _S.CONNECTING

KEEPER_STATES: Mapping[SessionState, KeeperState] = MappingProxyType(
    {
        _S.CONNECTING: KeeperState.DISCONNECTED,
        _S.CONNECTED: KeeperState.SYNC_CONNECTED,
        _S.CONNECTED_READ_ONLY: KeeperState.CONNECTED_READ_ONLY,
        _S.SUSPENDED: KeeperState.DISCONNECTED,
        _S.LOST: KeeperState.EXPIRED,
        _S.AUTH_FAILED: KeeperState.AUTH_FAILED,
        _S.CLOSED: KeeperState.CLOSED,
    }
)
"""What a client of ZooKeeper itself would be told in each state."""

SESSION_STATES: Mapping[KeeperState, SessionState] = MappingProxyType(
    {
        KeeperState.DISCONNECTED: _S.SUSPENDED,
        KeeperState.SYNC_CONNECTED: _S.CONNECTED,
        KeeperState.AUTH_FAILED: _S.AUTH_FAILED,
        KeeperState.CONNECTED_READ_ONLY: _S.CONNECTED_READ_ONLY,
        # CONNECTED is announced only when authentication is done, so the two are one here.
        KeeperState.SASL_AUTHENTICATED: _S.CONNECTED,
        KeeperState.EXPIRED: _S.LOST,
        KeeperState.CLOSED: _S.CLOSED,
    }
)
"""The way back; CONNECTING is no answer here, since ZooKeeper calls it DISCONNECTED as well."""


def advance(state: SessionState, given: Input) -> Transition:
    """Raises NoTransition."""
    try:
        return TABLE[state, given]
    except KeyError:
        raise NoTransition(state, given) from None


def diagram() -> str:
    """The table as a mermaid state diagram, for docs/session.md; what leads nowhere new is left out."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {INITIAL.name}"]
    arrows: dict[tuple[SessionState, SessionState], list[Input]] = {}
    for (state, given), transition in TABLE.items():
        if transition.state is not state:
            arrows.setdefault((state, transition.state), []).append(given)
    for (source, target), inputs in arrows.items():
        lines.append(f"    {source.name} --> {target.name}: {', '.join(i.value for i in inputs)}")
    return "\n".join([*lines, f"    {_S.CLOSED.name} --> [*]", "```"])


def table() -> str:
    """The table itself in Markdown, with the effects and with what leads nowhere new."""
    lines = ["| state | input | next state | effects |", "|---|---|---|---|"]
    for (state, given), transition in TABLE.items():
        effects = ", ".join(effect.value for effect in transition.effects) or "none"
        lines.append(f"| {state.name} | {given.value} | {transition.state.name} | {effects} |")
    return "\n".join(lines)
