"""Reads and writes through the SDK, a real daemon and real ZooKeeper."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from kazoo.client import KazooClient

from tests.client.parts.scripted import ScriptedDaemon
from zkside.client import Acl, Client, Consistency, CreateMode, TransactAnswer
from zkside.errors import (
    BadVersion,
    DeadlineExceeded,
    InvalidAcl,
    InvalidPath,
    NoNode,
    NotAttempted,
    NotEmpty,
    OutcomeUnknown,
    RolledBack,
    TooLarge,
    Unavailable,
    ZksideError,
)


async def test_many_more_calls_at_once_than_a_connection_may_have_are_all_done_once(client: Client, root: str) -> None:
    """N2: the daemon refuses some, unseen, while it still counts others that it has answered."""
    many = range(1000)
    made = await asyncio.gather(*(client.create(f"{root}/n-", mode=CreateMode.PERSISTENT_SEQUENTIAL) for _ in many))
    names = (await client.children(root)).names
    assert sorted(f"{root}/{name}" for name in names) == sorted(one.path for one in made)
    assert len(names) == len(many)


async def test_a_node_is_created_read_changed_and_deleted(client: Client, root: str) -> None:
    made = await client.create(f"{root}/a", b"one")
    assert made.path == f"{root}/a"
    read = await client.get(f"{root}/a")
    assert (read.data, read.stat.version, read.path) == (b"one", 0, f"{root}/a")
    written = await client.set(f"{root}/a", b"two", version=0)
    assert written.stat.version == 1
    assert (await client.exists(f"{root}/a")).stat == (await client.get(f"{root}/a")).stat
    assert (await client.delete(f"{root}/a", version=1)).deleted == 1
    assert not await client.exists(f"{root}/a")


async def test_every_answer_tells_its_zxid_epoch_and_freshness(client: Client, root: str) -> None:
    """R3"""
    made = await client.create(f"{root}/a")
    assert made.stat is not None
    assert made.zxid >= made.stat.czxid > 0
    read = await client.get(f"{root}/a")
    assert read.zxid >= made.zxid
    assert (read.epoch, read.stale, read.age_s) == (1, False, 0.0)


async def test_a_cached_read_with_somebodys_zxid_sees_that_write(
    client: Client, root: str, stock_client: KazooClient
) -> None:
    """R2"""
    await client.create(f"{root}/a", b"0")
    for number in range(20):
        written = await asyncio.to_thread(stock_client.set, "/a", b"%d" % number)
        read = await client.get(f"{root}/a", consistency=Consistency.CACHED, min_zxid=written.mzxid)
        assert read.data == b"%d" % number


async def test_many_nodes_are_read_at_once_and_absent_ones_are_answers(client: Client, root: str) -> None:
    """R6"""
    await client.create(f"{root}/a", b"1")
    answer = await client.get_many([f"{root}/a", f"{root}/absent"])
    node = answer[f"{root}/a"]
    assert node is not None
    assert node.data == b"1"
    assert answer[f"{root}/absent"] is None
    assert list(answer) == [f"{root}/a", f"{root}/absent"]


async def test_children_come_in_pages_sorted(client: Client, root: str) -> None:
    async with client.pipeline() as pipeline:
        for number in range(25):
            pipeline.create(f"{root}/{number:02}", b"%d" % number)
    pages = [page async for page in client.children_pages(root, page_size=10)]
    assert [len(page) for page in pages] == [10, 10, 5]
    assert [name for page in pages for name in page] == [f"{number:02}" for number in range(25)]
    whole = await client.children(root, with_nodes=True)
    assert whole.stat.num_children == 25
    assert whole.nodes["07"].data == b"7"


@pytest.mark.parametrize(
    ("mode", "ttl_s"),
    [
        (CreateMode.PERSISTENT_SEQUENTIAL, None),
        (CreateMode.CONTAINER, None),
        (CreateMode.PERSISTENT_WITH_TTL, 60.0),
    ],
)
async def test_all_kinds_of_nodes_can_be_created(
    client: Client, root: str, mode: CreateMode, ttl_s: float | None
) -> None:
    made = await client.create(f"{root}/x/y-", mode=mode, ttl_s=ttl_s, make_parents=True)
    assert await client.exists(made.path)


async def test_refusals_are_the_classes_of_the_error_tree(client: Client, root: str) -> None:
    await client.create(f"{root}/a/b", make_parents=True)
    with pytest.raises(NoNode):
        await client.get(f"{root}/absent")
    with pytest.raises(NotEmpty):
        await client.delete(f"{root}/a")
    with pytest.raises(InvalidPath) as path_error:
        await client.get("no/slash")
    assert path_error.value.field == "path"
    with pytest.raises(BadVersion) as version_error:
        await client.set(f"{root}/a", b"", version=7)
    assert version_error.value.metadata["actual"] == "0"
    with pytest.raises(TooLarge):
        await client.set(f"{root}/a", bytes(2_000_000))
    with pytest.raises(InvalidAcl):
        await client.set_acl(f"{root}/a", [Acl(31, "auth", "")])


async def test_a_transaction_is_all_or_nothing_and_tells_which_step_was_refused(client: Client, root: str) -> None:
    """N1"""
    answer = await client.transaction().create(f"{root}/a", b"1").set(f"{root}/a", b"2").check(f"{root}/a").commit()
    assert answer.committed
    assert (await client.get(f"{root}/a")).data == b"2"

    def refused() -> object:
        return client.transaction().set(f"{root}/a", b"3").delete(f"{root}/absent").create(f"{root}/b")

    with pytest.raises(NoNode) as error:
        await refused().commit()  # type: ignore[attr-defined]
    assert error.value.metadata["operation"] == "1"
    told: TransactAnswer = await refused().commit(raise_refused=False)  # type: ignore[attr-defined]
    assert not told.committed
    assert [type(result) for result in told.results] == [RolledBack, NoNode, NotAttempted]
    assert (await client.get(f"{root}/a")).data == b"2"


async def test_a_pipeline_keeps_its_order_and_a_failure_is_its_own(client: Client, root: str) -> None:
    """N3"""
    async with client.pipeline() as pipeline:
        made = pipeline.create(f"{root}/a", b"0")
        failed = pipeline.delete(f"{root}/absent")
        writes = [pipeline.set(f"{root}/a", b"%d" % number) for number in range(200)]
    assert (await made).path == f"{root}/a"
    with pytest.raises(NoNode):
        await failed
    assert [(await write).stat.version for write in writes] == list(range(1, 201))
    assert (await client.get(f"{root}/a")).data == b"199"


async def test_an_acl_is_read_and_replaced(client: Client, root: str) -> None:
    await client.create(f"{root}/a")
    await client.set_acl(f"{root}/a", [Acl(1, "world", "anyone")], version=0)
    answer = await client.get_acl(f"{root}/a")
    assert answer.acl == (Acl(1, "world", "anyone"),)
    assert answer.stat.aversion == 1


async def test_a_sync_tells_how_far_the_session_sees(client: Client, root: str, stock_client: KazooClient) -> None:
    written = await asyncio.to_thread(stock_client.create, "/a", b"", include_data=True)
    assert await client.sync() >= written[1].czxid


async def test_a_write_under_which_the_daemon_goes_away_has_an_unknown_outcome(
    scripted: ScriptedDaemon, scripted_client: Client
) -> None:
    write = asyncio.create_task(scripted_client.set("/a", b""))
    await scripted.stream()
    await scripted.stop()
    with pytest.raises(OutcomeUnknown):
        await write


async def test_a_write_that_never_left_is_not_of_unknown_outcome(
    scripted: ScriptedDaemon, scripted_client: Client
) -> None:
    await scripted.stop()
    with pytest.raises(Unavailable, match="no daemon answers"):
        await scripted_client.set("/a", b"")


async def test_a_call_ends_with_its_deadline(scripted: ScriptedDaemon, scripted_client: Client) -> None:
    with pytest.raises(DeadlineExceeded, match="may still be applied"):
        await scripted_client.set("/a", b"", timeout_s=0.1)


async def test_writes_of_a_broken_pipeline_say_whether_they_were_sent(
    scripted: ScriptedDaemon, scripted_client: Client
) -> None:
    async with scripted_client.pipeline() as pipeline:
        sent = pipeline.set("/a", b"")
        stream = await scripted.stream()
        stream.end(grpc.StatusCode.UNAVAILABLE)
        with pytest.raises(OutcomeUnknown):
            await sent
        with pytest.raises(Unavailable):
            pipeline.set("/a", b"")


async def test_a_closed_client_says_so(client: Client) -> None:
    await client.close()
    with pytest.raises(ZksideError, match="closed"):
        await client.get("/")
