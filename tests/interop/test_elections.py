"""zkside's elections on one path with real Curator and real kazoo (H8)."""

from __future__ import annotations

import pytest

from tests.interop.conftest import Contend
from tests.interop.contest import Crew, assert_fair, curator, kazoo, zkside

pytestmark = pytest.mark.interop


@pytest.mark.parametrize(
    "crews",
    [
        (curator("latch"), zkside("election:LATCH")),
        (curator("latch", 2), zkside("election:LATCH", 2), zkside("election:LATCH", 2, host=2)),
    ],
    ids=["one host", "two hosts"],
)
async def test_leader_latch_has_one_leader(contend: Contend, crews: tuple[Crew, ...]) -> None:
    """H1, H8."""
    assert_fair(await contend(*crews))


@pytest.mark.parametrize(
    "crews",
    [
        (curator("selector"), zkside("election:LOCK")),
        (curator("selector", 2), zkside("election:LOCK", 2), zkside("election:LOCK", 2, host=2)),
    ],
    ids=["one host", "two hosts"],
)
async def test_leader_selector_has_one_leader(contend: Contend, crews: tuple[Crew, ...]) -> None:
    """H1, H8."""
    assert_fair(await contend(*crews))


async def test_kazoos_election_has_one_leader(contend: Contend) -> None:
    """H1, H8."""
    crews = (kazoo("election"), zkside("election:KAZOO", 2), zkside("election:KAZOO", 2, host=2))
    assert_fair(await contend(*crews))
