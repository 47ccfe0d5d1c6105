"""What the policy does beyond paths: holds and their owners, quotas, streams of requests, parents, reloading."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from kazoo.client import KazooClient

from tests.parts.proxy import Proxy
from tests.rpc.host import Stubs, failure, fault
from tests.security.guarded import Guarded, identity
from zkside.client import Client
from zkside.errors import HoldLost, StartError
from zkside.model.operation import SetData
from zkside.pb import (
    admin_pb2,
    carry_pb2,
    carry_pb2_grpc,
    election_pb2,
    group_pb2,
    hold_pb2,
    lock_pb2,
    node_pb2,
    watch_pb2,
)
from zkside.rpc.needs import TABLE
from zkside.zk.journal import Journal

ALL = "read write hold admin"
POLICY = (
    identity("ann", [("/app", "read write hold")])
    + identity("bob", [("/app", "read write hold"), ("/own", "read")])
    + identity("ops", [("/", ALL)])
)
HOUR = Duration(seconds=3600)


@pytest.fixture
async def daemon(hosts: str, stock_client: KazooClient, short_path: Path) -> AsyncIterator[Guarded]:
    for path in ("/app", "/apple", "/own"):
        await asyncio.to_thread(stock_client.create, path, b"")
    async with Guarded(hosts, short_path, POLICY, "ann", "bob", "ops", "eve") as daemon:
        yield daemon


@pytest.fixture
async def ann(daemon: Guarded) -> AsyncIterator[Stubs]:
    async with daemon.stubs_of("ann") as stubs:
        yield stubs


@pytest.fixture
async def bob(daemon: Guarded) -> AsyncIterator[Stubs]:
    async with daemon.stubs_of("bob") as stubs:
        yield stubs


@pytest.fixture
async def ops(daemon: Guarded) -> AsyncIterator[Stubs]:
    async with daemon.stubs_of("ops") as stubs:
        yield stubs


async def lock(client: Stubs, path: str = "/app/lock", **more: Any) -> tuple[Any, hold_pb2.Hold]:
    """A stream that holds it, and the hold."""
    call = client.lock.Acquire(lock_pb2.AcquireRequest(path=path, **more))
    while (update := await call.read()).state != hold_pb2.HOLD_STATE_HELD:
        pass
    return call, update.hold


async def rest(call: Any) -> tuple[list[str], Any]:
    """The reasons of the updates that are left, and the error at the end."""
    reasons = []
    try:
        while (update := await call.read()) is not grpc.aio.EOF:
            reasons.append(getattr(update, "reason", ""))
    except grpc.aio.AioRpcError as error:
        return reasons, fault(error)
    return reasons, None


# Who


async def test_who_is_not_in_the_policy_is_told_so_by_every_call(daemon: Guarded) -> None:
    """UNAUTHENTICATED, but for the health of the daemon."""
    async with daemon.stubs_of("eve") as eve:
        assert (await failure(eve.node.Get(node_pb2.GetRequest(path="/app")))).reason == "UNAUTHENTICATED"
        assert (await failure(eve.lock.Acquire(lock_pb2.AcquireRequest(path="/app/l")))).reason == "UNAUTHENTICATED"


async def test_a_method_without_a_row_is_denied_to_everybody(
    hosts: str, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new RPC is shut until somebody has said what it needs, unary or streaming."""
    left = {name: row for name, row in TABLE.items() if not name.endswith(("/Exists", "/Acquire", "/Carry"))}
    monkeypatch.setattr("zkside.rpc.guard.TABLE", left)
    async with Guarded(hosts, short_path, POLICY, "ops") as daemon, daemon.stubs_of("ops") as ops:
        assert (await failure(ops.node.Exists(node_pb2.ExistsRequest(path="/app")))).reason == "POLICY_DENIED"
        assert (await failure(ops.lock.Acquire(lock_pb2.AcquireRequest(path="/app/l")))).reason == "POLICY_DENIED"
        carry: Any = carry_pb2_grpc.CarryServiceStub(ops.channel)
        assert (await failure(carry.Carry())).reason == "POLICY_DENIED"


async def test_a_denial_says_who_wanted_what_and_which_rule_is_near(ann: Stubs) -> None:
    denied = await failure(ann.node.Set(node_pb2.SetRequest(path="/apple")))
    assert denied.code is grpc.StatusCode.PERMISSION_DENIED
    assert denied.metadata == {"identity": "ann", "verb": "write", "path": "/apple"}
    assert "no rule of 'ann' allows anything on /apple" in denied.message


# Several operations


async def test_a_transaction_is_denied_as_a_whole(ann: Stubs, ops: Stubs) -> None:
    """N1: one operation that is not allowed, and nothing is done."""
    operations = [
        node_pb2.Operation(create=node_pb2.CreateRequest(path="/app/made")),
        node_pb2.Operation(create=node_pb2.CreateRequest(path="/apple/made")),
    ]
    denied = await failure(ann.node.Transact(node_pb2.TransactRequest(operations=operations)))
    assert (denied.reason, denied.metadata["path"]) == ("POLICY_DENIED", "/apple/made")
    assert not (await ops.node.Exists(node_pb2.ExistsRequest(path="/app/made"))).exists


async def test_reading_several_or_watching_several_needs_all_of_them(ann: Stubs) -> None:
    many = await failure(ann.node.GetMany(node_pb2.GetManyRequest(paths=["/app", "/apple"])))
    assert (many.reason, many.metadata["path"]) == ("POLICY_DENIED", "/apple")
    targets = [watch_pb2.WatchTarget(path=path) for path in ("/app", "/")]
    watch = await failure(ann.watch.Watch(watch_pb2.WatchRequest(targets=targets)))
    assert (watch.reason, watch.metadata["path"]) == ("POLICY_DENIED", "/")


async def test_a_denied_write_of_a_pipeline_fails_alone_and_in_its_place(ann: Stubs) -> None:
    """N3: answers in order, one for each request."""

    async def requests() -> AsyncIterator[node_pb2.PipelineRequest]:
        for number, path in enumerate(("/app/a", "/apple/b", "/app/c", "/app/../d", "/app/e")):
            operation = node_pb2.Operation(create=node_pb2.CreateRequest(path=path))
            yield node_pb2.PipelineRequest(id=number, operation=operation)

    answers = [answer async for answer in ann.node.Pipeline(requests())]
    assert [answer.id for answer in answers] == [0, 1, 2, 3, 4]
    assert [answer.result.WhichOneof("result") for answer in answers] == [
        "create",
        "failure",
        "create",
        "failure",
        "create",
    ]
    assert answers[1].result.failure.reason == "POLICY_DENIED"
    assert answers[3].result.failure.reason == "INVALID_PATH"


async def test_a_denied_step_of_a_carry_stream_fails_alone(ann: Stubs) -> None:
    """Each step asks for a hold of its own: the others of its message are granted."""
    carry: Any = carry_pb2_grpc.CarryServiceStub(ann.channel)
    call = carry.Carry()
    steps = [
        carry_pb2.CarryStep(tag=1, acquire=lock_pb2.AcquireRequest(path="/apple/lock")),
        carry_pb2.CarryStep(tag=2, acquire=lock_pb2.AcquireRequest(path="/app/lock")),
    ]
    await call.write(carry_pb2.CarryRequest(steps=steps))
    told: dict[int, str] = {}
    while len(told) < 2:
        for update in (await call.read()).updates:
            if update.HasField("failure"):
                assert update.ended
                told[update.tag] = update.failure.reason
            elif update.update.state == hold_pb2.HOLD_STATE_HELD:
                told[update.tag] = "HELD"
    assert told == {1: "POLICY_DENIED", 2: "HELD"}
    call.cancel()


async def test_parents_above_a_rule_are_not_made(hosts: str, short_path: Path, stock_client: KazooClient) -> None:
    """A right on /a/b lets nobody create /a, neither with make_parents nor by asking for a lock below."""
    policy = identity("ann", [("/a/b", "read write hold")]) + identity("ops", [("/", ALL)])
    async with (
        Guarded(hosts, short_path, policy, "ann", "ops") as daemon,
        daemon.stubs_of("ann") as ann,
        daemon.stubs_of("ops") as ops,
    ):
        create = node_pb2.CreateRequest(path="/a/b/c/d", make_parents=True)
        assert (await failure(ann.node.Create(create))).reason == "POLICY_DENIED"
        assert (await failure(ann.lock.Acquire(lock_pb2.AcquireRequest(path="/a/b/l")))).reason == "POLICY_DENIED"
        assert not await asyncio.to_thread(stock_client.exists, "/a")
        await ops.node.Create(node_pb2.CreateRequest(path="/a"))
        assert (await ann.node.Create(create)).path == "/a/b/c/d"
        call, _ = await lock(ann, "/a/b/l")
        call.cancel()


# Holds


async def test_a_hold_is_its_identitys_own(ann: Stubs, bob: Stubs, ops: Stubs) -> None:
    """Another identity cannot ask for it, feed it, guard with it or release it; who administers the path can."""
    call, hold = await lock(ann, heartbeat_timeout=HOUR)
    for foreign in (
        bob.hold.GetHold(hold_pb2.GetHoldRequest(hold_id=hold.hold_id)),
        bob.hold.Heartbeat(hold_pb2.HeartbeatRequest(hold_id=hold.hold_id)),
        bob.hold.Release(hold_pb2.ReleaseRequest(hold_id=hold.hold_id)),
        bob.node.Transact(
            node_pb2.TransactRequest(
                guard_hold_id=hold.hold_id,
                operations=[node_pb2.Operation(create=node_pb2.CreateRequest(path="/app/x"))],
            )
        ),
    ):
        assert (await failure(foreign)).reason == "POLICY_DENIED"
    assert (await ann.hold.Heartbeat(hold_pb2.HeartbeatRequest(hold_id=hold.hold_id))).due_in.seconds == 3600
    assert (await ops.hold.GetHold(hold_pb2.GetHoldRequest(hold_id=hold.hold_id))).hold.path == hold.path
    assert (await ops.hold.Release(hold_pb2.ReleaseRequest(hold_id=hold.hold_id))).released
    assert (await rest(call))[0][-1] == "RELEASED"


async def test_only_the_leader_itself_proclaims(ann: Stubs, bob: Stubs) -> None:
    call = ann.election.Campaign(election_pb2.CampaignRequest(path="/app/election", candidate_id="a"))
    while (update := await call.read()).state != hold_pb2.HOLD_STATE_HELD:
        pass
    request = election_pb2.ProclaimRequest(hold_id=update.hold.hold_id, value=b"new")
    assert (await failure(bob.election.Proclaim(request))).reason == "POLICY_DENIED"
    await ann.election.Proclaim(request)
    call.cancel()


async def test_only_who_watches_a_group_confirms_its_shrinking(ann: Stubs, bob: Stubs) -> None:
    call = ann.group.WatchGroup(group_pb2.WatchGroupRequest(path="/app/group"))
    request = group_pb2.ConfirmShrinkRequest(watch_id=(await call.read()).watch_id)
    assert (await failure(bob.group.ConfirmShrink(request))).reason == "INVALID_ARGUMENT"
    assert not (await ann.group.ConfirmShrink(request)).published
    call.cancel()


async def test_a_hold_is_taken_up_by_its_own_identity_alone_also_by_another_daemon(
    hosts: str, stock_client: KazooClient, short_path: Path
) -> None:
    """S5: a resume token that was stolen is worth nothing to another identity, before and after a restart."""
    await asyncio.to_thread(stock_client.create, "/app", b"")
    state = short_path / "state"
    terms: dict[str, Any] = {"path": "/app/lock", "reconnect_grace": HOUR}

    def daemon() -> Guarded:
        return Guarded(hosts, short_path, POLICY, "ann", "bob", journal=Journal.open(state, hosts))

    first = daemon()
    await first.start()
    async with first.stubs_of("ann") as ann, first.stubs_of("bob") as bob:
        _, hold = await lock(ann, **terms)
        taking = lock_pb2.AcquireRequest(**terms, resume_token=hold.resume_token)
        assert (await failure(bob.lock.Acquire(taking))).reason == "HOLD_LOST"
        await first.stop(keep=True)
    first.session.journal.close()
    async with daemon() as second, second.stubs_of("ann") as ann, second.stubs_of("bob") as bob:
        assert (await failure(bob.lock.Acquire(taking))).reason == "HOLD_LOST"
        assert (
            await failure(bob.hold.Release(hold_pb2.ReleaseRequest(hold_id=hold.hold_id)))
        ).reason == "POLICY_DENIED"
        call = ann.lock.Acquire(taking)
        while (update := await call.read()).state != hold_pb2.HOLD_STATE_HELD:
            pass
        assert update.hold.fencing_token == hold.fencing_token
        call.cancel()


async def test_a_hold_from_before_there_was_a_policy_belongs_to_who_takes_it_up(
    hosts: str, stock_client: KazooClient, short_path: Path
) -> None:
    """S5: turning the policy on loses no leader, and from then on the hold has an owner."""
    await asyncio.to_thread(stock_client.create, "/app", b"")
    state = short_path / "state"
    terms: dict[str, Any] = {"path": "/app/lock", "reconnect_grace": HOUR}
    first = Guarded(hosts, short_path, None, "ann", journal=Journal.open(state, hosts))
    await first.start()
    async with first.stubs_of("ann") as ann:
        _, hold = await lock(ann, **terms)
        await first.stop(keep=True)
    first.session.journal.close()
    taking = lock_pb2.AcquireRequest(**terms, resume_token=hold.resume_token)
    second = Guarded(hosts, short_path, POLICY, "ann", "bob", journal=Journal.open(state, hosts))
    async with second, second.stubs_of("ann") as ann, second.stubs_of("bob") as bob:
        call = ann.lock.Acquire(taking)
        while (await call.read()).state != hold_pb2.HOLD_STATE_HELD:
            pass
        assert (await failure(bob.lock.Acquire(taking))).reason == "HOLD_LOST"
        assert [row.terms.identity for row in second.session.journal.holds()] == ["ann"]
        call.cancel()


# Quotas


QUOTAS = identity(
    "ann", [("/app", "read write hold")], more="[identities.ann.quotas]\nstreams = 3\nholds = 2\nwatches = 4\ncalls = 1"
) + identity("bob", [("/app", "read write hold")])


async def test_quotas_are_an_identitys_own(hosts: str, stock_client: KazooClient, short_path: Path) -> None:
    """QUOTA beyond streams, holds and watches; what is over is given back; others are not touched."""
    await asyncio.to_thread(stock_client.create, "/app", b"")
    async with (
        Guarded(hosts, short_path, QUOTAS, "ann", "bob") as daemon,
        daemon.stubs_of("ann") as ann,
        daemon.stubs_of("ann") as ann_again,
        daemon.stubs_of("bob") as bob,
    ):
        first, hold = await lock(ann, "/app/1")
        second, _ = await lock(ann_again, "/app/2")
        refused = await failure(ann.lock.Acquire(lock_pb2.AcquireRequest(path="/app/3")))
        assert (refused.reason, refused.metadata) == ("QUOTA", {"limit": "holds", "identity": "ann"})
        other, _ = await lock(bob, "/app/3")
        carry: Any = carry_pb2_grpc.CarryServiceStub(ann.channel)
        step = carry_pb2.CarryStep(tag=1, acquire=lock_pb2.AcquireRequest(path="/app/4"))
        carrying = carry.Carry()
        await carrying.write(carry_pb2.CarryRequest(steps=[step]))
        assert (await carrying.read()).updates[0].failure.reason == "QUOTA"
        watching = watch_pb2.WatchRequest(targets=[watch_pb2.WatchTarget(path="/app")])
        assert (await failure(ann.watch.Watch(watching))).metadata["limit"] == "streams"
        await ann.hold.Release(hold_pb2.ReleaseRequest(hold_id=hold.hold_id))
        await rest(first)
        targets = [watch_pb2.WatchTarget(path=f"/app/{number}") for number in range(5)]
        assert (await failure(ann.watch.Watch(watch_pb2.WatchRequest(targets=targets)))).metadata["limit"] == "watches"
        call = ann.watch.Watch(watch_pb2.WatchRequest(targets=targets[:4]))
        await call.read()
        for open_call in (second, other, carrying, call):
            open_call.cancel()


async def test_what_a_stream_carries_counts_before_it_is_opened(
    proxy: Proxy, proxy_hosts: str, stock_client: KazooClient, short_path: Path
) -> None:
    """O1: also as long as there is no connection, and nobody has a hold yet."""
    await asyncio.to_thread(stock_client.create, "/app", b"")
    async with Guarded(proxy_hosts, short_path, QUOTAS, "ann") as daemon, daemon.stubs_of("ann") as ann:
        proxy.refuse()
        proxy.cut()
        while daemon.session.status.state.is_connected:  # noqa: ASYNC110
            await asyncio.sleep(0)
        carry: Any = carry_pb2_grpc.CarryServiceStub(ann.channel)
        carrying = carry.Carry()
        steps = [
            carry_pb2.CarryStep(tag=tag, wait_for_ready=True, acquire=lock_pb2.AcquireRequest(path=f"/app/{tag}"))
            for tag in range(5)
        ]
        await carrying.write(carry_pb2.CarryRequest(steps=steps))
        refused: list[carry_pb2.CarriedUpdate] = []
        while len(refused) < 3:
            refused += [told for told in (await carrying.read()).updates if told.HasField("failure")]
        assert [(told.tag, told.failure.metadata["limit"]) for told in refused] == [(tag, "holds") for tag in (2, 3, 4)]
        carrying.cancel()


async def test_calls_under_way_are_counted(hosts: str, stock_client: KazooClient, short_path: Path) -> None:
    """A burst beyond the quota is refused in part, and the next call is served."""
    await asyncio.to_thread(stock_client.create, "/app", b"")
    async with Guarded(hosts, short_path, QUOTAS, "ann") as daemon, daemon.stubs_of("ann") as ann:
        get = node_pb2.GetRequest(path="/app")
        answers = await asyncio.gather(*(ann.node.Get(get) for _ in range(50)), return_exceptions=True)
        refused = [fault(answer).reason for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
        assert refused
        assert set(refused) == {"QUOTA"}
        assert len(refused) < 50
        await ann.node.Get(get)


# Reloading


async def test_streams_that_lost_their_right_end_and_others_go_on(daemon: Guarded, ann: Stubs, bob: Stubs) -> None:
    """A reload ends with POLICY_DENIED what would not be let in now."""
    watching = watch_pb2.WatchRequest(targets=[watch_pb2.WatchTarget(path="/app")])
    lost, kept = ann.watch.Watch(watching), bob.watch.Watch(watching)
    await lost.read()
    await kept.read()
    daemon.replace_policy(identity("ann", [("/app", "write")]) + identity("bob", [("/app", "read")]))
    assert (await rest(lost))[1].reason == "POLICY_DENIED"
    assert (await failure(ann.node.Get(node_pb2.GetRequest(path="/app")))).reason == "POLICY_DENIED"
    await ann.node.Set(node_pb2.SetRequest(path="/app", data=b"new"))
    while (message := await kept.read()).WhichOneof("message") != "changes":
        pass
    assert [change.node.path for change in message.changes.changes] == ["/app"]
    kept.cancel()


async def test_an_identity_that_is_gone_or_sees_another_root_loses_its_streams(
    daemon: Guarded, ann: Stubs, bob: Stubs
) -> None:
    watching = watch_pb2.WatchRequest(targets=[watch_pb2.WatchTarget(path="/app")])
    gone, moved = ann.watch.Watch(watching), bob.watch.Watch(watching)
    await gone.read()
    await moved.read()
    daemon.replace_policy(identity("bob", [("/", ALL)], more='chroot = "/app"'))
    assert (await rest(gone))[1].reason == "POLICY_DENIED"
    assert (await rest(moved))[1].reason == "POLICY_DENIED"
    assert (await failure(ann.node.Get(node_pb2.GetRequest(path="/app")))).reason == "UNAUTHENTICATED"


async def test_a_holder_that_lost_its_right_is_asked_to_let_go_before_anybody_else_holds(
    daemon: Guarded, ann: Stubs, bob: Stubs
) -> None:
    """H1, H5: JEOPARDY with a lease that is over, then RELEASED, then POLICY_DENIED; the next waiter comes after."""
    call, hold = await lock(ann, reconnect_grace=HOUR)
    waiting = bob.lock.Acquire(lock_pb2.AcquireRequest(path="/app/lock"))
    assert (await waiting.read()).state == hold_pb2.HOLD_STATE_WAITING
    daemon.replace_policy(identity("ann", [("/app", "read")]) + identity("bob", [("/app", "hold")]))
    update = await call.read()
    while update.state == hold_pb2.HOLD_STATE_HELD:
        update = await call.read()
    assert (update.state, update.reason) == (hold_pb2.HOLD_STATE_JEOPARDY, "POLICY_DENIED")
    assert update.hold.lease_boottime_ns == 0
    await ann.hold.Release(hold_pb2.ReleaseRequest(hold_id=hold.hold_id))
    reasons, error = await rest(call)
    assert reasons == ["RELEASED"]
    assert error.reason == "POLICY_DENIED"
    assert (await waiting.read()).state == hold_pb2.HOLD_STATE_HELD
    waiting.cancel()


async def test_a_holder_without_a_stream_that_lost_its_right_is_released_when_its_lease_is_over(
    daemon: Guarded, ann: Stubs, bob: Stubs
) -> None:
    """H1: its reconnect_grace of an hour is not waited for, its lease is."""
    call, _ = await lock(ann, reconnect_grace=HOUR)
    call.cancel()
    await daemon.rpc.streams.wait_ended(infrastructure=True)
    daemon.replace_policy(identity("bob", [("/app", "hold")]))
    waiting = bob.lock.Acquire(lock_pb2.AcquireRequest(path="/app/lock"))
    while (await waiting.read()).state != hold_pb2.HOLD_STATE_HELD:
        pass
    waiting.cancel()


async def test_carried_holds_that_lost_their_right_end_alone_and_with_their_identity_the_stream(
    daemon: Guarded, ann: Stubs
) -> None:
    """H5."""
    carry: Any = carry_pb2_grpc.CarryServiceStub(ann.channel)
    call = carry.Carry()
    steps = [
        carry_pb2.CarryStep(tag=tag, hold_ephemeral=node_pb2.HoldEphemeralRequest(path=f"/app/{tag}")) for tag in (1, 2)
    ]
    await call.write(carry_pb2.CarryRequest(steps=steps))

    async def until(*wanted: tuple[int, str]) -> None:
        left = set(wanted)
        while left:
            for update in (await call.read()).updates:
                left.discard((update.tag, update.failure.reason if update.ended else update.update.reason))

    await until((1, "CREATED"), (2, "CREATED"))
    daemon.replace_policy(identity("ann", [("/app/1", "hold")]))
    await until((2, "POLICY_DENIED"))
    assert [each.terms.requested_path for each in daemon.holds.owned()] == ["/app/1"]
    daemon.replace_policy(identity("bob"))
    await until((1, "POLICY_DENIED"))
    assert (await rest(call))[1].reason == "POLICY_DENIED"


async def test_what_is_being_let_in_while_the_policy_changes_is_looked_at_again(
    proxy: Proxy, proxy_hosts: str, stock_client: KazooClient, short_path: Path
) -> None:
    """A stream that waits for ZooKeeper before it begins, and a carried hold that has told nothing yet."""
    for path in ("/a", "/app"):
        await asyncio.to_thread(stock_client.create, path, b"")
    before, after = [("/a/b/c", "hold"), ("/app", "hold")], [("/other", "hold")]
    async with (
        Guarded(proxy_hosts, short_path, identity("ann", before), "ann") as daemon,
        daemon.stubs_of("ann") as ann,
    ):
        proxy.hold_replies()
        waiting = ann.lock.Acquire(lock_pb2.AcquireRequest(path="/a/b/c"))
        carry: Any = carry_pb2_grpc.CarryServiceStub(ann.channel)
        carrying = carry.Carry()
        step = carry_pb2.CarryStep(tag=1, hold_ephemeral=node_pb2.HoldEphemeralRequest(path="/app/e"))
        await carrying.write(carry_pb2.CarryRequest(steps=[step]))
        while len(daemon.rpc.streams) < 2 or not len(daemon.holds):  # noqa: ASYNC110 (there is no event for it)
            await asyncio.sleep(0.01)
        daemon.replace_policy(identity("ann", after))
        await asyncio.to_thread(stock_client.create, "/a/b", b"")
        proxy.heal()
        assert (await failure(waiting)).reason == "POLICY_DENIED"
        ended = ""
        while not ended:
            for update in (await carrying.read()).updates:
                ended = update.failure.reason if update.ended else ""
        assert ended == "POLICY_DENIED"
        assert not len(daemon.holds)
        carrying.cancel()


async def test_the_sdk_ends_a_hold_whose_right_is_lost(daemon: Guarded, stock_client: KazooClient) -> None:
    """H5: with the reason, and for good: it does not try again."""

    async def lead(client: Client) -> None:
        async with client.lock("/app/lock", reconnect_grace_s=3600.0):
            daemon.replace_policy(identity("ann", [("/app", "read")]))
            await asyncio.Event().wait()

    async with Client(f"unix:{daemon.directory}/ann.sock") as client:
        with pytest.raises(HoldLost) as lost:
            await lead(client)
    assert lost.value.metadata["reason"] == "POLICY_DENIED"
    assert await asyncio.to_thread(stock_client.get_children, "/app/lock") == []


async def test_a_policy_that_cannot_be_used_changes_nothing(daemon: Guarded, ann: Stubs) -> None:
    """The old one stays in force; the failure is counted, and said."""
    daemon.policy_file.write_text("[identities.ann]\ncallers = ['nobody']\n")
    (told,) = daemon.files.read_now()
    assert "identities.ann.callers[0]" in told
    await ann.node.Get(node_pb2.GetRequest(path="/app"))
    (kept,) = (each for each in daemon.files.statistics() if each.name == "policy")
    assert (kept.failures, bool(kept.error)) == (1, True)


async def test_a_changed_file_is_read_by_itself(daemon: Guarded, ann: Stubs) -> None:
    daemon.files.start(daemon.session.supervisor)
    watch = ann.watch.Watch(watch_pb2.WatchRequest(targets=[watch_pb2.WatchTarget(path="/app")]))
    await watch.read()
    daemon.policy_file.write_text(identity("bob", [("/", ALL)]))
    assert (await rest(watch))[1].reason == "POLICY_DENIED"
    daemon.files.stop()


async def test_streams_of_a_withdrawn_token_end(hosts: str, stock_client: KazooClient, short_path: Path) -> None:
    """Also where the socket would let their caller in as somebody else; streams of other tokens go on."""
    await asyncio.to_thread(stock_client.create, "/app", b"")
    tokens = short_path / "tokens"
    ci, cd = "ci 0123456789-abcdefghij\n", "cd abcdefghij-0123456789\n"
    tokens.write_text(ci + cd)
    policy = identity("jobs", [("/app", "read")], callers='"token:ci", "token:cd"') + identity(
        "socket", [("/app", "read")]
    )
    watching = watch_pb2.WatchRequest(targets=[watch_pb2.WatchTarget(path="/app")])
    async with (
        Guarded(hosts, short_path, policy, "socket", token_files=(tokens,)) as daemon,
        daemon.stubs_of("socket") as client,
    ):
        withdrawn, kept, plain = (
            client.watch.Watch(watching, metadata=metadata)
            for metadata in (
                (("authorization", f"Bearer {ci.split()[1]}"),),
                (("authorization", f"Bearer {cd.split()[1]}"),),
                (),
            )
        )
        for call in (withdrawn, kept, plain):
            await call.read()
        tokens.write_text(cd)
        assert not daemon.files.read_now()
        assert (await rest(withdrawn))[1].reason == "POLICY_DENIED"
        await daemon.session.call(SetData("/app", b"new", -1))
        for call in (kept, plain):
            while (await call.read()).WhichOneof("message") != "changes":
                pass
            call.cancel()


async def test_a_daemon_does_not_start_with_a_policy_that_cannot_be_used(hosts: str, short_path: Path) -> None:
    """Nor without its file; and nothing listens then."""
    for policy in ("[identities.x]", "not toml"):
        daemon = Guarded(hosts, short_path, policy, "ann", connect=False)
        with pytest.raises(StartError, match="the policy"):
            await daemon.rpc.start()
        assert not (short_path / "ann.sock").exists()
    daemon = Guarded(hosts, short_path, "", "ann", connect=False)
    daemon.policy_file.unlink()
    with pytest.raises(StartError, match="cannot be read"):
        await daemon.rpc.start()


def test_a_daemon_without_policy_and_audit_loads_none_of_it() -> None:
    """Nothing is paid for what is not used: neither memory nor time."""
    program = "import sys, zkside.daemon; print(*[name for name in sys.modules if name.startswith('zkside.')])"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    parts = ("audit", "caller", "chroot", "guard", "guarding", "needs", "policy_file", "recording", "served")
    assert "zkside.rpc.server" in loaded
    assert not {f"zkside.rpc.{part}" for part in parts} & set(loaded)
    assert not {"zkside.core.policy", "zkside.core.policy_document"} & set(loaded)


async def test_what_was_denied_is_counted(daemon: Guarded, ann: Stubs) -> None:
    await failure(ann.node.Get(node_pb2.GetRequest(path="/")))
    await failure(ann.admin.Drain(admin_pb2.DrainRequest()))
    samples = {
        (sample.name, sample.labels.get("verb", "")): sample.value
        for family in daemon.rpc.collect()
        for sample in family.samples
    }
    assert samples["zkside_policy_denied_total", "read"] == 1
    assert samples["zkside_policy_denied_total", "admin"] == 1
    assert samples["zkside_policy_identities", ""] == 3


async def test_to_replace_a_former_node_needs_the_right_to_write(hosts: str, short_path: Path) -> None:
    """Somebody else's node is deleted by it."""
    policy = identity("holder", [("/app", "hold")]) + identity("writer", [("/app", "hold write")])
    async with Guarded(hosts, short_path, policy, "holder", "writer") as daemon:
        for name, reason in (("holder", "POLICY_DENIED"), ("writer", "")):
            async with daemon.stubs_of(name) as stubs:
                for call in (
                    stubs.group.Join(group_pb2.JoinRequest(path="/app/g", on_exists=hold_pb2.ON_EXISTS_REPLACE)),
                    stubs.node.HoldEphemeral(
                        node_pb2.HoldEphemeralRequest(
                            path="/app/e", make_parents=True, on_exists=hold_pb2.ON_EXISTS_REPLACE
                        )
                    ),
                ):
                    if reason:
                        assert (await failure(call)).reason == reason
                    else:
                        assert (await call.read()).state == hold_pb2.HOLD_STATE_HELD
                        call.cancel()
