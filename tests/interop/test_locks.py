"""zkside's locks and semaphores on one path with real Curator and real kazoo (H8)."""

from __future__ import annotations

import pytest

from tests.interop.conftest import Contend
from tests.interop.contest import Crew, assert_fair, curator, kazoo, zkside

pytestmark = pytest.mark.interop


@pytest.mark.parametrize(
    "crews",
    [
        (curator("mutex"), zkside("lock:CURATOR")),
        (curator("mutex", 2), zkside("lock:CURATOR", 2), zkside("lock:CURATOR", 2, host=2)),
        (curator("mutex"), kazoo("curator-lock")),
        (zkside("lock:CURATOR"), kazoo("curator-lock")),
        (curator("mutex", 2), kazoo("curator-lock", 2), zkside("lock:CURATOR", 2)),
    ],
    ids=lambda crews: " ".join(crew.library for crew in crews),
)
async def test_curators_mutex_is_held_by_one_at_a_time(contend: Contend, crews: tuple[Crew, ...]) -> None:
    """H1, H8: also with kazoo's Lock under Curator's names."""
    assert_fair(await contend(*crews))


async def test_a_lock_outlives_that_its_path_is_swept_away(contend: Contend) -> None:
    """H1, H8: with two contenders the path is empty at times, and goes; the numbers of its children begin anew then."""
    ledger = await contend(curator("mutex", 1), zkside("lock:CURATOR", 1))
    assert ledger.overlaps == []
    assert ledger.smallest_share() >= 0.25, ledger.grants


@pytest.mark.parametrize(
    "crews",
    [
        (curator("write", 2), zkside("shared:CURATOR_READ_WRITE")),
        (curator("read"), zkside("lock:CURATOR_READ_WRITE", 2)),
        (
            curator("write", 2),
            curator("read", 2),
            zkside("lock:CURATOR_READ_WRITE", 2),
            zkside("shared:CURATOR_READ_WRITE", 2, host=2),
        ),
        (curator("write", 2), zkside("shared:CURATOR")),
        (curator("downgrade", 2), zkside("shared:CURATOR_READ_WRITE")),
        (curator("downgrade"), zkside("lock:CURATOR_READ_WRITE", 2), zkside("shared:CURATOR_READ_WRITE", 2, host=2)),
    ],
    ids=[
        "Curator writes",
        "zkside writes",
        "both do both",
        "zkside reads as CURATOR",
        "Curator downgrades and zkside reads",
        "Curator downgrades and zkside does both",
    ],
)
async def test_curators_read_write_lock_lets_readers_share(contend: Contend, crews: tuple[Crew, ...]) -> None:
    """H1, H8: readers share, nobody shares with a writer; nor a writer with a reader that was a writer before."""
    ledger = await contend(*crews)
    assert_fair(ledger)
    assert ledger.most_inside > 1


@pytest.mark.parametrize("permits", [1, 3])
async def test_curators_semaphore_gives_its_permits_to_both(contend: Contend, permits: int) -> None:
    """H1, H8: never more inside than permits, and as many as permits."""
    size = permits + 1
    ledger = await contend(curator(f"semaphore:{permits}", size), zkside(f"semaphore:{permits}", size), permits=permits)
    assert_fair(ledger)
    assert ledger.most_inside == permits


@pytest.mark.parametrize(
    "crews",
    [
        (kazoo("lock"), zkside("lock:KAZOO")),
        (kazoo("lock", 2), kazoo("write", 2), zkside("lock:KAZOO", 2), zkside("lock:KAZOO", 2, host=2)),
    ],
    ids=["Lock", "Lock and WriteLock"],
)
async def test_kazoos_lock_is_held_by_one_at_a_time(contend: Contend, crews: tuple[Crew, ...]) -> None:
    """H1, H8."""
    assert_fair(await contend(*crews))


@pytest.mark.parametrize(
    "crews",
    [
        (kazoo("write", 2), zkside("shared:KAZOO")),
        (kazoo("read"), zkside("lock:KAZOO", 2)),
        (kazoo("write", 2), kazoo("read", 2), zkside("lock:KAZOO", 2), zkside("shared:KAZOO", 2, host=2)),
    ],
    ids=["kazoo writes", "zkside writes", "both do both"],
)
async def test_kazoos_read_and_write_locks_let_readers_share(contend: Contend, crews: tuple[Crew, ...]) -> None:
    """H1, H8."""
    ledger = await contend(*crews)
    assert_fair(ledger)
    assert ledger.most_inside > 1
