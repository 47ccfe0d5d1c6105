"""Every operation of the port: its result, and every error that it names."""

from __future__ import annotations

import base64
import hashlib
import time

import pytest

from tests.contract.conftest import Join
from tests.contract.world import Peer, World
from zkside import errors
from zkside.model import record
from zkside.model.operation import (
    ANY_VERSION,
    OPEN_ACL,
    Acl,
    AddWatch,
    Check,
    Create,
    CreateMode,
    Delete,
    Exists,
    GetAcl,
    GetChildren,
    GetData,
    GetEphemerals,
    Operation,
    ReadMany,
    SetAcl,
    SetData,
    Sync,
    Transaction,
)
from zkside.model.path import validate
from zkside.model.stat import Stat

NOBODY = (Acl(0, "world", "anyone"),)
OWNER_ONLY = (Acl(31, "auth", ""),)
JUTE_MAXBUFFER_BYTES = (1 << 20) - 1


async def test_a_new_node_has_its_data_and_a_fresh_stat(peer: Peer) -> None:
    before_ms = time.time() * 1000 - 2000
    reply = await peer.ask(Create("/a", b"data"))
    created = reply.value
    assert created.path == "/a"
    read = await peer.do(GetData("/a"))
    stat = record.stat(read)
    assert created.stat == stat
    assert record.data(read) == b"data"
    assert stat == Stat(reply.zxid, reply.zxid, stat.ctime, stat.ctime, 0, 0, 0, 0, 4, 0, reply.zxid)
    assert before_ms < stat.ctime < time.time() * 1000 + 2000


async def test_a_write_grows_version_mzxid_and_length(peer: Peer) -> None:
    created = await peer.do(Create("/a"))
    assert created.stat is not None
    reply = await peer.ask(SetData("/a", b"four", 0))
    stat = reply.value
    assert stat == created.stat._replace(mzxid=reply.zxid, mtime=stat.mtime, version=1, data_length=4)
    assert record.stat(await peer.do(GetData("/a"))) == stat
    assert (await peer.do(SetData("/a", b""))).version == 2


async def test_a_parent_counts_creates_and_deletes_of_its_children(peer: Peer) -> None:
    created = await peer.do(Create("/a"))
    await peer.do(Create("/a/b"))
    reply = await peer.ask(Create("/a/c"))
    names, stat = await peer.do(GetChildren("/a"))
    assert sorted(names) == ["b", "c"]
    assert created.stat is not None
    assert stat == created.stat._replace(cversion=2, pzxid=reply.zxid, num_children=2)
    deleted = await peer.ask(Delete("/a/b"))
    assert await peer.do(Exists("/a")) == stat._replace(cversion=3, pzxid=deleted.zxid, num_children=1)
    await peer.do(SetData("/a/c", b"of no concern to the parent"))
    await peer.do(Create("/a/c/d"))
    assert await peer.do(Exists("/a")) == stat._replace(cversion=3, pzxid=deleted.zxid, num_children=1)


async def test_a_deleted_node_is_gone(peer: Peer) -> None:
    await peer.do(Create("/a"))
    await peer.do(Delete("/a", 0))
    assert await peer.do(Exists("/a")) is None


async def test_sequential_names_count_creates_and_never_go_back(peer: Peer) -> None:
    await peer.do(Create("/q"))
    made = [
        (await peer.do(Create("/q/n-", mode=CreateMode.PERSISTENT_SEQUENTIAL))).path,
        (await peer.do(Create("/q/other"))).path,
        (await peer.do(Create("/q/", mode=CreateMode.EPHEMERAL_SEQUENTIAL))).path,
    ]
    await peer.do(Delete("/q/other"))
    made.append((await peer.do(Create("/q/n-", mode=CreateMode.PERSISTENT_SEQUENTIAL))).path)
    assert made == ["/q/n-0000000000", "/q/other", "/q/0000000002", "/q/n-0000000003"]


async def test_an_ephemeral_node_belongs_to_its_session_and_has_no_children(peer: Peer) -> None:
    created = await peer.do(Create("/e", mode=CreateMode.EPHEMERAL))
    assert created.stat is not None
    assert created.stat.ephemeral_owner == peer.ticket.session_id
    with pytest.raises(errors.NoChildrenForEphemerals):
        await peer.do(Create("/e/child"))


async def test_a_session_lists_its_own_ephemerals_below_the_chroot(peer: Peer, other: Peer, join: Join) -> None:
    await peer.do(Create("/mine", mode=CreateMode.EPHEMERAL))
    await peer.do(Create("/sub"))
    await peer.do(Create("/sub/mine", mode=CreateMode.EPHEMERAL))
    await other.do(Create("/theirs", mode=CreateMode.EPHEMERAL))
    mine: list[str] = await peer.do(GetEphemerals())
    assert sorted(mine) == ["/mine", "/sub/mine"]
    peer.connection.abandon()
    below = await join(ticket=peer.ticket, below="/sub")
    assert await below.do(GetEphemerals()) == ["/mine"]


async def test_a_container_looks_persistent_and_goes_with_its_last_child(peer: Peer) -> None:
    created = await peer.do(Create("/c", mode=CreateMode.CONTAINER))
    assert created.path == "/c"
    stat = await peer.do(Exists("/c"))
    assert stat is not None
    assert stat.ephemeral_owner == 0
    await peer.do(Create("/c/child"))
    await peer.do(AddWatch("/c"))
    await peer.do(Delete("/c/child"))
    await peer.wait_for("event", 2)
    assert await peer.do(Exists("/c")) is None


@pytest.mark.parametrize("mode", [CreateMode.PERSISTENT_WITH_TTL, CreateMode.PERSISTENT_SEQUENTIAL_WITH_TTL])
async def test_a_ttl_node_goes_after_its_time(peer: Peer, mode: CreateMode) -> None:
    path = (await peer.do(Create("/t", mode=mode, ttl_ms=50))).path
    assert path == ("/t0000000000" if mode.is_sequential else "/t")
    await peer.do(AddWatch(path))
    stat = await peer.do(Exists(path))
    assert stat is None or stat.ephemeral_owner == 0
    if stat is not None:
        await peer.wait_for("event")
    assert await peer.do(Exists(path)) is None


async def test_a_ttl_must_make_sense(peer: Peer) -> None:
    with pytest.raises(errors.InvalidArgument):
        await peer.do(Create("/t", mode=CreateMode.PERSISTENT_WITH_TTL, ttl_ms=0))


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        (GetData("/absent"), errors.NoNode),
        (GetChildren("/absent"), errors.NoNode),
        (GetAcl("/absent"), errors.NoNode),
        (SetData("/absent", b""), errors.NoNode),
        (SetAcl("/absent", OPEN_ACL), errors.NoNode),
        (Delete("/absent"), errors.NoNode),
        (Delete("/absent/child"), errors.NoNode),
        (Create("/absent/child"), errors.NoNode),
        (Create("/a"), errors.NodeExists),
        (Create("/"), errors.NodeExists),
        (Create("/absent/"), errors.NoNode),
        (Create("/a/"), errors.InvalidArgument),
        (Create("/\u007f"), errors.InvalidArgument),
        (Create("/\ue000"), errors.InvalidArgument),
        (Create("/\N{TROPICAL FISH}"), errors.InvalidArgument),
        (Create("/new", acl=()), errors.InvalidAcl),
        (Create("/new", acl=(Acl(31, "world", "somebody"),)), errors.InvalidAcl),
        (Create("/new", acl=(Acl(31, "digest", "no colon"),)), errors.InvalidAcl),
        (Create("/new", acl=(Acl(31, "unheard-of", "x"),)), errors.InvalidAcl),
        (Create("/new", acl=(Acl(31, "auth", ""),)), errors.InvalidAcl),
        (SetAcl("/a", ()), errors.InvalidAcl),
        (SetAcl("/a", OPEN_ACL, 7), errors.BadVersion),
        (SetData("/a", b"", 7), errors.BadVersion),
        (Delete("/a/b", 7), errors.BadVersion),
        (Delete("/a"), errors.NotEmpty),
        (Delete("/a", 7), errors.BadVersion),
        (GetData("/locked"), errors.NoAuth),
        (GetChildren("/locked"), errors.NoAuth),
        (GetAcl("/locked"), errors.NoAuth),
        (SetData("/locked", b""), errors.NoAuth),
        (SetData("/locked", b"", 7), errors.NoAuth),
        (SetAcl("/locked", OPEN_ACL), errors.NoAuth),
        (SetAcl("/locked", ()), errors.InvalidAcl),
        (Create("/locked/new"), errors.NoAuth),
        (Delete("/locked/child"), errors.NoAuth),
        (Delete("/locked/absent"), errors.NoAuth),
    ],
    ids=lambda value: repr(value) if isinstance(value, Operation) else value.reason,
)
async def test_a_refusal_has_a_name_and_changes_nothing(
    peer: Peer, join: Join, operation: Operation[object], error: type[errors.ZksideError]
) -> None:
    owner = await join(auth=(("digest", "ann:secret"),))
    await peer.do(Create("/a"))
    await peer.do(Create("/a/b"))
    await owner.do(Create("/locked", acl=OWNER_ONLY))
    await owner.do(Create("/locked/child"))
    before = await owner.do(Exists("/a")), await owner.do(Exists("/locked"))
    with pytest.raises(errors.ZksideError) as refused:
        await peer.do(operation)
    assert type(refused.value) is error
    assert (await owner.do(Exists("/a")), await owner.do(Exists("/locked"))) == before


async def test_an_access_control_list_is_stored_versioned_and_enforced(peer: Peer, join: Join) -> None:
    digest = base64.b64encode(hashlib.sha1(b"ann:secret").digest()).decode()
    ann = await join(auth=(("digest", "ann:secret"),))
    created = await ann.do(Create("/a", b"hers", acl=(Acl(31, "auth", ""), Acl(1, "ip", "127.0.0.1"))))
    acl, stat = await ann.do(GetAcl("/a"))
    assert set(acl) == {Acl(31, "digest", f"ann:{digest}"), Acl(1, "ip", "127.0.0.1")}
    assert stat == created.stat
    assert record.data(await peer.do(GetData("/a"))) == b"hers"
    with pytest.raises(errors.NoAuth):
        await peer.do(SetData("/a", b""))
    assert set((await peer.do(GetAcl("/a")))[0]) == {Acl(31, "digest", "ann:x"), Acl(1, "ip", "127.0.0.1")}
    changed = await ann.do(SetAcl("/a", OPEN_ACL, 0))
    assert stat._replace(aversion=1) == changed
    await peer.do(SetData("/a", b"everybody's"))


async def test_read_many_answers_each_read_in_order(peer: Peer) -> None:
    await peer.do(Create("/a", b"1"))
    await peer.do(Create("/a/b"))
    await peer.do(Create("/locked", acl=NOBODY))
    reads = (
        GetData("/a"), GetChildren("/a"), GetData("/absent"), GetChildren("/absent"), GetData("/locked"),
        GetData("/a"), GetChildren("/a/b"),
    )  # fmt: skip
    results = await peer.do(ReadMany(reads))
    expected = await peer.do(GetData("/a"))
    assert results[:2] == [expected, ["b"]]
    assert [type(result) for result in results[2:5]] == [errors.NoNode, errors.NoNode, errors.NoAuth]
    assert results[5:] == [expected, []]
    assert await peer.do(ReadMany(())) == []


async def test_a_transaction_does_all_at_one_zxid(peer: Peer) -> None:
    await peer.do(Create("/a"))
    await peer.do(Create("/gone"))
    reply = await peer.ask(
        Transaction(
            (
                Check("/a", 0),
                SetData("/a", b"new", 0),
                Create("/a/n-", mode=CreateMode.PERSISTENT_SEQUENTIAL),
                Create("/a/n-", b"e", mode=CreateMode.EPHEMERAL_SEQUENTIAL),
                Delete("/gone"),
            )
        )
    )
    assert reply.value.committed
    checked, changed, first, second, deleted = reply.value.results
    assert checked is None
    assert deleted is None
    assert isinstance(changed, Stat)
    assert (changed.version, changed.mzxid) == (1, reply.zxid)
    paths = [getattr(made, "path", None) for made in (first, second)]
    assert paths == ["/a/n-0000000000", "/a/n-0000000001"]
    for path in paths:
        assert path is not None
        stat = await peer.do(Exists(path))
        assert stat is not None
        assert stat.czxid == reply.zxid
    assert await peer.do(Exists("/gone")) is None
    assert (await peer.ask(Transaction(()))).value.results == ()


@pytest.mark.parametrize(
    ("refused", "error"),
    [
        (Check("/a", 7), errors.BadVersion),
        (Check("/absent"), errors.NoNode),
        (Create("/a"), errors.NodeExists),
        (Create("/new"), errors.NodeExists),
        (Create("/absent/x"), errors.NoNode),
        (SetData("/a", b"", 7), errors.BadVersion),
        (SetData("/a", b"", 0), errors.BadVersion),
        (Delete("/a"), errors.NotEmpty),
        (Delete("/absent"), errors.NoNode),
        (SetData("/locked", b""), errors.NoAuth),
    ],
    ids=repr,
)
async def test_a_refused_transaction_changes_nothing_and_says_per_operation_why(
    peer: Peer, refused: Create | SetData | Delete | Check, error: type[errors.ZksideError]
) -> None:
    """N1"""
    await peer.do(Create("/a", b"old"))
    await peer.do(Create("/gone"))
    await peer.do(Create("/locked", acl=NOBODY))
    before = await peer.do(GetData("/a"))
    operations = (
        SetData("/a", b"new"), Create("/new"), Create("/a/child"), Delete("/gone"),
        refused,
        Create("/newer"), Delete("/absent"),
    )  # fmt: skip
    result = await peer.do(Transaction(operations))
    assert not result.committed
    undone = [errors.RolledBack] * 4
    assert [type(one) for one in result.results] == [*undone, error, errors.NotAttempted, errors.NotAttempted]
    assert await peer.do(GetData("/a")) == before
    assert await peer.do(Exists("/new")) is None
    assert await peer.do(Exists("/gone")) is not None
    # Nor is a number used up.
    made = await peer.do(Create("/a/n-", mode=CreateMode.PERSISTENT_SEQUENTIAL))
    assert made.path == "/a/n-0000000000"


async def test_sync_tells_how_far_the_server_is(peer: Peer, other: Peer) -> None:
    """R2"""
    written = await other.ask(Create("/a"))
    assert (await peer.ask(Sync())).zxid >= written.zxid
    assert peer.connection.last_zxid >= written.zxid


async def test_a_chroot_hides_what_is_above(world: World, peer: Peer, join: Join) -> None:
    await peer.do(Create("/sub"))
    below = await join(below="/sub")
    assert (await below.do(Create("/x", b"1"))).path == "/x"
    assert (await below.do(Transaction((Create("/y"),)))).results[0].path == "/y"  # type: ignore[union-attr]
    assert sorted((await below.do(GetChildren("/")))[0]) == ["x", "y"]
    assert record.data(await peer.do(GetData("/sub/x"))) == b"1"
    assert await below.do(ReadMany((GetData("/x"),))) == [await peer.do(GetData("/sub/x"))]
    assert await below.do(Exists("/sub")) is None


async def test_paths_and_data_are_taken_as_they_are(peer: Peer) -> None:
    path = "/ünï cödé·日本語%2F\uf900"
    assert (await peer.do(Create(path, b"\x00\xff"))).path == path
    assert (await peer.do(GetChildren("/")))[0] == [path[1:]]
    assert record.data(await peer.do(GetData(path))) == b"\x00\xff"
    await peer.do(SetData(path, b""))
    assert record.data(await peer.do(GetData(path))) == b""


@pytest.mark.parametrize("name", ["\x00", "\x1f", "\x7f", "\x9f", "\ue000", "\uf8ff", "\ufff0", "\uffff", "\U0001f420"])
async def test_the_model_refuses_the_paths_that_zookeeper_refuses(peer: Peer, name: str) -> None:
    with pytest.raises(errors.InvalidPath):
        validate(f"/{name}")
    with pytest.raises(errors.InvalidArgument):
        await peer.do(Create(f"/{name}"))


async def test_the_largest_request_passes_and_a_larger_one_is_not_sent(world: World, peer: Peer) -> None:
    await peer.do(Create("/a"))
    # A frame: xid, type, path, data, version.
    most = JUTE_MAXBUFFER_BYTES - (8 + 4 + len(world.chroot + "/a") + 4 + 4)
    stat = await peer.do(SetData("/a", bytes(most)))
    assert stat.data_length == most
    assert len(record.data(await peer.do(GetData("/a")))) == most
    sent = peer.connection.statistics().sent
    with pytest.raises(errors.TooLarge):
        await peer.do(SetData("/a", bytes(most + 1)))
    with pytest.raises(errors.TooLarge):
        await peer.do(Create("/b", bytes(1 << 20)))
    assert peer.connection.statistics().sent == sent
    assert (await peer.do(SetData("/a", b"", ANY_VERSION))).version == 2
