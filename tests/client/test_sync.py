"""The blocking face of the SDK: all of the API, from threads, against a real daemon."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kazoo.client import KazooClient

import zkside.client
from tests.client.parts.mortal import MortalDaemon
from tests.ops.process import DaemonProcess
from zkside.client import CreateMode, Scope, Snapshot, WatchEvent, sync
from zkside.client.blocking import Face
from zkside.client.faces import FACES, SOURCES
from zkside.errors import HoldLost, NoNode, Unavailable, WaitTimeout, ZksideError

_ASYNC = {"__aenter__": "__enter__", "__aexit__": "__exit__", "__aiter__": "__iter__", "__anext__": "__next__"}


@pytest.fixture
def blocking(daemon: DaemonProcess) -> Iterator[sync.Client]:
    with sync.Client(daemon.address, timeout_s=20) as client:
        client.get("/", wait_for_ready=True)
        yield client


def public(kind: type) -> set[str]:
    """The names of what its users call."""
    return {
        _ASYNC.get(name, name)
        for base in kind.__mro__[:-1]
        for name in vars(base)
        if (not name.startswith("_") or name in {*_ASYNC, *_ASYNC.values()}) and base.__module__.startswith("zkside.")
    }


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.__name__)
def test_everything_has_its_blocking_face(source: type) -> None:
    face = FACES[source]
    assert public(source) <= public(face)
    for name in public(source):
        assert not inspect.iscoroutinefunction(getattr(face, name))


def test_every_class_that_waits_for_something_has_a_face() -> None:
    awaits = {
        kind
        for kind in vars(zkside.client).values()
        if isinstance(kind, type)
        and any(inspect.iscoroutinefunction(member) or name in _ASYNC for name, member in inspect.getmembers(kind))
    }
    assert awaits <= set(SOURCES)


def test_calls_block_and_answer(blocking: sync.Client, root: str) -> None:
    made = blocking.create(f"{root}/a", b"x", mode=CreateMode.PERSISTENT)
    assert blocking.get(made.path).data == b"x"
    assert [page.names for page in blocking.children_pages(root, page_size=1)] == [("a",)]
    assert blocking.transaction().set(f"{root}/a", b"y").check(f"{root}/a", version=1).commit().committed
    assert blocking.admin.status().backend
    assert blocking.address.startswith("unix:")
    with pytest.raises(NoNode):
        blocking.get(f"{root}/absent")


def test_a_pipeline_hands_out_futures_for_threads(blocking: sync.Client, root: str) -> None:
    """N3"""
    with blocking.pipeline() as pipeline:
        answers = [pipeline.create(f"{root}/{number}") for number in range(10)]
        assert [answer.result(timeout=20).path for answer in answers] == [f"{root}/{number}" for number in range(10)]


def test_a_watch_is_iterated_over_and_closed_from_another_thread(blocking: sync.Client, root: str) -> None:
    seen: list[WatchEvent] = []
    begun = threading.Event()

    def follow(watch: sync.Watch) -> None:
        for event in watch:
            seen.append(event)
            begun.set()

    with blocking.watch(root, scope=Scope.SUBTREE) as watch:
        thread = threading.Thread(target=follow, args=(watch,))
        thread.start()
        assert begun.wait(20)
        assert isinstance(seen[0], Snapshot)
        watch.close()
        thread.join(20)
        assert not thread.is_alive()


def test_a_mirror_is_read_without_a_torn_cut(blocking: sync.Client, root: str) -> None:
    """W6"""
    blocking.create(f"{root}/a", b"x")
    with blocking.mirror(root) as mirror:
        node = mirror.get(f"{root}/a")
        assert node is not None
        assert node.data == b"x"
        assert set(mirror) == set(mirror.nodes) == {root, f"{root}/a"}
        assert f"{root}/a" in mirror
        assert len(mirror) == 2
        assert mirror.children(root) == ["a"]


def test_a_callback_that_blocks_is_told_so(blocking: sync.Client, root: str) -> None:
    refused: list[ZksideError] = []
    called = threading.Event()

    def on_change(event: WatchEvent) -> None:
        try:
            blocking.get(root)
        except ZksideError as error:
            refused.append(error)
        called.set()

    blocking.watch(root, on_change=on_change)
    assert called.wait(20)
    assert "callback" in str(refused[0])


def test_threads_take_turns_with_a_lock(blocking: sync.Client, root: str) -> None:
    """H1, H2"""
    inside: list[int] = []
    tokens: list[int] = []

    def take_a_turn(number: int) -> None:
        with blocking.lock(f"{root}/lock") as held:
            assert held.is_held()
            inside.append(number)
            assert inside == [number]
            tokens.append(held.fencing_token)
            inside.clear()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(take_a_turn, range(40)))
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 40


def test_a_lock_that_is_not_granted_in_time(blocking: sync.Client, root: str) -> None:
    with blocking.lock(f"{root}/lock"):
        with pytest.raises(WaitTimeout), blocking.lock(f"{root}/lock", wait_timeout_s=0):
            raise AssertionError("it was granted twice")
        assert len(blocking.contenders(f"{root}/lock")) == 1


def test_a_block_whose_lock_is_lost_raises_when_it_is_left(
    blocking: sync.Client, root: str, stock_client: KazooClient
) -> None:
    """H5: a thread cannot be cancelled."""

    def work() -> str:
        with blocking.lock(f"{root}/lock") as held:
            assert not held.lost.is_set()
            assert held.lost.wait(timeout_s=0.01) == ""
            stock_client.delete(held.path.removeprefix(root))
            reason = held.lost.wait(timeout_s=20)
            assert not held.is_held()
            return reason

    with pytest.raises(HoldLost, match="NODE_DELETED"):
        work()


def test_a_leader_proclaims_and_is_observed(blocking: sync.Client, root: str) -> None:
    """H5"""
    path = f"{root}/election"
    with blocking.observe(path) as observed:
        assert next(observed).leader is None
        with blocking.campaign(path, value=b"first") as leading:
            change = next(observed)
            assert change.leader is not None
            assert change.leader.value == b"first"
            leading.proclaim(b"second")
            leader = blocking.leader(path)
            assert leader is not None
            assert leader.value == b"second"


async def test_it_notices_that_the_daemon_is_gone(mortal: MortalDaemon) -> None:
    """H1: `is_held` asks nobody."""

    def hold(held: threading.Event, killed: threading.Event) -> bool:
        with sync.Client(mortal.address) as client:
            client.get("/", wait_for_ready=True)
            with client.hold_ephemeral("/a") as mine:
                assert mine.is_held()
                held.set()
                assert killed.wait(20)
                while mine.is_held():
                    pass
                return mine.lost.is_set()

    held, killed = threading.Event(), threading.Event()
    holding = asyncio.create_task(asyncio.to_thread(hold, held, killed))
    assert await asyncio.to_thread(held.wait, 20)
    await mortal.kill()
    killed.set()
    async with asyncio.timeout(20):
        assert await holding is False


def test_a_client_that_is_closed_says_so(daemon: DaemonProcess) -> None:
    client = sync.Client(daemon.address)
    client.session(wait_for_ready=True)
    client.close()
    client.close()
    with pytest.raises(ZksideError, match="closed"):
        client.get("/")


def test_a_client_without_a_daemon_fails_as_the_other(tmp_path: Any) -> None:
    with sync.Client(f"unix:{tmp_path}/none.sock") as client, pytest.raises(Unavailable):
        client.get("/")


def test_faces_are_classes_by_the_same_names() -> None:
    assert issubclass(sync.Leadership, sync.Held)
    assert issubclass(FACES[SOURCES[0]], Face)
    assert isinstance(sync.Client, type)
