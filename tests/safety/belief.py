"""What programs believed, and for how long two of them believed the same at once. Pure: from logs to numbers.

A belief is a stretch of CLOCK_BOOTTIME, in ns, in which a program would have acted as the only one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

STILL: Final = (1 << 63) - 1
"""The end of a belief that had not ended when the log did."""


@dataclass(frozen=True, slots=True, order=True)
class Belief:
    """`until_ns` is the first instant at which it was no longer believed."""

    from_ns: int
    until_ns: int
    who: str
    token: int = 0
    """The fencing token of the grant; 0 where a library has none."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two programs believed the same at once."""

    one: Belief
    other: Belief

    @property
    def length_ns(self) -> int:
        return min(self.one.until_ns, self.other.until_ns) - self.other.from_ns


def overlaps(beliefs: Iterable[Belief]) -> list[Overlap]:
    """Every two beliefs of different programs that have an instant in common.

    One who says twice that it was granted is not its own rival, unless the tokens differ.
    """
    found: list[Overlap] = []
    open_beliefs: list[Belief] = []
    for belief in sorted(beliefs):
        open_beliefs = [each for each in open_beliefs if each.until_ns > belief.from_ns]
        found += [
            Overlap(each, belief) for each in open_beliefs if (each.who, each.token) != (belief.who, belief.token)
        ]
        open_beliefs.append(belief)
    return found


def disorders(beliefs: Iterable[Belief]) -> list[tuple[Belief, Belief]]:
    """Every belief that began after one with a newer token (H2), with that one. One token is one program's."""
    found: list[tuple[Belief, Belief]] = []
    newest: Belief | None = None
    for belief in sorted(beliefs):
        rivals = newest is not None and (belief.token, belief.who) != (newest.token, newest.who)
        if newest is not None and rivals and belief.token <= newest.token:
            found.append((newest, belief))
        else:
            newest = belief
    return found


@dataclass(frozen=True, slots=True)
class Sample:
    """A program looked: did it believe, and until when would it go on to without hearing more?"""

    at_ns: int
    until_ns: int
    """Not after `at_ns` if it does not believe."""
    token: int


def beliefs_of(who: str, samples: Sequence[Sample], *, gap_ns: int) -> list[Belief]:
    """The stretches in which `who` believed, from what it saw when it looked, oldest first.

    Between two looks less than `gap_ns` apart the first one's answer is taken to end with the last look that
    said yes: what was in between could only have been acted upon by who looked. After a longer pause (the
    program was stopped, or is dead) it is taken to have believed for as long as it would have, because it
    might have gone on at any instant of it.
    """
    found: list[Belief] = []
    for sample, following in zip_longest(samples, samples[1:]):
        if sample.until_ns <= sample.at_ns:
            continue
        next_ns = following.at_ns if following is not None else STILL
        is_on = following is not None and following.until_ns > following.at_ns and following.token == sample.token
        until_ns = sample.at_ns + 1
        if next_ns - sample.at_ns >= gap_ns or is_on:
            until_ns = min(sample.until_ns, next_ns)
        if found and found[-1].token == sample.token and found[-1].until_ns >= sample.at_ns:
            found[-1] = Belief(found[-1].from_ns, until_ns, who, sample.token)
        else:
            found.append(Belief(sample.at_ns, until_ns, who, sample.token))
    return found
