"""What lies between two states of a node."""

from __future__ import annotations

from zkside.model import record as records
from zkside.model.event import EventType
from zkside.model.record import UNREADABLE, Record
from zkside.model.watch import ChangeType


def change_type(old: Record | None, new: Record | None) -> ChangeType | None:
    """What a STATE subscriber is told; None if nothing that concerns it happened.

    Compares czxid and mzxid, never versions: a node that was deleted and created again can have the same
    versions (GUARANTEES W7). A change of the list of children alone (pzxid) is not a change of the node. One that
    may be read again is CHANGED: whether it is the same node as before nobody here can know.
    """
    if new is None:
        return None if old is None else ChangeType.DELETED
    if new == UNREADABLE:
        return None if old == UNREADABLE else ChangeType.UNREADABLE
    if old is None:
        return ChangeType.CREATED
    if old == UNREADABLE:
        return ChangeType.CHANGED
    old_czxid, old_mzxid, _ = records.zxids(old)
    czxid, mzxid, _ = records.zxids(new)
    if czxid != old_czxid:
        return ChangeType.RECREATED
    if mzxid != old_mzxid:
        return ChangeType.CHANGED
    # The same transactions, and yet not the same: they are of another history (GUARANTEES V2).
    return None if records.are_written_alike(old, new) else ChangeType.RECREATED


def made_by(old: Record | None, new: Record) -> int:
    """The newest transaction that the new state shows and the old one does not; 0 where the ACL is between them,
    whose changes no zxid of the node shows."""
    if UNREADABLE in (old, new):
        return 0
    czxid, mzxid, pzxid = records.zxids(new)
    if old is not None and records.zxids(old)[:2] == (czxid, mzxid):
        return pzxid
    return max(mzxid, pzxid) if old is None or records.zxids(old)[2] != pzxid else mzxid


def missed_events(old: Record | None, new: Record | None) -> list[EventType]:
    """The events that must have happened between two states, several of one kind merged into one."""
    match change_type(old, new):
        case ChangeType.CREATED:
            return [EventType.NODE_CREATED]
        case ChangeType.DELETED:
            return [EventType.NODE_DELETED]
        case ChangeType.RECREATED:
            return [EventType.NODE_DELETED, EventType.NODE_CREATED]
        case ChangeType.UNREADABLE:
            return [EventType.NODE_CREATED] if old is None else []
        case _ if UNREADABLE in (old, new):
            # What it was when it could be read last is not known: one event too many does less harm than one too few.
            return [EventType.NODE_DATA_CHANGED, EventType.NODE_CHILDREN_CHANGED] if old != new else []
        case kind:
            events = [EventType.NODE_DATA_CHANGED] if kind is ChangeType.CHANGED else []
            if old is not None and new is not None and records.zxids(old)[2] != records.zxids(new)[2]:
                events.append(EventType.NODE_CHILDREN_CHANGED)
            return events
