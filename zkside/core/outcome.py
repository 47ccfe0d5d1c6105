"""Whether a write whose answer was lost was applied: verdicts from what the node looks like afterwards.

All of them rest on one fact: a write gets a zxid greater than any that the session had seen before the write
was sent (`zxid_before`). What a node shows with zxids up to there, no lost write can have made or changed. The
node must have been read after a `sync` on the same session: what the session sent before it was cut off is by
then either applied or refused for ever (ZooKeeper refuses what still comes from the server that the session
left, SessionMovedException, and drops what waits in a connection that was replaced).

The verdicts never guess. An ephemeral is the one exception: absent, it is taken as not created. (Had it been
created and removed by somebody else, its owner, who never heard of it, would have to make a new one anyway.)
"""

from __future__ import annotations

from enum import Enum

from zkside.model.operation import Check, Create, Delete, SetData, Write
from zkside.model.stat import Stat


class Outcome(Enum):
    APPLIED = "applied"
    NOT_APPLIED = "not applied"
    """Surely not: it may be sent again."""
    UNKNOWN = "unknown"


def of_create(node: Stat | None, parent: Stat | None, zxid_before: int, *, ephemeral: bool, session_id: int) -> Outcome:
    """`node` is the one at the path of a create without a sequence number."""
    if ephemeral:
        if node is not None and node.ephemeral_owner == session_id and node.czxid > zxid_before:
            return Outcome.APPLIED
        return Outcome.NOT_APPLIED
    if node is not None:
        # It was there before, so the create was or will be refused: sending it again tells so.
        return Outcome.NOT_APPLIED if node.czxid <= zxid_before else Outcome.UNKNOWN
    return of_vanished(parent, zxid_before)


def of_vanished(parent: Stat | None, zxid_before: int) -> Outcome:
    """A persistent node that is not there: created and deleted again, or never created?"""
    if parent is not None and parent.pzxid <= zxid_before:
        return Outcome.NOT_APPLIED
    return Outcome.UNKNOWN


def of_set(node: Stat | None, zxid_before: int, version: int) -> Outcome:
    if node is None:
        return Outcome.UNKNOWN
    if node.mzxid <= zxid_before:
        return Outcome.NOT_APPLIED
    # Versions of one node only grow, and this write would have left version + 1 behind it.
    if version >= 0 and node.czxid <= zxid_before and node.version <= version:
        return Outcome.NOT_APPLIED
    return Outcome.UNKNOWN


def of_delete(node: Stat | None, zxid_before: int) -> Outcome:
    if node is not None and node.czxid <= zxid_before:
        return Outcome.NOT_APPLIED
    return Outcome.UNKNOWN


def of_set_acl(node: Stat | None, zxid_before: int, aversion: int) -> Outcome:
    # A change of the ACL leaves no zxid in the Stat.
    if node is not None and aversion >= 0 and node.czxid <= zxid_before and node.aversion <= aversion:
        return Outcome.NOT_APPLIED
    return Outcome.UNKNOWN


def of_step(step: Write, node: Stat | None, parent: Stat | None, zxid_before: int) -> Outcome:
    """NOT_APPLIED if this step shows that its transaction was not applied."""
    match step:
        case Create():
            if node is not None and not step.mode.is_sequential:
                return Outcome.NOT_APPLIED if node.czxid <= zxid_before else Outcome.UNKNOWN
            return of_vanished(parent, zxid_before)
        case SetData():
            return of_set(node, zxid_before, step.version)
        case Delete():
            return of_delete(node, zxid_before)
        case Check():
            return Outcome.UNKNOWN
