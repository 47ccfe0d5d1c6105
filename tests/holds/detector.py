"""Judges from outside what clients believed: who overlapped, whose token came in the wrong order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(slots=True)
class Grant:
    """What one client got once, and when it believed in it."""

    client: str
    path: str
    token: int
    permits: int = 1
    """So many may hold at once, if none of them shares."""
    is_shared: bool = False
    granted_ns: int = 0
    """When the daemon said so; the client hears it later."""
    segments: list[tuple[int, int]] = field(default_factory=list)
    """From … until before …, in ns of the host's clock, in order."""

    def __str__(self) -> str:
        spans = ", ".join(
            f"{(start - _ORIGIN_NS) / 1e9:.6f}-{(end - _ORIGIN_NS) / 1e9:.6f}" for start, end in self.segments
        )
        return f"{self.client} {'shares' if self.is_shared else 'has'} {self.path} with {self.token}: {spans}"


_ORIGIN_NS = 1_000_000_000_000


def overlaps(grants: Iterable[Grant]) -> list[str]:
    """Where more believed at one instant than may (H1)."""
    found = []
    for path, there in _by_path(grants).items():
        # What ends at an instant has ended when another begins at it.
        edges = sorted(
            (at_ns, is_start, number)
            for number, grant in enumerate(there)
            for start_ns, end_ns in grant.segments
            for at_ns, is_start in ((start_ns, True), (end_ns, False))
        )
        believing: set[int] = set()
        for at_ns, is_start, number in edges:
            if not is_start:
                believing.discard(number)
                continue
            believing.add(number)
            now = [there[each] for each in believing]
            if len(now) > there[number].permits and not all(grant.is_shared for grant in now):
                who = "; ".join(map(str, now))
                found.append(f"{path} at {(at_ns - _ORIGIN_NS) / 1e9:.6f}: {who}")
    return found


def disorder(grants: Iterable[Grant]) -> list[str]:
    """Where a later grant has not the greater token (H2).

    Readers that hold together may hear of it in any order, and so may those who have permits.
    """
    found = []
    for there in _by_path(grants).values():
        granted = sorted((grant for grant in there if grant.segments), key=_began_ns)
        newest = newest_exclusive = 0
        for grant in granted:
            if grant.token <= (newest_exclusive if grant.is_shared else newest):
                found.append(f"token {grant.token} after {newest}: {grant}")
            newest = max(newest, grant.token)
            if not grant.is_shared:
                newest_exclusive = max(newest_exclusive, grant.token)
    return found


def unfair(grants: Iterable[tuple[float, Grant]], *, within_s: float = 0.0) -> list[str]:
    """Whose turn came before that of somebody who had asked earlier, by more than `within_s` (H7).

    `grants` are pairs of when it was asked, and the grant.
    """
    found = []
    by_path: dict[str, list[tuple[int, float, Grant]]] = {}
    for asked_s, grant in grants:
        by_path.setdefault(grant.path, []).append((grant.segments[0][0], asked_s, grant))
    for turns in by_path.values():
        turns.sort(key=lambda turn: turn[0])
        for (_, before_s, before), (_, after_s, after) in pairwise(turns):
            if before_s > after_s + within_s and not (before.is_shared and after.is_shared):
                found.append(f"{before} came before {after}, who had asked earlier")
    return found


def _began_ns(grant: Grant) -> int:
    return grant.granted_ns if grant.permits > 1 else grant.segments[0][0]


def _by_path(grants: Iterable[Grant]) -> dict[str, list[Grant]]:
    paths: dict[str, list[Grant]] = {}
    for grant in grants:
        paths.setdefault(grant.path, []).append(grant)
    return paths
