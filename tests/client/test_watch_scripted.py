"""How the SDK puts streams together, keeps them alive and shares them, against a server that misbehaves."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import grpc
import pytest

from tests.client.parts.scripted import (
    ScriptedDaemon,
    bookmark,
    changed,
    changes,
    created,
    deleted,
    node,
    session,
    snapshot,
)
from zkside.client import (
    Changes,
    ChangeType,
    Client,
    Scope,
    SessionChanged,
    Snapshot,
    SnapshotReason,
    Target,
    Watch,
    WatchEvent,
)
from zkside.errors import InvalidPath, Unavailable
from zkside.pb import common_pb2, watch_pb2
from zkside.rpc import status


async def next_event(watch: Watch) -> WatchEvent:
    async with asyncio.timeout(10):
        return await anext(watch)


async def test_chunks_of_a_snapshot_are_handed_out_as_one(scripted: ScriptedDaemon, scripted_client: Client) -> None:
    watch = scripted_client.watch("/a", scope=Scope.SUBTREE)
    stream = await scripted.stream()
    stream.send(snapshot(5, node("/a"), more=True), snapshot(5, node("/a/b", b"x")))
    event = await next_event(watch)
    assert isinstance(event, Snapshot)
    assert list(event.nodes) == ["/a", "/a/b"]
    assert event.nodes["/a/b"].data == b"x"
    assert event.zxid == 5


async def test_a_cut_in_several_messages_is_handed_out_whole(scripted: ScriptedDaemon, scripted_client: Client) -> None:
    """W6"""
    watch = scripted_client.watch("/a", scope=Scope.SUBTREE)
    stream = await scripted.stream()
    stream.send(
        snapshot(5, node("/a")),
        changes(6, created(node("/a/b", czxid=6)), more=True),
        changes(6, created(node("/a/c", czxid=6))),
    )
    assert isinstance(await next_event(watch), Snapshot)
    cut = await next_event(watch)
    assert isinstance(cut, Changes)
    assert [change.path for change in cut.changes] == ["/a/b", "/a/c"]


async def test_a_broken_stream_resumes_after_the_last_complete_cut(
    scripted: ScriptedDaemon, scripted_client: Client
) -> None:
    """W2, W4"""
    watch = scripted_client.watch("/a", scope=Scope.SUBTREE)
    stream = await scripted.stream()
    stream.send(snapshot(5, node("/a")), changes(7, created(node("/a/b", czxid=7))))
    await next_event(watch)
    await next_event(watch)
    stream.send(changes(9, created(node("/a/c", czxid=9)), more=True))
    stream.end(grpc.StatusCode.UNAVAILABLE)

    again = await scripted.stream()
    assert again.request.resume == watch_pb2.Resume(epoch_id="e1", zxid=7)
    again.send(changes(9, created(node("/a/c", czxid=9)), created(node("/a/d", czxid=9))))
    cut = await next_event(watch)
    assert isinstance(cut, Changes)
    assert [change.path for change in cut.changes] == ["/a/c", "/a/d"], "the half cut must not be seen"


async def test_a_bookmark_moves_the_resume_point(scripted: ScriptedDaemon, scripted_client: Client) -> None:
    """W5"""
    watch = scripted_client.watch("/a", bookmarks=True)
    stream = await scripted.stream()
    stream.send(snapshot(5, node("/a")), bookmark(20))
    await next_event(watch)
    await next_event(watch)
    stream.end(grpc.StatusCode.UNAVAILABLE)
    assert (await scripted.stream()).request.resume.zxid == 20


async def test_a_stream_that_broke_inside_its_snapshot_starts_over(
    scripted: ScriptedDaemon, scripted_client: Client
) -> None:
    watch = scripted_client.watch("/a", "/b")
    stream = await scripted.stream()
    stream.send(snapshot(5, node("/a")), snapshot(6, node("/b"), target=1, more=True))
    assert isinstance(await next_event(watch), Snapshot)
    stream.end(grpc.StatusCode.UNAVAILABLE)
    again = await scripted.stream()
    assert not again.request.HasField("resume")
    again.send(snapshot(8), snapshot(8, node("/b"), target=1))
    first, second = await next_event(watch), await next_event(watch)
    assert isinstance(first, Snapshot)
    assert isinstance(second, Snapshot)
    assert (first.target.path, dict(first.nodes)) == ("/a", {})
    assert list(second.nodes) == ["/b"]


async def test_a_resume_at_the_older_of_two_points_repeats_nothing_of_the_newer(
    scripted: ScriptedDaemon, scripted_client: Client
) -> None:
    """W2"""
    watch = scripted_client.watch("/a", "/b", scope=Scope.SUBTREE)
    stream = await scripted.stream()
    stream.send(snapshot(5, node("/a")), snapshot(9, node("/b"), node("/b/x", czxid=8), target=1))
    await next_event(watch)
    await next_event(watch)
    stream.end(grpc.StatusCode.UNAVAILABLE)
    again = await scripted.stream()
    assert again.request.resume.zxid == 5
    again.send(
        changes(
            12,
            created(node("/a/x", czxid=7)),
            created(node("/b/x", czxid=8), target=1),
            created(node("/b/y", czxid=12), target=1),
        )
    )
    cut = await next_event(watch)
    assert isinstance(cut, Changes)
    assert [change.path for change in cut.changes] == ["/a/x", "/b/y"]


async def test_a_refused_resume_hands_out_the_new_snapshot_with_its_reason(
    scripted: ScriptedDaemon, scripted_client: Client
) -> None:
    """W3"""
    watch = scripted_client.watch("/a")
    stream = await scripted.stream()
    stream.send(snapshot(5, node("/a", b"old")))
    await next_event(watch)
    stream.end(grpc.StatusCode.UNAVAILABLE)
    again = await scripted.stream()
    too_old = watch_pb2.SNAPSHOT_REASON_RESUME_TOO_OLD
    again.send(snapshot(50, node("/a", b"new"), reason=too_old, epoch_id="e2"))
    event = await next_event(watch)
    assert isinstance(event, Snapshot)
    assert (event.reason, event.nodes["/a"].data) == (SnapshotReason.RESUME_TOO_OLD, b"new")


async def test_all_subscribers_of_a_target_share_one_stream(scripted: ScriptedDaemon, scripted_client: Client) -> None:
    early = [scripted_client.watch("/a") for _ in range(10)]
    stream = await scripted.stream()
    stream.send(snapshot(5, node("/a", b"1")))
    for watch in early:
        assert isinstance(await next_event(watch), Snapshot)
    stream.send(changes(6, changed(node("/a", b"2", czxid=1, mzxid=6))))
    for watch in early:
        assert isinstance(await next_event(watch), Changes)
    late = scripted_client.watch("/a")
    event = await next_event(late)
    assert isinstance(event, Snapshot)
    assert (event.reason, event.zxid, event.nodes["/a"].data) == (SnapshotReason.INITIAL, 6, b"2")
    assert scripted.opened == 1


async def test_the_stream_ends_with_its_last_subscriber(scripted: ScriptedDaemon, scripted_client: Client) -> None:
    first, second = scripted_client.watch("/a"), scripted_client.watch("/a")
    stream = await scripted.stream()
    stream.send(snapshot(5, node("/a")))
    await next_event(first)
    first.close()
    await next_event(second)
    assert not stream.ended.is_set()
    second.close()
    async with asyncio.timeout(10):
        await stream.ended.wait()
    with pytest.raises(StopAsyncIteration):
        await anext(second)


async def test_a_loop_left_by_break_leaves_no_stream_behind(scripted: ScriptedDaemon, scripted_client: Client) -> None:
    async def first_event() -> None:
        async for _ in scripted_client.watch("/a"):
            break

    task = asyncio.create_task(first_event())
    stream = await scripted.stream()
    stream.send(snapshot(5, node("/a")))
    await task
    gc.collect()
    async with asyncio.timeout(10):
        await stream.ended.wait()


async def test_a_slow_subscriber_gets_the_newest_state_and_holds_up_nobody(
    scripted: ScriptedDaemon, scripted_client: Client
) -> None:
    """W8"""
    slow, quick = scripted_client.watch("/a", scope=Scope.SUBTREE), scripted_client.watch("/a", scope=Scope.SUBTREE)
    stream = await scripted.stream()
    stream.send(snapshot(5, node("/a")))
    assert isinstance(await next_event(slow), Snapshot)
    await next_event(quick)
    for zxid in range(6, 200):
        kind = created if zxid == 6 else changed
        stream.send(changes(zxid, kind(node("/a/b", b"%d" % zxid, czxid=6, mzxid=zxid))))
    stream.send(changes(200, deleted("/a/gone", 200)))
    while True:
        event = await next_event(quick)
        if event.zxid == 200:
            break
    merged = await next_event(slow)
    assert isinstance(merged, Changes)
    assert [(change.type, change.path, change.zxid) for change in merged.changes] == [
        (ChangeType.CREATED, "/a/b", 199),
        (ChangeType.DELETED, "/a/gone", 200),
    ]


async def test_a_callback_hears_every_event_and_its_failure_is_its_own(
    scripted: ScriptedDaemon, scripted_client: Client
) -> None:
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    heard: list[WatchEvent] = []

    def bad(event: WatchEvent) -> None:
        raise ValueError("mine")

    broken = scripted_client.watch("/a", on_change=bad)
    fine = scripted_client.watch("/a", on_change=heard.append)
    iterated = scripted_client.watch("/a")
    stream = await scripted.stream()
    stream.send(snapshot(5, node("/a")), changes(6, changed(node("/a", mzxid=6))))
    await next_event(iterated)
    await next_event(iterated)
    assert [type(event) for event in heard] == [Snapshot, Changes]
    with pytest.raises(ValueError, match="mine"):
        await broken.wait_ended()
    assert len(reported) == 1
    fine.close()


async def test_changes_of_the_session_are_handed_out_and_make_the_watch_stale(
    scripted: ScriptedDaemon, scripted_client: Client
) -> None:
    watch = scripted_client.watch("/a")
    stream = await scripted.stream()
    stream.send(snapshot(5, node("/a")))
    await next_event(watch)
    assert not watch.stale
    stream.send(session(5, common_pb2.SESSION_STATE_SUSPENDED, stale=True))
    event = await next_event(watch)
    assert isinstance(event, SessionChanged)
    assert watch.stale
    stream.send(session(5, common_pb2.SESSION_STATE_CONNECTED))
    await next_event(watch)
    assert not watch.stale


async def test_a_final_error_ends_the_watch_with_its_class(scripted: ScriptedDaemon, scripted_client: Client) -> None:
    watch = scripted_client.watch("//")
    stream = await scripted.stream()
    stream.end(grpc.StatusCode.INVALID_ARGUMENT, status.of(InvalidPath("empty name", field="path")).trailers)
    with pytest.raises(InvalidPath, match="empty name"):
        await next_event(watch)
    again = scripted_client.watch("//")
    assert (await scripted.stream()).request.targets[0].path == "//", "a failed stream is not joined"
    again.close()


async def test_without_a_daemon_the_impatient_fail_and_the_patient_wait(tmp_path: Path) -> None:
    daemon = ScriptedDaemon(tmp_path)
    async with Client(daemon.address) as client:
        impatient, patient = client.watch("/a"), client.watch("/a", wait_for_ready=True)
        with pytest.raises(Unavailable, match="no daemon answers"):
            await next_event(impatient)
        await daemon.start()
        (await daemon.stream()).send(snapshot(5, node("/a")))
        assert isinstance(await next_event(patient), Snapshot)
    await daemon.stop()


async def test_a_daemon_that_comes_back_on_its_socket_is_found_again(
    scripted: ScriptedDaemon, scripted_client: Client
) -> None:
    watch = scripted_client.watch("/a")
    (await scripted.stream()).send(snapshot(5, node("/a")))
    await next_event(watch)
    await scripted.stop()
    await scripted.start()
    again = await scripted.stream()
    assert again.request.resume.zxid == 5
    assert isinstance(watch, Watch)


async def test_a_mirror_follows_and_tells_what_a_lost_stretch_changed(
    scripted: ScriptedDaemon, scripted_client: Client
) -> None:
    mirror = scripted_client.mirror("/m")
    stream = await scripted.stream()
    stream.send(snapshot(5, node("/m"), node("/m/a", b"1", czxid=3), node("/m/b", b"1", czxid=4)))
    await mirror.ready()
    assert mirror.children("/m") == ["a", "b"]
    found = mirror.changes()
    stream.send(changes(6, created(node("/m/c", b"1", czxid=6)), deleted("/m/b", 6)))
    async with asyncio.timeout(10):
        cut = await anext(found)
    assert [change.path for change in cut.changes] == ["/m/c", "/m/b"]
    assert mirror.children("/m") == ["a", "c"]
    assert "/m/b" not in mirror
    assert mirror.zxid == 6

    stream.end(grpc.StatusCode.UNAVAILABLE)
    again = await scripted.stream()
    again.send(
        snapshot(
            30,
            node("/m"),
            node("/m/a", b"2", czxid=20),
            node("/m/c", b"2", czxid=6, mzxid=21),
            node("/m/d", czxid=22),
            reason=watch_pb2.SNAPSHOT_REASON_RESUME_TOO_OLD,
        )
    )
    async with asyncio.timeout(10):
        cut = await anext(found)
    assert [(change.type, change.path) for change in cut.changes] == [
        (ChangeType.RECREATED, "/m/a"),
        (ChangeType.CHANGED, "/m/c"),
        (ChangeType.CREATED, "/m/d"),
    ]
    node_a = mirror.get("/m/a")
    assert node_a is not None
    assert (node_a.data, node_a.stat.czxid) == (b"2", 20)


async def test_targets_of_another_scope_have_a_stream_of_their_own(
    scripted: ScriptedDaemon, scripted_client: Client
) -> None:
    first = scripted_client.watch("/a")
    second = scripted_client.watch(Target("/a", Scope.CHILDREN))
    requests = [(await scripted.stream()).request for _ in range(2)]
    assert {request.targets[0].scope for request in requests} == {Scope.NODE.value, Scope.CHILDREN.value}
    first.close()
    second.close()
