"""What a slow subscriber gets: a model, with subscribers that take when they like."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from tests.client.parts.scripted import changed, changes, created, deleted, node, snapshot
from zkside.client import Change, Changes, ChangeType, Scope, Snapshot, Target
from zkside.client.assembly import Assembly, diff
from zkside.client.conflate import MERGED, Backlog
from zkside.client.event import WatchEvent
from zkside.pb import watch_pb2

TARGET = Target("/", Scope.SUBTREE)
PATHS = ("/a", "/b", "/c")


@dataclass
class Tree:
    """The truth, and the daemon that tells of it: each step is one transaction, zxids grow."""

    nodes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By path: czxid, mzxid."""
    zxid: int = 10

    def step(self, paths: tuple[str, ...]) -> watch_pb2.WatchResponse:
        """Toggle or write the paths."""
        self.zxid += 1
        told = []
        for number, path in enumerate(paths):
            known = self.nodes.get(path)
            if known is None:
                self.nodes[path] = (self.zxid, self.zxid)
                told.append(created(node(path, czxid=self.zxid)))
            elif number % 2:
                self.nodes[path] = (known[0], self.zxid)
                told.append(changed(node(path, czxid=known[0], mzxid=self.zxid)))
            else:
                del self.nodes[path]
                told.append(deleted(path, self.zxid))
        return changes(self.zxid, *told)

    def snapshot(self) -> watch_pb2.WatchResponse:
        found = [node(path, czxid=czxid, mzxid=mzxid) for path, (czxid, mzxid) in self.nodes.items()]
        return snapshot(self.zxid, *found, reason=watch_pb2.SNAPSHOT_REASON_OVERFLOW)


class Subscriber:
    """Believes what it is told, and objects to what cannot be."""

    def __init__(self) -> None:
        self.nodes: dict[str, tuple[int, int]] = {}
        self.zxid = 0

    def take(self, event: WatchEvent) -> None:
        assert event.zxid >= self.zxid, "W1: zxids never go back"
        self.zxid = event.zxid
        if isinstance(event, Snapshot):
            self.nodes = {path: (one.stat.czxid, one.stat.mzxid) for path, one in event.nodes.items()}
            return
        assert isinstance(event, Changes)
        assert len({change.path for change in event.changes}) == len(event.changes), "a path stands in it once"
        assert [change.zxid for change in event.changes] == sorted(change.zxid for change in event.changes)
        for change in event.changes:
            self._apply(change)

    def _apply(self, change: Change) -> None:
        known = self.nodes.get(change.path)
        if change.type is ChangeType.CREATED:
            assert known is None
        else:
            assert known is not None, f"{change.type} of a node that this subscriber never heard of"
        if change.node is None:
            assert change.type is ChangeType.DELETED
            del self.nodes[change.path]
            return
        stat = change.node.stat
        if known is not None:
            assert (stat.czxid != known[0]) == (change.type is ChangeType.RECREATED), "W7"
        self.nodes[change.path] = (stat.czxid, stat.mzxid)


STEPS = st.lists(
    st.one_of(
        st.lists(st.sampled_from(PATHS), min_size=1, unique=True).map(tuple), st.just("snapshot"), st.just("take")
    ),
    max_size=40,
)


@given(STEPS)
def test_whenever_it_takes_a_subscriber_ends_with_the_truth(steps: list[tuple[str, ...] | str]) -> None:
    """W1, W3, W7, W8"""
    tree, assembly, subscriber, backlog = Tree(), Assembly([TARGET]), Subscriber(), Backlog()

    def take() -> None:
        while (event := backlog.take(lambda target, reason: assembly.snapshot(0, reason))) is not None:
            subscriber.take(event)

    first = assembly.feed(tree.snapshot())
    assert first is not None
    backlog.add(first)
    for step in steps:
        if step == "take":
            take()
            continue
        message = tree.snapshot() if isinstance(step, str) else tree.step(step)
        event = assembly.feed(message)
        assert event is not None
        backlog.add(event)
        assert len(backlog) <= len(PATHS) + 1, "W8: bounded by what is watched"
    take()
    assert subscriber.nodes == tree.nodes
    assert not backlog


@given(STEPS)
def test_a_comparison_finds_what_leads_from_one_state_to_the_other(steps: list[tuple[str, ...] | str]) -> None:
    """W7"""
    tree, assembly, subscriber = Tree(), Assembly([TARGET]), Subscriber()
    assembly.feed(tree.snapshot())
    before = dict(assembly.nodes[0])
    for step in steps:
        if not isinstance(step, str):
            assembly.feed(tree.step(step))
    found = diff(TARGET, before, assembly.nodes[0], tree.zxid)
    subscriber.take(Changes(assembly.header, found))
    assert subscriber.nodes == tree.nodes


def test_every_pair_of_changes_that_can_follow_one_another_is_merged() -> None:
    hidden = ChangeType.UNREADABLE  # follows every other, and exists
    exists_after = {ChangeType.CREATED, ChangeType.CHANGED, ChangeType.RECREATED, hidden}
    needs_node = {ChangeType.CHANGED, ChangeType.DELETED, ChangeType.RECREATED}
    possible = {
        (older, newer)
        for older in ChangeType
        for newer in ChangeType
        if ChangeType.UNSPECIFIED not in (older, newer)
        and (newer is hidden or (older in exists_after) == (newer in needs_node))
    }
    assert set(MERGED) == possible
