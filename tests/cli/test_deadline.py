"""When a command is told and killed: decisions."""

from __future__ import annotations

import signal

import pytest

from zkside.cli.deadline import RESERVE_NS, SILENCE_NS, Deadlines, deadlines

S = 1_000_000_000


@pytest.mark.parametrize(
    ("now_ns", "told_ns", "due"),
    [
        (4 * S, 0, None),
        (5 * S, 0, signal.SIGTERM),
        (6 * S, 5 * S, None),
        (7 * S, 5 * S, signal.SIGKILL),
        (8 * S, 0, signal.SIGKILL),
        (8 * S, 7 * S, signal.SIGKILL),
    ],
    ids=["before", "told", "has time", "had its time", "too late to tell", "the lease ends before its time"],
)
def test_a_command_is_told_then_killed(now_ns: int, told_ns: int, due: signal.Signals | None) -> None:
    assert Deadlines(5 * S, 8 * S).due(now_ns, told_ns, 2 * S) == due


def test_the_next_look_is_at_the_first_deadline() -> None:
    both = Deadlines(5 * S, 8 * S)
    assert both.next_ns(0, 2 * S) == 5 * S
    assert both.next_ns(5 * S, 2 * S) == 7 * S
    assert both.next_ns(5 * S, 9 * S) == 8 * S
    assert Deadlines().next_ns(0, 2 * S) is None
    assert Deadlines().due(9 * S, 0, 2 * S) is None


def test_what_is_not_said_stays() -> None:
    assert Deadlines(5 * S, 8 * S).moved(None, 9 * S) == Deadlines(5 * S, 9 * S)
    assert Deadlines(5 * S, 8 * S).moved(1, None) == Deadlines(1, 8 * S)


def test_it_is_told_early_only_while_zookeeper_cannot_be_reached() -> None:
    healthy = deadlines(10 * S, 1.4, 12 * S, 5.0, in_jeopardy=False)
    assert healthy == Deadlines(round(11.4 * S) - SILENCE_NS, round(11.4 * S) - RESERVE_NS)
    assert healthy.due(10 * S, 0, S) is None
    endangered = deadlines(10 * S, 1.4, 12 * S, 5.0, in_jeopardy=True)
    assert endangered.due(10 * S, 0, S) == signal.SIGTERM
    assert endangered.kill_ns == healthy.kill_ns
    assert deadlines(10 * S, 0.0, 0, 5.0, in_jeopardy=False).due(10 * S, 0, S) == signal.SIGKILL
