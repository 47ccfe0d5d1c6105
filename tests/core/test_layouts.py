"""Which contenders may queue together."""

from __future__ import annotations

import pytest

from tests.core.queues import queue_of
from zkside.core.queueing import Kind, contenders

LOCK, LATCH, READ, WRITE = "_c_a-lock-", "_c_a-latch-", "_c_a-__READ__", "_c_a-__WRIT__"
KAZOO_LOCK, KAZOO_READ = "_c_a-__lock__", "_c_a-__rlock__"


def refused(*names: str) -> Kind | None:
    """What the last of them, in the order of the queue, is told to be mixed with."""
    queue = contenders(f"{name}{number:010}" for number, name in enumerate(names))
    return queue_of(queue).mixed(queue[-1])


@pytest.mark.parametrize("names", [(LOCK, LOCK), (LOCK, READ), (WRITE, READ), (LATCH, LATCH), (KAZOO_LOCK, KAZOO_READ)])
def test_those_of_one_layout_queue_together(names: tuple[str, str]) -> None:
    """H8."""
    assert refused(*names) is None
    assert refused(*reversed(names)) is None


@pytest.mark.parametrize("names", [(LOCK, LATCH), (LOCK, WRITE), (LOCK, KAZOO_LOCK), (READ, KAZOO_READ)])
def test_others_are_refused_whoever_came_first(names: tuple[str, str]) -> None:
    """H8: also LOCK and WRITE, which Curator's two classes do not see of each other."""
    first, second = (contenders([f"{name}0000000000"])[0].kind for name in names)
    assert refused(*names) is first
    assert refused(*reversed(names)) is second


def test_a_writer_among_readers_is_refused_where_a_lock_waits_too() -> None:
    """H8."""
    assert refused(READ, LOCK, WRITE) is Kind.LOCK


def test_who_is_about_to_be_refused_gets_nobody_else_refused() -> None:
    """H8: the layout is that of those who came first."""
    assert refused(LOCK, LATCH, LOCK) is None
    assert refused(LOCK, LATCH, LATCH) is Kind.LOCK


def test_who_comes_later_gets_nobody_refused() -> None:
    """H8."""
    queue = contenders([f"{LOCK}0000000000", f"{LATCH}0000000001"])
    assert queue_of(queue).mixed(queue[0]) is None
