"""The schedules in which a server that is cut off goes on answering, and what comes of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from tests.safety.belief import STILL, Belief
from tests.safety.stand import WITHOUT_END, Contest, Stand, now_ns


class Schedule(Enum):
    """Which server is cut off from the other two, with host `a` on its side."""

    FOLLOWER = "a follower is cut off, silently"
    LEADER = "the leader is cut off, silently"
    LEADER_RESET = "the leader is cut off, and its followers notice at once"

    @property
    def role(self) -> str:
        return "follower" if self is Schedule.FOLLOWER else "leader"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one kind of candidate in one run; seconds after the partition began."""

    rule: str
    believed_until_s: float
    """The end of the old leader's belief; if it had not ended, of the partition."""
    had_ended: bool
    granted_s: float
    """The next leader's grant."""

    @property
    def overlap_s(self) -> float:
        return max(0.0, self.believed_until_s - self.granted_s)


def run(
    stand: Stand, schedule: Schedule, path: str, directory: Path, *, java: Sequence[str] = (), limit_s: float = 40.0
) -> list[Outcome]:
    """One partition, from a whole ensemble to a whole ensemble.

    Raises: TimeoutError if within `limit_s` somebody was not granted or an old leader still believes, or if a
    first leader did not last until the partition: nothing was measured then.
    """
    stand.wait_whole()
    lonely = stand.host_with(schedule.role)
    others = [host for host in stand.servers if host is not lonely]
    stand.network.cut([stand.a], others)
    stand.network.cut([stand.b], [lonely])
    try:
        with Contest(stand, stand.a, path, directory, java) as old:
            _must(old.wait_for(believes=True, deadline_s=time.monotonic() + 30), "the first leaders were not granted")
            with Contest(stand, stand.b, path, directory, java) as new:
                stand.wait_ephemerals(path, len(old.nodes) + len(new.nodes))
                # On a machine that is too busy a lease may be over before anything was cut.
                _must(old.wait_for(believes=True, deadline_s=time.monotonic() + 2), "a first leader was lost before")
                began_ns = now_ns()
                if schedule is Schedule.LEADER_RESET:
                    stand.network.reset(others, [lonely])
                else:
                    stand.network.cut(others, [lonely])
                deadline_s = time.monotonic() + limit_s
                _must(new.wait_for(believes=True, deadline_s=deadline_s), "the next leaders were not granted")
                _must(
                    old.wait_for(believes=False, without=WITHOUT_END, deadline_s=deadline_s),
                    "an old leader still believes",
                )
                return _outcomes(old.beliefs(), new.beliefs(), began_ns, now_ns())
    finally:
        stand.network.heal()


def _outcomes(
    old: dict[str, list[Belief]], new: dict[str, list[Belief]], began_ns: int, healed_ns: int
) -> list[Outcome]:
    def after_s(at_ns: int) -> float:
        return (min(at_ns, healed_ns) - began_ns) / 1e9

    return [
        # A belief may have lapsed and come back before (the machine was busy): its last end counts.
        Outcome(rule, after_s(last.until_ns), last.until_ns != STILL, after_s(new[rule][0].from_ns))
        for rule, (*_, last) in old.items()
    ]


def _must(came: bool, otherwise: str) -> None:
    if not came:
        raise TimeoutError(otherwise)
