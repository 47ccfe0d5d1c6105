"""Whether ZooKeeper's history went back, decided from zxids and from nodes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkside.core.history import contradiction, went_back
from zkside.model import record
from zkside.model.stat import Stat

NODE = Stat(
    czxid=10,
    mzxid=20,
    ctime=1_000,
    mtime=2_000,
    version=3,
    cversion=0,
    aversion=0,
    ephemeral_owner=0,
    data_length=1,
    num_children=0,
    pzxid=10,
)


@pytest.mark.parametrize(("seen", "leader", "is_back"), [(0, 0, False), (7, 7, False), (7, 8, False), (8, 7, True)])
def test_a_leader_that_is_behind_what_was_seen_is_of_another_history(seen: int, leader: int, is_back: bool) -> None:
    """V2: at the same zxid is none, sessions of a local server make no transaction."""
    assert bool(went_back(seen, leader)) is is_back


@pytest.mark.parametrize(
    "after",
    [
        NODE._replace(czxid=9, mzxid=9, ctime=900, mtime=900),
        NODE._replace(mzxid=19, mtime=1_900),
        NODE._replace(mtime=2_001),
        NODE._replace(ctime=1_001),
        NODE._replace(ctime=999, mzxid=30, mtime=5_000),
    ],
)
def test_a_node_that_is_older_than_it_was_is_of_another_history(after: Stat) -> None:
    """V2."""
    before = record.pack(b"x", NODE)
    assert "/n" in contradiction("/n", before, record.pack(b"x", after))


@pytest.mark.parametrize(
    "after",
    [
        NODE,
        NODE._replace(aversion=1),
        NODE._replace(pzxid=30, cversion=1, num_children=1),
        NODE._replace(pzxid=5),
        NODE._replace(mzxid=21, mtime=1_500, version=4),
        NODE._replace(czxid=21, mzxid=21, pzxid=21, ctime=500, mtime=500, version=0),
    ],
)
def test_what_writing_deleting_and_creating_can_make_of_a_node_is_no_other_history(after: Stat) -> None:
    """V2: the clocks of servers differ and are set back; the pzxid of a restored server is known to."""
    assert contradiction("/n", record.pack(b"x", NODE), record.pack(b"y", after)) == ""


@given(st.lists(st.sampled_from("cds"), max_size=20), st.integers(0, 19), st.integers(0, 19))
def test_no_two_states_of_one_history_contradict_each_other(steps: list[str], one: int, other: int) -> None:
    """V2, W7: however a node was created, set and deleted between."""
    states: list[Stat] = []
    node: Stat | None = None
    for zxid, step in enumerate(steps, 1):
        if step == "d" or node is None:
            node = None if step == "d" else Stat(zxid, zxid, zxid * 7 % 5, zxid * 7 % 5, 0, 0, 0, 0, 0, 0, zxid)
        else:
            node = node._replace(mzxid=zxid, mtime=zxid * 3 % 7, version=node.version + 1)
        if node is not None:
            states.append(node)
    if states:
        earlier, later = sorted((one % len(states), other % len(states)))
        assert contradiction("/n", record.pack(b"", states[earlier]), record.pack(b"", states[later])) == ""
