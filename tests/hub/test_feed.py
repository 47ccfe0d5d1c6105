"""The conflating log that all subscribers of a target share."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from zkside.hub.feed import Feed
from zkside.hub.reader import Settled
from zkside.hub.table import NodeTable
from zkside.model import record
from zkside.model.record import Record
from zkside.model.stat import Stat
from zkside.model.watch import ChangeType, Scope, Target

PATHS = [f"/a/{name}" for name in "bcdef"]


def node(czxid: int, mzxid: int) -> Record:
    return record.pack(b"x", Stat(czxid, mzxid, 0, 0, 0, 0, 0, 0, 1, 0, czxid))


class FeedAgainstFullHistory(RuleBasedStateMachine):
    """A feed keeps the latest change of each path; the model keeps every state there ever was."""

    @initialize(window=st.integers(2, 8))
    def begin(self, window: int) -> None:
        self.zxid = 10
        self.table = NodeTable()
        self.feed = Feed(Target("/a", Scope.SUBTREE), self.table, lambda: self.zxid, window)
        self.history: list[dict[str, Record | None]] = [dict.fromkeys(PATHS)]
        self.zxids = [self.zxid]

    @rule(data=st.data())
    def publish_a_cut(self, data: st.DataObject) -> None:
        state = dict(self.history[-1])
        changes = []
        for path in data.draw(st.lists(st.sampled_from(PATHS), min_size=1, unique=True)):
            self.zxid += 1
            old = state[path]
            new: Record | None
            match data.draw(st.sampled_from(["set", "delete", "recreate"])) if old else "create":
                case "set":
                    new = node(record.zxids(old)[0], self.zxid)  # type: ignore[arg-type]
                case "delete":
                    new = None
                case _:
                    new = node(self.zxid, self.zxid)
            changes.append(Settled(self.zxid, path, old, new, False))
            state[path] = new
            self.table.put(path, new)
        self.feed.append(self.zxid, changes)
        self.history.append(state)
        self.zxids.append(self.zxid)

    @rule(data=st.data())
    def a_subscriber_at_any_cursor_inside_the_window_gets_to_the_present(self, data: st.DataObject) -> None:
        """W2, W3: and each change says truly what became of the path since that cursor."""
        cursor = data.draw(st.integers(self.feed.floor, self.feed.sequence))
        seen, now = dict(self.history[cursor]), self.history[-1]
        changes = self.feed.since(cursor).changes
        assert len({change.path for change in changes}) == len(changes)
        assert [c.zxid for c in changes] == sorted(c.zxid for c in changes)
        for change in changes:
            before = seen[change.path]
            assert change.zxid > self.zxids[cursor]
            match change.type:
                case ChangeType.CREATED:
                    assert before is None
                    assert change.record is not None
                case ChangeType.DELETED:
                    assert before is not None
                    assert change.record is None
                case _:
                    assert before is not None
                    assert change.record is not None
                    same_node = record.zxids(before)[0] == record.zxids(change.record)[0]
                    assert same_node is (change.type is ChangeType.CHANGED)
            seen[change.path] = change.record
        assert seen == now

    @rule(data=st.data())
    def a_resumed_subscriber_continues_with_the_first_later_change(self, data: st.DataObject) -> None:
        """W4"""
        zxid = data.draw(st.integers(0, self.zxid + 2))
        cursor = self.feed.resume_at(zxid)
        if cursor is None:
            assert zxid < self.feed.floor_zxid or zxid > self.zxid
        else:
            expected = max(n for n, cut_zxid in enumerate(self.zxids) if cut_zxid <= zxid)
            assert cursor == expected or not self.feed.since(min(cursor, expected)).changes

    @invariant()
    def the_log_is_bounded(self) -> None:
        """W8"""
        if hasattr(self, "feed"):
            assert self.feed.pending(0) <= self.feed._window_size


FeedAgainstFullHistory.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestFeed = FeedAgainstFullHistory.TestCase
