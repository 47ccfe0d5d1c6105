"""WatchService: the hub's subscriptions as streams.

What many streams receive is encoded once: the encoded form is kept on the hub's own cut or image, and every
stream at that point sends the same bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Hashable, Iterable, Iterator, Sequence
from contextlib import closing

from zkside.errors import InvalidArgument
from zkside.hub.events import Events, Gap, GapReason
from zkside.hub.feed import Image
from zkside.hub.hub import Hub
from zkside.hub.subscription import Bookmark, Changes, Delivery, SnapshotChunk, SnapshotReason, Subscription
from zkside.model import path as paths
from zkside.model.event import EventType, KeeperState
from zkside.model.record import UNREADABLE, Record
from zkside.model.watch import Change, ChangeType, EventTarget, Scope, Target, WatchKind
from zkside.pb import common_pb2, watch_pb2
from zkside.rpc import convert
from zkside.rpc.interceptors import StreamCall

MOST_TARGETS = 1000
SHORTEST_BOOKMARK_INTERVAL_S = 0.1
LONGEST_BOOKMARK_INTERVAL_S = 86_400.0
# A cut is split between two transactions once a message has so many changes; a message past gRPC's usual
# limit of 4 MiB could not be received, so a transaction past PART_BYTES is split too.
PART_CHANGES = 500
PART_BYTES = 2 * 1024 * 1024
# What is kept encoded for the streams that send the same: more is encoded for each anew.
SHARED_CUT_BYTES = 4 * 1024 * 1024
SHARED_CHUNKS_BYTES = 16 * 1024 * 1024
SHARED_CHUNKS = 256

SCOPES = {
    watch_pb2.SCOPE_UNSPECIFIED: Scope.NODE,
    watch_pb2.SCOPE_NODE: Scope.NODE,
    watch_pb2.SCOPE_CHILDREN: Scope.CHILDREN,
    watch_pb2.SCOPE_SUBTREE: Scope.SUBTREE,
}
KINDS = {
    watch_pb2.WATCH_KIND_UNSPECIFIED: WatchKind.PERSISTENT,
    watch_pb2.WATCH_KIND_EXISTS: WatchKind.EXISTS,
    watch_pb2.WATCH_KIND_DATA: WatchKind.DATA,
    watch_pb2.WATCH_KIND_CHILDREN: WatchKind.CHILDREN,
    watch_pb2.WATCH_KIND_PERSISTENT: WatchKind.PERSISTENT,
    watch_pb2.WATCH_KIND_PERSISTENT_RECURSIVE: WatchKind.PERSISTENT_RECURSIVE,
}
CHANGE_TYPES = {
    ChangeType.CREATED: watch_pb2.CHANGE_TYPE_CREATED,
    ChangeType.CHANGED: watch_pb2.CHANGE_TYPE_CHANGED,
    ChangeType.DELETED: watch_pb2.CHANGE_TYPE_DELETED,
    ChangeType.RECREATED: watch_pb2.CHANGE_TYPE_RECREATED,
    ChangeType.UNREADABLE: watch_pb2.CHANGE_TYPE_UNREADABLE,
}
REASONS = {
    SnapshotReason.INITIAL: watch_pb2.SNAPSHOT_REASON_INITIAL,
    SnapshotReason.RESUME_TOO_OLD: watch_pb2.SNAPSHOT_REASON_RESUME_TOO_OLD,
    SnapshotReason.OVERFLOW: watch_pb2.SNAPSHOT_REASON_OVERFLOW,
    SnapshotReason.HISTORY_CHANGED: watch_pb2.SNAPSHOT_REASON_HISTORY_CHANGED,
}
GAP_REASONS = {
    GapReason.OVERFLOW: watch_pb2.GAP_REASON_OVERFLOW,
    GapReason.DISCONNECTED: watch_pb2.GAP_REASON_DISCONNECTED,
}
EVENT_TYPES = {
    EventType.NONE: watch_pb2.EVENT_TYPE_NONE,
    EventType.NODE_CREATED: watch_pb2.EVENT_TYPE_NODE_CREATED,
    EventType.NODE_DELETED: watch_pb2.EVENT_TYPE_NODE_DELETED,
    EventType.NODE_DATA_CHANGED: watch_pb2.EVENT_TYPE_NODE_DATA_CHANGED,
    EventType.NODE_CHILDREN_CHANGED: watch_pb2.EVENT_TYPE_NODE_CHILDREN_CHANGED,
}
KEEPER_STATES = {state: common_pb2.KeeperState.Value(f"KEEPER_STATE_{state.name}") for state in KeeperState}


class WatchServicer:
    """`watch.proto`, which documents the promises."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._kept: deque[tuple[Image, object]] = deque()
        """Encoded chunks of snapshots, oldest first."""
        self._kept_bytes = 0

    async def watch(self, request: watch_pb2.WatchRequest, call: StreamCall) -> AsyncIterator[bytes]:
        """A stream until its client goes, or in EVENTS mode until all its targets have ended."""
        if not 1 <= len(request.targets) <= MOST_TARGETS:
            raise InvalidArgument(f"1 to {MOST_TARGETS} targets are needed", field="targets")
        if request.mode == watch_pb2.WATCH_MODE_EVENTS:
            with closing(await self._hub.subscribe_events(_event_targets(request))) as events:
                call.stream.pending, call.stream.watches = events.pending, events.places
                await call.context.send_initial_metadata(())  # from here on nothing is missed
                while (delivered := await events.next()) is not None:
                    if isinstance(delivered, Gap):
                        self._hub.recent.note("watch.gap", delivered.reason.name, events.targets[0].path)
                    yield self._events(delivered).SerializeToString()
        elif request.mode in (watch_pb2.WATCH_MODE_UNSPECIFIED, watch_pb2.WATCH_MODE_STATE):
            targets = _targets(request)
            interval_s = convert.seconds(
                request,
                "bookmark_interval",
                least_s=SHORTEST_BOOKMARK_INTERVAL_S,
                most_s=LONGEST_BOOKMARK_INTERVAL_S,
            )
            resume = (request.resume.epoch_id, request.resume.zxid) if request.HasField("resume") else None
            with closing(
                await self._hub.subscribe(targets, resume=resume, bookmark_interval_s=interval_s)
            ) as subscription:
                call.stream.pending, call.stream.watches = subscription.pending, subscription.places
                await call.context.send_initial_metadata(())  # a stream that resumes in silence is served
                while True:
                    for message in self._state(subscription, targets, await subscription.next()):
                        yield message
        else:
            raise InvalidArgument(f"mode {request.mode} is unknown", field="mode")

    def _state(self, subscription: Subscription, targets: tuple[Target, ...], delivered: Delivery) -> Iterable[bytes]:
        if isinstance(delivered, Changes):
            self._hub.changes_out += sum(len(cut.changes) for _, cut in delivered.cuts)
            return self._changes(subscription, targets, delivered)
        if isinstance(delivered, SnapshotChunk):
            if not delivered.more:
                self._hub.snapshots_out[delivered.reason] += 1
                if delivered.reason is not SnapshotReason.INITIAL:
                    self._hub.recent.note("watch.gap", delivered.reason.name, targets[delivered.target].path)
            return (self._snapshot(subscription, targets[delivered.target], delivered),)
        answer = self._answer(delivered.zxid, delivered.epoch_id, subscription)
        if isinstance(delivered, Bookmark):
            answer.bookmark.SetInParent()
        else:
            answer.session.session.CopyFrom(convert.session(delivered.status, self._hub.session))
        return (answer.SerializeToString(),)

    def _changes(self, subscription: Subscription, targets: tuple[Target, ...], delivered: Changes) -> Iterable[bytes]:
        if len(delivered.cuts) > 1:
            merged = [(change, index) for index, cut in delivered.cuts for change in cut.changes]
            merged.sort(key=lambda pair: pair[0].zxid)
            return self._parts(delivered.zxid, delivered.epoch_id, merged, targets, subscription)
        index, cut = delivered.cuts[0]
        shared = cut.encoded.get(index)
        if shared is None:
            changes = [(change, index) for change in cut.changes]
            if sum(len(change.record or b"") for change in cut.changes) > SHARED_CUT_BYTES:
                return self._parts(cut.zxid, cut.epoch_id, changes, targets, subscription)
            shared = cut.encoded[index] = Shared(self._parts(cut.zxid, cut.epoch_id, changes, targets, subscription))
        return shared

    def _parts(
        self,
        zxid: int,
        epoch_id: str,
        changes: list[tuple[Change, int]],
        targets: tuple[Target, ...],
        subscription: Subscription,
    ) -> Iterator[bytes]:
        """A cut as messages; all but the last say `more`."""
        answer = self._answer(zxid, epoch_id, subscription)
        size = last_zxid = 0
        for change, index in changes:
            part = answer.changes
            full = len(part.changes) >= PART_CHANGES and change.zxid != last_zxid
            if full or size > PART_BYTES:
                part.more = True
                yield answer.SerializeToString()
                answer = self._answer(zxid, epoch_id, subscription)
                part, size = answer.changes, 0
            message = part.changes.add(target=index, type=CHANGE_TYPES[change.type], zxid=change.zxid)
            size += _fill(message.node, change.path, change.record, targets[index].with_data)
            last_zxid = change.zxid
        yield answer.SerializeToString()

    def _snapshot(self, subscription: Subscription, target: Target, chunk: SnapshotChunk) -> bytes:
        key = (chunk.target, chunk.reason, chunk.index, subscription.is_stale())
        encoded = chunk.image.encoded.get(key)
        if encoded is None:
            answer = self._answer(chunk.zxid, chunk.epoch_id, subscription)
            snapshot = answer.snapshot
            snapshot.target, snapshot.reason, snapshot.more = chunk.target, REASONS[chunk.reason], chunk.more
            for path, record in chunk.image.chunks[chunk.index]:
                if record == UNREADABLE:
                    snapshot.unreadable.append(path)
                else:
                    _fill(snapshot.nodes.add(), path, record, target.with_data)
            encoded = answer.SerializeToString()
            self._keep(chunk.image, key, encoded)
        return encoded

    def _keep(self, image: Image, key: object, encoded: bytes) -> None:
        image.encoded[key] = encoded
        self._kept.append((image, key))
        self._kept_bytes += len(encoded)
        while self._kept_bytes > SHARED_CHUNKS_BYTES or len(self._kept) > SHARED_CHUNKS:
            image, key = self._kept.popleft()
            self._kept_bytes -= len(image.encoded.pop(key))

    def _events(self, delivered: Events | Gap) -> watch_pb2.WatchResponse:
        session = self._hub.session
        answer = watch_pb2.WatchResponse(header=convert.header(session, session.last_zxid), epoch_id=self._hub.epoch_id)
        if isinstance(delivered, Gap):
            answer.gap.reason, answer.gap.dropped = GAP_REASONS[delivered.reason], delivered.dropped
            return answer
        for index, event in delivered.events:
            answer.events.events.add(
                target=index,
                type=EVENT_TYPES[event.type],
                state=KEEPER_STATES[event.state],
                path=event.path,
                zxid=event.zxid,
            )
        return answer

    def _answer(self, zxid: int, epoch_id: str, subscription: Subscription) -> watch_pb2.WatchResponse:
        stale, age_s = subscription.is_stale(), subscription.age_s()
        answer = watch_pb2.WatchResponse(epoch_id=epoch_id)
        convert.fill_header(answer.header, self._hub.session, zxid, stale=stale, age_s=age_s)
        return answer


class Shared:
    """Messages made one by one, as the first stream gets to them, and then sent by all."""

    def __init__(self, source: Iterator[bytes]) -> None:
        self._source = source
        self._made: list[bytes] = []

    def __iter__(self) -> Iterator[bytes]:
        number = 0
        while True:
            if number == len(self._made):
                fresh = next(self._source, None)
                if fresh is None:
                    return
                self._made.append(fresh)
            yield self._made[number]
            number += 1


def _fill(node: common_pb2.Node, path: str, record: Record | None, with_data: bool) -> int:
    """Fill in a node; returns about how many bytes it takes."""
    if not record:  # absent, or not to be read
        node.path = path
        return len(path) + 20
    convert.fill_node(node, path, record, with_data=with_data)
    return len(path) + (len(record) if with_data else 68) + 40


def _targets(request: watch_pb2.WatchRequest) -> tuple[Target, ...]:
    targets = []
    for number, target in enumerate(request.targets):
        if target.scope not in SCOPES:
            raise InvalidArgument(f"scope {target.scope} is unknown", field=f"targets[{number}].scope")
        path = paths.validate(target.path, field=f"targets[{number}].path")
        targets.append(Target(path, SCOPES[target.scope], target.with_data))
    _all_different(targets)
    return tuple(targets)


def _event_targets(request: watch_pb2.WatchRequest) -> tuple[EventTarget, ...]:
    targets = []
    for number, target in enumerate(request.targets):
        if target.kind not in KINDS:
            raise InvalidArgument(f"kind {target.kind} is unknown", field=f"targets[{number}].kind")
        kind = KINDS[target.kind]
        if target.one_shot and kind in (WatchKind.PERSISTENT, WatchKind.PERSISTENT_RECURSIVE):
            raise InvalidArgument("a persistent watch is not one-shot", field=f"targets[{number}].one_shot")
        path = paths.validate(target.path, field=f"targets[{number}].path")
        targets.append(EventTarget(path, kind, target.one_shot))
    _all_different(targets)
    return tuple(targets)


def _all_different(targets: Sequence[Hashable]) -> None:
    """Raises: InvalidArgument, which names the first that is there already."""
    first: dict[Hashable, int] = {}
    for number, target in enumerate(targets):
        if (other := first.setdefault(target, number)) != number:
            raise InvalidArgument(f"the same as targets[{other}]: leave it out", field=f"targets[{number}]")
