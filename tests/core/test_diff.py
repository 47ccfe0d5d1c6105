"""What lies between two states of a node."""

from __future__ import annotations

import pytest

from zkside.core.diff import change_type, made_by, missed_events
from zkside.model import record
from zkside.model.event import EventType
from zkside.model.record import Record
from zkside.model.stat import Stat
from zkside.model.watch import ChangeType


def node(czxid: int, mzxid: int, pzxid: int, version: int = 0) -> Record:
    return record.pack(b"x", Stat(czxid, mzxid, 0, 0, version, 0, 0, 0, 1, 0, pzxid))


@pytest.mark.parametrize(
    ("old", "new", "kind", "events", "zxid"),
    [
        (None, node(5, 5, 5), ChangeType.CREATED, [EventType.NODE_CREATED], 5),
        (node(5, 5, 5), node(5, 7, 5), ChangeType.CHANGED, [EventType.NODE_DATA_CHANGED], 7),
        (node(5, 5, 5), node(5, 5, 8), None, [EventType.NODE_CHILDREN_CHANGED], 8),
        (
            node(5, 5, 5),
            node(5, 7, 8),
            ChangeType.CHANGED,
            [EventType.NODE_DATA_CHANGED, EventType.NODE_CHILDREN_CHANGED],
            8,
        ),
        (node(5, 5, 5), node(5, 5, 5), None, [], 5),
        (node(5, 5, 5), None, ChangeType.DELETED, [EventType.NODE_DELETED], None),
        (None, None, None, [], None),
    ],
)
def test_the_zxids_of_two_states_tell_what_happened(
    old: Record | None, new: Record | None, kind: ChangeType | None, events: list[EventType], zxid: int | None
) -> None:
    """W10"""
    assert change_type(old, new) is kind
    assert missed_events(old, new) == events
    if new is not None:
        assert made_by(old, new) == zxid


def test_a_node_that_was_deleted_and_created_again_is_another_one_even_with_equal_versions() -> None:
    """W7"""
    assert change_type(node(5, 5, 5), node(9, 9, 9)) is ChangeType.RECREATED
    assert missed_events(node(5, 5, 5), node(9, 9, 9)) == [EventType.NODE_DELETED, EventType.NODE_CREATED]
