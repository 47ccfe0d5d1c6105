"""Chroots: one and the same to who lives in it, and nothing to be heard of what is above."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from kazoo.client import KazooClient

from tests.rpc.host import Stubs, failure
from tests.security.guarded import Guarded, identity
from zkside.errors import BadVersion, InvalidPath, NoNode
from zkside.pb import (
    admin_pb2,
    carry_pb2,
    common_pb2,
    election_pb2,
    group_pb2,
    hold_pb2,
    lock_pb2,
    node_pb2,
    session_pb2,
    watch_pb2,
)
from zkside.rpc.chroot import PATH_FIELDS, TEXT_FIELDS, Chroot

MODULES = (
    admin_pb2, carry_pb2, common_pb2, election_pb2, group_pb2, hold_pb2, lock_pb2, node_pb2, session_pb2, watch_pb2,
)  # fmt: skip

NO_PATHS = {
    # Names, ids, tokens and secrets that clients or the daemon make up, and addresses.
    "Header.session_id", "Session.session_id", "Session.server", "Session.last_error",
    "Failure.reason", "Failure.field",
    "Hold.hold_id", "Hold.resume_token", "HoldUpdate.reason", "Contender.session_id",
    "ReleaseRequest.hold_id", "HeartbeatRequest.hold_id", "GetHoldRequest.hold_id", "ProclaimRequest.hold_id",
    "TransactRequest.guard_hold_id", "AcquireRequest.owner", "AcquireRequest.resume_token",
    "CampaignRequest.candidate_id", "CampaignRequest.resume_token", "HoldEphemeralRequest.resume_token",
    "JoinRequest.member_id", "JoinRequest.resume_token", "Member.member_id",
    "ServiceInstance.name", "ServiceInstance.id", "ServiceInstance.address", "ServiceInstance.payload",
    "ServiceInstance.uri_spec", "WatchGroupResponse.watch_id", "ConfirmShrinkRequest.watch_id",
    "Acl.scheme", "Acl.id", "Resume.epoch_id", "WatchResponse.epoch_id",
    # Last names, below the path of the request.
    "ListRequest.page_token", "ListResponse.names", "ListResponse.next_page_token", "ListResponse.unreadable_names",
    # Only for callers without a chroot: what concerns the whole daemon needs admin on its root.
    "GetStatusResponse.version", "GetStatusResponse.backend", "HoldInfo.recipe", "StreamInfo.method", "StreamInfo.peer",
    "ReloadConfigResponse.applied", "ReloadConfigResponse.needs_restart", "ReloadConfigResponse.problems",
    "ReloadConfigResponse.refused", "ReloadConfigResponse.read_again",
    "GetLogLevelResponse.configured", "LogLevel.logger", "LogLevel.level",
    "SetLogLevelRequest.logger", "SetLogLevelRequest.level", "ListLogLinesResponse.lines",
}  # fmt: skip


def texts(kind: Descriptor) -> Iterator[str]:
    """The text fields of a message type, and maps."""
    for field in kind.fields:
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        if is_map or field.type == FieldDescriptor.TYPE_STRING:
            yield field.full_name


def test_of_every_text_field_it_is_known_whether_it_holds_a_path() -> None:
    """A new field of text is rewritten, looked through, or listed here with a reason."""
    kinds = [kind for module in MODULES for kind in module.DESCRIPTOR.message_types_by_name.values()]
    found = {name for kind in kinds for name in texts(kind)}
    rewritten = {name for name in found if name.rpartition(".")[2] in PATH_FIELDS}
    assert found - rewritten - TEXT_FIELDS == {f"zkside.v1.{name}" for name in NO_PATHS}


ROOT = Chroot("/zq-upper/zq-tenant")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/zq-upper/zq-tenant/x: no such node", "/x: no such node"),
        ("/zq-upper/zq-tenant: no such node", "/: no such node"),
        ("the node '/zq-upper/zq-tenant/x/y' is gone.", "the node '/x/y' is gone."),
        ("(/zq-upper/zq-tenant/a, /zq-upper/zq-tenant/b)", "(/a, /b)"),
        ("nothing about a path", "nothing about a path"),
        ("/zq-upper does not exist", ""),
        ("/zq-upper/zq-tenant2 exists", ""),
        ("/zq-upper/zq-tenant/x and /zq-upper/other", ""),
        ("in /zq-upper/zq-tenant-old", ""),
        ("x/zq-upper/zq-tenant/y", ""),
        ("/zq-upper/zq-tenant/a/zq-upper/zq-tenant/b", "/a/zq-upper/zq-tenant/b"),
    ],
)
def test_a_text_tells_paths_as_the_caller_knows_them_or_nothing(text: str, told: str) -> None:
    assert ROOT.scrub(text) == told


def test_an_error_is_rewritten_and_the_one_that_others_are_told_is_not() -> None:
    path = "/zq-upper/zq-tenant/x"
    error = BadVersion(f"{path}: another version", path=path, above="/zq-upper", actual="3")
    made = ROOT.error(error)
    assert (str(made), made.metadata) == ("/x: another version", {"path": "/x", "actual": "3"})
    assert error.metadata["path"] == "/zq-upper/zq-tenant/x"
    assert type(made) is BadVersion
    assert str(ROOT.error(NoNode("/zq-upper is gone"))) == NoNode.__doc__
    bad = ROOT.error(InvalidPath("x", field="path"))
    assert isinstance(bad, InvalidPath)
    assert bad.field == "path"


def test_elements_about_other_nodes_are_left_out() -> None:
    """A list never has a node from outside, whatever made it."""
    infos = [admin_pb2.WatchInfo(path=path) for path in ("/zq-upper/zq-tenant/x", "/zq-upper", "/zq-upper/zq-tenant")]
    made = ROOT.leave(admin_pb2.ListWatchesResponse(watches=infos))
    assert [watch.path for watch in made.watches] == ["/x", "/"]
    update = hold_pb2.HoldUpdate(hold=hold_pb2.Hold(path="/zq-upper/other"), reason="HELD")
    assert not ROOT.leave(update).HasField("hold")


def test_what_is_added_to_the_last_name_is_not_added_to_that_of_the_chroot() -> None:
    """A sequential node of "/" would be a sibling of the chroot."""
    sequential = node_pb2.CREATE_MODE_PERSISTENT_SEQUENTIAL
    assert ROOT.enter(node_pb2.CreateRequest(path="/", mode=sequential)).path == "/zq-upper/zq-tenant/"
    assert ROOT.enter(node_pb2.CreateRequest(path="/", protected=True)).path == "/zq-upper/zq-tenant/"
    assert ROOT.enter(node_pb2.HoldEphemeralRequest(path="/", sequential=True)).path == "/zq-upper/zq-tenant/"
    assert ROOT.enter(node_pb2.CreateRequest(path="/")).path == "/zq-upper/zq-tenant"


# Over a real daemon

TENANT = "/zq-upper/zq-tenant"
POLICY = identity("tenant", [("/", "read write hold")], more=f'chroot = "{TENANT}"') + identity(
    "all", [("/", "read write hold admin")]
)


@pytest.fixture
async def daemon(hosts: str, stock_client: KazooClient, short_path: Path) -> AsyncIterator[Guarded]:
    for path in ("/zq-upper", TENANT, f"{TENANT}/app", "/zq-upper/other"):
        await asyncio.to_thread(stock_client.create, path, b"")
    async with Guarded(hosts, short_path, POLICY, "tenant", "all") as daemon:
        yield daemon


@pytest.fixture
async def tenant(daemon: Guarded) -> AsyncIterator[Stubs]:
    async with daemon.stubs_of("tenant") as stubs:
        yield stubs


@pytest.fixture
async def everybody(daemon: Guarded) -> AsyncIterator[Stubs]:
    async with daemon.stubs_of("all") as stubs:
        yield stubs


async def test_a_node_is_the_same_by_its_two_names(tenant: Stubs, everybody: Stubs) -> None:
    """Also from the cache, where answers are remembered by the bytes of a request (R3)."""
    cached = node_pb2.ReadOptions(consistency=node_pb2.CONSISTENCY_CACHED)
    await tenant.node.Set(node_pb2.SetRequest(path="/app", data=b"inside"))
    await everybody.node.Create(node_pb2.CreateRequest(path="/app", data=b"outside"))
    for _ in range(3):
        inside = await tenant.node.Get(node_pb2.GetRequest(path="/app", options=cached))
        outside = await everybody.node.Get(node_pb2.GetRequest(path="/app", options=cached))
        whole = await everybody.node.Get(node_pb2.GetRequest(path=f"{TENANT}/app", options=cached))
        assert (inside.node.path, inside.node.data) == ("/app", b"inside")
        assert (outside.node.path, outside.node.data) == ("/app", b"outside")
        assert (whole.node.path, whole.node.data) == (f"{TENANT}/app", b"inside")


async def test_a_change_is_told_to_each_under_its_own_name(tenant: Stubs, everybody: Stubs) -> None:
    """One change, made into bytes once, reaches streams inside and outside of the chroot (W3)."""

    def watching(path: str) -> watch_pb2.WatchRequest:
        target = watch_pb2.WatchTarget(path=path, scope=watch_pb2.SCOPE_SUBTREE, with_data=True)
        return watch_pb2.WatchRequest(targets=[target])

    inside, outside = tenant.watch.Watch(watching("/")), everybody.watch.Watch(watching(TENANT))
    snapshot = await inside.read()
    assert [node.path for node in snapshot.snapshot.nodes] == ["/", "/app"]
    assert [node.path for node in (await outside.read()).snapshot.nodes] == [TENANT, f"{TENANT}/app"]
    for number in range(3):
        await tenant.node.Set(node_pb2.SetRequest(path="/app", data=b"%d" % number))
        for call, path in ((inside, "/app"), (outside, f"{TENANT}/app")):
            while (message := await call.read()).WhichOneof("message") != "changes":
                pass
            assert [(each.node.path, each.node.data) for each in message.changes.changes] == [(path, b"%d" % number)]
    resumed = tenant.watch.Watch(
        watch_pb2.WatchRequest(
            targets=watching("/").targets,
            resume=watch_pb2.Resume(epoch_id=message.epoch_id, zxid=message.header.zxid),
        )
    )
    await resumed.initial_metadata()
    await tenant.node.Set(node_pb2.SetRequest(path="/app", data=b"resumed"))
    assert [each.node.path for each in (await resumed.read()).changes.changes] == ["/app"]
    for call in (inside, outside, resumed):
        call.cancel()


async def test_events_are_told_under_the_callers_names(tenant: Stubs) -> None:
    """W10."""
    target = watch_pb2.WatchTarget(path="/", kind=watch_pb2.WATCH_KIND_PERSISTENT_RECURSIVE)
    call = tenant.watch.Watch(watch_pb2.WatchRequest(targets=[target], mode=watch_pb2.WATCH_MODE_EVENTS))
    await call.read()
    await tenant.node.Create(node_pb2.CreateRequest(path="/app/new"))
    assert {event.path for event in (await call.read()).events.events} <= {"/app/new", "/app"}
    call.cancel()


async def test_holds_and_contenders_are_told_under_the_callers_names(tenant: Stubs, everybody: Stubs) -> None:
    """A lock taken inside is the lock that waits outside (H1)."""
    call = tenant.lock.Acquire(lock_pb2.AcquireRequest(path="/lock"))
    while (update := await call.read()).state != hold_pb2.HOLD_STATE_HELD:
        pass
    assert update.hold.path.startswith("/lock/_c_")
    inside = await tenant.lock.GetContenders(lock_pb2.GetContendersRequest(path="/lock"))
    outside = await everybody.lock.GetContenders(lock_pb2.GetContendersRequest(path=f"{TENANT}/lock"))
    assert [each.path for each in inside.contenders] == [update.hold.path]
    assert [each.path for each in outside.contenders] == [TENANT + update.hold.path]
    got = await tenant.hold.GetHold(hold_pb2.GetHoldRequest(hold_id=update.hold.hold_id))
    assert got.hold.path == update.hold.path
    committed = await tenant.node.Transact(
        node_pb2.TransactRequest(
            guard_hold_id=update.hold.hold_id,
            operations=[node_pb2.Operation(create=node_pb2.CreateRequest(path="/guarded"))],
        )
    )
    assert committed.results[0].create.path == "/guarded"
    call.cancel()


async def test_the_root_of_a_chroot_cannot_be_deleted_and_has_no_siblings_made(
    tenant: Stubs, stock_client: KazooClient
) -> None:
    delete = node_pb2.DeleteRequest(path="/", recursive=True)
    assert (await failure(tenant.node.Delete(delete))).reason == "INVALID_PATH"
    sequential = node_pb2.CREATE_MODE_PERSISTENT_SEQUENTIAL
    made = await tenant.node.Create(node_pb2.CreateRequest(path="/", mode=sequential))
    assert made.path[1:].isdigit()
    assert sorted(await asyncio.to_thread(stock_client.get_children, "/zq-upper")) == ["other", "zq-tenant"]


async def test_a_service_takes_no_name_from_the_chroot(tenant: Stubs) -> None:
    request = group_pb2.JoinRequest(path="/", service=group_pb2.ServiceInstance(id="one"))
    refused = await failure(tenant.group.Join(request))
    assert refused.fields == ("path",)
    assert "zq-" not in refused.message


async def test_errors_tell_the_callers_own_paths(tenant: Stubs) -> None:
    error = await failure(tenant.node.Get(node_pb2.GetRequest(path="/absent")))
    assert error.reason == "NO_NODE"
    assert "/absent" in error.message
    assert "zq-" not in f"{error}"
    error = await failure(tenant.node.Set(node_pb2.SetRequest(path="/app", expected_version=99)))
    assert (error.reason, error.metadata["path"]) == ("BAD_VERSION", "/app")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await tenant.node.Get(node_pb2.GetRequest(path="/../other"))
    assert "zq-" not in f"{raised.value} {raised.value.trailing_metadata()}"
