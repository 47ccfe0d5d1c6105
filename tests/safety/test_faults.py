"""Random faults from a seed, and what the clients believed meanwhile, by their own logs."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from tests.safety.arena import RECIPES, Arena
from tests.safety.belief import disorders, overlaps
from tests.safety.faults import OF_SERVERS, Event, Fault, schedule
from zkside.cli.zookeeper import Installation

LENGTH_S = 100.0
AGAIN_WITHIN_S = 60.0


def play(arena: Arena, events: list[Event]) -> None:
    """Strike and heal, each at its time."""
    began_s = time.monotonic()
    deeds = sorted([(each.at_s, 1, each) for each in events] + [(each.at_s + each.for_s, 0, each) for each in events],
                   key=lambda deed: deed[:2])  # fmt: skip
    heals = {}
    for at_s, begins, event in deeds:
        time.sleep(max(0.0, began_s + at_s - time.monotonic()))
        if begins:
            heals[event] = arena.strike(event)
        else:
            heals.pop(event)()


@pytest.mark.faults
@pytest.mark.timeout(LENGTH_S + 240)
@pytest.mark.parametrize(
    ("proof", "of_servers"),
    [("sync", OF_SERVERS), ("write", (*OF_SERVERS, Fault.RESET_LEADER))],
    ids=["sync", "write"],
)
def test_whatever_fails_no_two_clients_believe_at_once(
    namespaces: None,
    zookeeper_installation: Installation,
    tmp_path: Path,
    seed: int,
    proof: str,
    of_servers: tuple[Fault, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """H1, H2: on one lock and one election, over three hosts and three servers. And all of them go on afterwards."""
    events = schedule(seed, length_s=LENGTH_S, servers=of_servers)
    with Arena(zookeeper_installation, tmp_path, seed, LEASE_PROOF=proof) as arena:
        arena.wait_everybody_again(within_s=AGAIN_WITHIN_S)
        play(arena, events)
        arena.network.heal()
        arena.wait_everybody_again(within_s=AGAIN_WITHIN_S)
        for post in arena.posts:
            for worker in post.workers:
                worker.end()
        beliefs = {recipe: arena.beliefs(recipe) for recipe in RECIPES}
    struck = Counter(event.fault.name for event in events)
    with capsys.disabled():
        told = ", ".join(f"{len(found)} grants of the {recipe}" for recipe, found in beliefs.items())
        print(f"\nSAFETY_SEED={seed}, proof {proof}: {told}; {struck.total()} faults: {dict(struck)}")
    for recipe, found in beliefs.items():
        story = "\n".join(map(str, events))
        assert overlaps(found) == [], f"{recipe}, SAFETY_SEED={seed}\n{story}"
        assert disorders(found) == [], f"{recipe}, SAFETY_SEED={seed}\n{story}"
        assert len(found) > LENGTH_S / 20, "a run in which hardly anything is granted proves nothing"


def test_the_same_seed_plays_the_same_faults() -> None:
    assert schedule(7, length_s=60) == schedule(7, length_s=60) != schedule(8, length_s=60)


def test_every_kind_of_fault_comes() -> None:
    assert {event.fault for event in schedule(1, length_s=LENGTH_S, servers=(*OF_SERVERS, Fault.RESET_LEADER))} == {
        *Fault
    }
