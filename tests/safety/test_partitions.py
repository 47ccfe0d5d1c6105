"""A leader's host is cut off together with the server that it uses: when does it stop believing, and who leads next?

`make safety` measures the same at length, beside Curator.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.safety.partition import Outcome, Schedule, run
from tests.safety.stand import Stand
from zkside.cli.zookeeper import Installation

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def stand(namespaces: None, zookeeper_installation: Installation) -> Iterator[Stand]:
    with Stand(zookeeper_installation) as stand:
        yield stand


def outcomes(stand: Stand, schedule: Schedule, directory: Path) -> dict[str, Outcome]:
    return {each.rule: each for each in run(stand, schedule, f"/{schedule.name.lower()}", directory)}


def test_a_leader_on_a_follower_that_is_cut_off_believes_no_longer_than_its_session_lives(
    stand: Stand, tmp_path: Path
) -> None:
    """H1: where the pings of every client are answered for seconds after the session has ended."""
    came = outcomes(stand, Schedule.FOLLOWER, tmp_path)
    assert came["zkside-sync"].overlap_s == 0
    assert came["zkside-write"].overlap_s == 0
    assert came["kazoo-suspended"].overlap_s > 1, "the schedule is one in which pings prove nothing"


def test_a_leader_on_a_zookeeper_leader_that_is_cut_off_believes_no_longer_than_its_session_lives(
    stand: Stand, tmp_path: Path
) -> None:
    """H1: the deposed leader answers syncs until it notices, and the margin is what makes up for it."""
    came = outcomes(stand, Schedule.LEADER, tmp_path)
    assert came["zkside-sync"].overlap_s == 0
    assert came["zkside-write"].overlap_s == 0


def test_only_writes_prove_anything_where_followers_notice_before_their_leader(stand: Stand, tmp_path: Path) -> None:
    """H1 with lease.proof = write. With sync it does not hold here, and docs/safety.md says so."""
    came = outcomes(stand, Schedule.LEADER_RESET, tmp_path)
    assert came["zkside-write"].overlap_s == 0
    assert came["zkside-sync"].believed_until_s > came["zkside-write"].believed_until_s
