"""Who holds and who waits at a path: read once, or observed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import closing
from dataclasses import dataclass

from zkside.core.queueing import Contender, contenders, holders
from zkside.errors import NoNode, ZksideError
from zkside.hub.hub import Hub
from zkside.hub.reads import Answer, Freshness, Reads
from zkside.model import path as paths
from zkside.model import record as records
from zkside.model.record import UNREADABLE, Record
from zkside.model.watch import Scope, Target

LOOK_INTERVAL_S = 1.0
"""So often an observer looks whether an outage is over, if nothing has changed in it."""


@dataclass(frozen=True, slots=True)
class Place:
    """A contender's place in the queue. Of one whose node may not be read only that and its path are known."""

    path: str
    value: bytes
    czxid: int
    session_id: int
    """0, as the czxid, if the node may not be read."""
    is_holder: bool
    is_shared: bool


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads; what was known when."""

    zxid: int
    stale: bool
    age_s: float
    place: Place | None


async def read(reads: Reads, path: str, freshness: Freshness) -> Answer[list[Place]]:
    """All contenders of a path in the order of the queue; none if it is absent.

    Those who come or go while it is read may be missing. Raises: what Reads raises, but for NoNode.
    """
    try:
        listing = await reads.children(path, freshness)
    except NoNode:
        absent = await reads.exists(path, freshness)
        return Answer([], absent.zxid, absent.stale, absent.age_s)
    queue = contenders(listing.value.names)
    nodes = await reads.get_many([paths.join(path, each.name) for each in queue], freshness)
    # What may not be read is there all the same: without it another would be taken for the holder.
    states = [UNREADABLE if isinstance(node, ZksideError) else node for node in nodes.value]
    living = [(each, node) for each, node in zip(queue, states, strict=True) if node is not None]
    holding = {each.name for each in holders([each for each, _ in living])}
    places = [_place(path, each, node, is_holder=each.name in holding) for each, node in living]
    return Answer(places, min(listing.zxid, nodes.zxid), listing.stale or nodes.stale, max(listing.age_s, nodes.age_s))


async def observe(hub: Hub, path: str) -> AsyncGenerator[Leader, None]:
    """The present leader, then every change of leader or of its value; what comes faster is merged.

    Raises: what Hub.subscribe raises. One watch, whatever the number of observers and of candidates.
    """
    told: Leader | None = None
    target = Target(path, Scope.CHILDREN, True)
    with closing(await hub.subscribe((target,), bookmark_interval_s=LOOK_INTERVAL_S)) as subscription:
        while True:
            zxid = (await subscription.next()).zxid
            leader = Leader(zxid, subscription.is_stale(), subscription.age_s(), _first(hub, path))
            if told is None or (told.stale, told.place) != (leader.stale, leader.place):
                told = leader
                yield leader


def _first(hub: Hub, path: str) -> Place | None:
    """From the cache, which the subscription keeps."""
    first = min(contenders(hub.table.names(path)), default=None)
    record = hub.table.records.get(paths.join(path, first.name)) if first is not None else None
    return _place(path, first, record, is_holder=True) if first is not None and record is not None else None


def _place(path: str, each: Contender, record: Record, *, is_holder: bool) -> Place:
    if record == UNREADABLE:
        return Place(paths.join(path, each.name), b"", 0, 0, is_holder, each.kind.is_shared)
    stat = records.stat(record)
    return Place(
        paths.join(path, each.name),
        records.data(record),
        stat.czxid,
        stat.ephemeral_owner,
        is_holder,
        each.kind.is_shared,
    )
