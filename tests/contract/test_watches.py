"""Which change fires what on a persistent watch, in which order, and what the event says."""

from __future__ import annotations

import pytest

from tests.contract.conftest import Join
from tests.contract.world import Peer, World
from zkside.model.event import EventType, KeeperState
from zkside.model.operation import (
    OPEN_ACL,
    Acl,
    AddWatch,
    Create,
    CreateMode,
    Delete,
    Exists,
    GetData,
    Operation,
    RemoveWatch,
    SetAcl,
    SetData,
    Sync,
    Transaction,
)

CREATED, DELETED = EventType.NODE_CREATED, EventType.NODE_DELETED
DATA, CHILDREN = EventType.NODE_DATA_CHANGED, EventType.NODE_CHILDREN_CHANGED

PLAIN, RECURSIVE = False, True

# Before each row: /w with /w/a, /w/a/b and /w/leaf. Nothing at /absent, /new or /wide.
TABLE = [
    ("/w", PLAIN, SetData("/w", b""), [(DATA, "/w")]),
    ("/w", PLAIN, Create("/w/new"), [(CHILDREN, "/w")]),
    ("/w", PLAIN, Delete("/w/leaf"), [(CHILDREN, "/w")]),
    ("/w", PLAIN, SetData("/w/a", b""), []),
    ("/w", PLAIN, Create("/w/a/new"), []),
    ("/w", PLAIN, Delete("/w/a/b"), []),
    ("/w", PLAIN, SetAcl("/w", OPEN_ACL), []),
    ("/w", PLAIN, Create("/wide"), []),
    ("/w/leaf", PLAIN, Delete("/w/leaf"), [(DELETED, "/w/leaf")]),
    ("/w/leaf", PLAIN, Create("/w/leaf/child"), [(CHILDREN, "/w/leaf")]),
    ("/", PLAIN, Create("/new"), [(CHILDREN, "/")]),
    ("/", PLAIN, SetData("/", b"x"), [(DATA, "/")]),
    ("/", PLAIN, Create("/w/new"), []),
    ("/absent", PLAIN, Create("/absent"), [(CREATED, "/absent")]),
    (
        "/w",
        PLAIN,
        Transaction((SetData("/w", b""), Create("/w/new"), Delete("/w/new"), SetData("/w/a", b""))),
        [(DATA, "/w"), (CHILDREN, "/w"), (CHILDREN, "/w")],
    ),
    (
        "/absent",
        PLAIN,
        Transaction((Create("/absent"), Create("/absent/x"), Delete("/absent/x"), Delete("/absent"))),
        [(CREATED, "/absent"), (CHILDREN, "/absent"), (CHILDREN, "/absent"), (DELETED, "/absent")],
    ),
    ("/w", RECURSIVE, SetData("/w", b""), [(DATA, "/w")]),
    ("/w", RECURSIVE, Create("/w/new"), [(CREATED, "/w/new")]),
    ("/w", RECURSIVE, SetData("/w/a/b", b""), [(DATA, "/w/a/b")]),
    ("/w", RECURSIVE, Create("/w/a/b/c"), [(CREATED, "/w/a/b/c")]),
    ("/w", RECURSIVE, Delete("/w/a/b"), [(DELETED, "/w/a/b")]),
    ("/w", RECURSIVE, SetAcl("/w/a", OPEN_ACL), []),
    ("/w", RECURSIVE, Create("/wide"), []),
    ("/w/leaf", RECURSIVE, Delete("/w/leaf"), [(DELETED, "/w/leaf")]),
    ("/", RECURSIVE, Create("/new"), [(CREATED, "/new")]),
    ("/", RECURSIVE, SetData("/w/a/b", b""), [(DATA, "/w/a/b")]),
    ("/absent/deep", RECURSIVE, Create("/absent"), []),
    (
        "/absent",
        RECURSIVE,
        Transaction((Create("/absent"), Create("/absent/x"), Delete("/absent/x"), Delete("/absent"))),
        [(CREATED, "/absent"), (CREATED, "/absent/x"), (DELETED, "/absent/x"), (DELETED, "/absent")],
    ),
    ("/w", RECURSIVE, Transaction((SetData("/w", b""), Delete("/absent"))), []),
]


@pytest.mark.parametrize(("path", "recursive", "change", "expected"), TABLE, ids=repr)
async def test_a_change_fires_exactly_what_zookeeper_defines(
    peer: Peer,
    other: Peer,
    path: str,
    recursive: bool,
    change: Operation[object],
    expected: list[tuple[EventType, str]],
) -> None:
    """W10"""
    for node in ("/w", "/w/a", "/w/a/b", "/w/leaf"):
        await other.do(Create(node))
    await peer.catch_up()
    await peer.do(AddWatch(path, recursive))
    await other.do(change)
    await peer.catch_up()
    assert peer.events == expected
    assert {event.state for event in peer.all("event")} <= {KeeperState.SYNC_CONNECTED}


@pytest.mark.parametrize("recursive", [PLAIN, RECURSIVE])
async def test_a_watch_stays_over_deletion_and_creation(peer: Peer, other: Peer, recursive: bool) -> None:
    await peer.do(AddWatch("/a", recursive))
    for _ in range(3):
        await other.do(Create("/a"))
        await other.do(SetData("/a", b""))
        await other.do(Delete("/a"))
    await peer.catch_up()
    assert peer.events == [(CREATED, "/a"), (DATA, "/a"), (DELETED, "/a")] * 3


async def test_recursive_replaces_plain(peer: Peer, other: Peer) -> None:
    await peer.do(Create("/a"))
    await peer.do(AddWatch("/a"))
    await peer.do(AddWatch("/a", recursive=True))
    await other.do(Create("/a/b"))
    await other.do(SetData("/a", b""))
    await peer.catch_up()
    assert peer.events == [(CREATED, "/a/b"), (DATA, "/a")]


async def test_a_plain_watch_below_a_recursive_one_adds_the_childrens_changes_only(peer: Peer, other: Peer) -> None:
    await peer.do(Create("/a"))
    await peer.do(Create("/a/b"))
    await peer.do(AddWatch("/a", recursive=True))
    await peer.do(AddWatch("/a/b"))
    await other.do(SetData("/a/b", b""))
    await other.do(Create("/a/b/c"))
    await other.do(Delete("/a/b/c"))
    await peer.catch_up()
    assert peer.events == [
        (DATA, "/a/b"),
        (CREATED, "/a/b/c"),
        (CHILDREN, "/a/b"),
        (DELETED, "/a/b/c"),
        (CHILDREN, "/a/b"),
    ]


@pytest.mark.parametrize("recursive", [PLAIN, RECURSIVE])
async def test_a_removed_watch_is_silent_and_removing_it_again_is_no_error(
    peer: Peer, other: Peer, recursive: bool
) -> None:
    """W9"""
    await peer.do(Create("/a"))
    await peer.do(AddWatch("/a", recursive))
    await peer.do(RemoveWatch("/a"))
    await peer.do(RemoveWatch("/a"))
    await peer.do(RemoveWatch("/never"))
    await other.do(SetData("/a", b""))
    await other.do(Create("/a/b"))
    await peer.catch_up()
    assert peer.events == []


async def test_nothing_is_heard_of_nodes_that_may_not_be_read(peer: Peer, join: Join) -> None:
    """CVE-2024-23944: fixed in 3.8.4 and 3.9.2, and in Debian's 3.8.0."""
    ann = await join(auth=(("digest", "ann:secret"),))
    for watcher in (peer, ann):
        await watcher.do(AddWatch("/", recursive=True))
    await ann.do(Create("/hers", acl=(Acl(31, "auth", ""),)))
    await ann.do(SetData("/hers", b""))
    await ann.do(Create("/hers/open"))
    await ann.do(Delete("/hers/open"))
    await ann.do(Delete("/hers"))
    hers = [(CREATED, "/hers"), (DATA, "/hers"), (DELETED, "/hers")]
    everybodys = [(CREATED, "/hers/open"), (DELETED, "/hers/open")]
    await peer.catch_up()
    assert peer.events == everybodys
    assert ann.events == [*hers[:2], *everybodys, hers[2]]


async def test_reads_leave_a_watch_alone(peer: Peer, other: Peer) -> None:
    """ZOOKEEPER-4466: nothing that the port sends may disturb a persistent watch."""
    await peer.do(Create("/a"))
    await peer.do(AddWatch("/a"))
    await peer.do(GetData("/a"))
    await peer.do(Exists("/a"))
    for _ in range(2):
        await other.do(SetData("/a", b""))
    await peer.catch_up()
    assert peer.events == [(DATA, "/a")] * 2


async def test_an_event_comes_before_the_reply_that_reflects_it(peer: Peer) -> None:
    await peer.do(Create("/a"))
    await peer.do(AddWatch("/a"))
    for _ in range(200):
        future = peer.call(SetData("/a", b""))
        future.add_done_callback(lambda done: peer.log.append(("replied", done.result().zxid)))
        peer.call(GetData("/a"))
    await peer.catch_up()
    heard = replied = 0
    for kind, _ in peer.log:
        heard += kind == "event"
        replied += kind == "replied"
        assert heard >= replied
    assert heard == replied == 200


async def test_an_event_is_bounded_by_the_replies_around_it(peer: Peer, other: Peer) -> None:
    """`since` lies above every reply that came before, and not above the transaction itself."""
    await peer.do(AddWatch("/a"))
    written = []
    floors = []
    for _ in range(20):
        floors.append((await peer.ask(Sync())).zxid)
        written.append((await other.ask(Create("/a"))).zxid)
        await peer.wait_for("event", len(written))
        floors.append((await peer.ask(Exists("/a"))).zxid)
        written.append((await other.ask(Delete("/a"))).zxid)
        await peer.wait_for("event", len(written))
    events = peer.all("event")
    assert len(events) == len(written)
    for event, floor, zxid in zip(events, floors, written, strict=True):
        assert floor < event.since <= zxid
        assert event.zxid in (0, zxid)
        assert event.since == (event.zxid or event.since)


async def test_events_of_one_transaction_come_in_the_order_of_its_operations(
    world: World, peer: Peer, other: Peer
) -> None:
    """W6"""
    await peer.do(AddWatch("/", recursive=True))
    creates = tuple(Create(f"/n{number:02}", mode=CreateMode.EPHEMERAL) for number in range(40))
    await other.do(Transaction(creates))
    await peer.catch_up()
    assert peer.events == [(CREATED, create.path) for create in creates]
    await other.connection.close(within_s=10)
    await peer.wait_for("event", 80)
    assert sorted(peer.events[40:]) == sorted((DELETED, create.path) for create in creates)
