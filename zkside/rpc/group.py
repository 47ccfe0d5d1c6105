"""GroupService: memberships, and who the members are."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, closing, contextmanager

from google.protobuf.timestamp_pb2 import Timestamp

from zkside.core.shrink import Differences, Named, ShrinkTerms
from zkside.errors import InvalidArgument, NoNode
from zkside.hub.hub import Hub
from zkside.hub.reads import Answer, Freshness
from zkside.model import member as members
from zkside.model import path as paths
from zkside.model.hold import HoldUpdate
from zkside.model.member import MAX_TIME_MS, MIN_TIME_MS, ServiceInstance
from zkside.model.operation import Acl, Create, CreateMode
from zkside.model.record import Record
from zkside.model.watch import Scope, Target
from zkside.pb import group_pb2, hold_pb2
from zkside.recipes.group import RECIPE, GroupNews, GroupWatch, Listed, join
from zkside.recipes.holds import Holds
from zkside.recipes.node import Writes
from zkside.rpc import convert, hold
from zkside.rpc.interceptors import Call, StreamCall
from zkside.rpc.member import MADE_AT_ONCE, Made, message_of, responses
from zkside.rpc.node import in_time

MAX_WINDOW_S = 86_400.0
DEFAULT_MIN_KEPT, DEFAULT_WINDOW_S = 0.5, 10.0
READ_AT_ONCE = 1000


class GroupServicer:
    """`group.proto`, which documents the promises."""

    def __init__(self, hub: Hub, holds: Holds, writes: Writes, default_acl: tuple[Acl, ...]) -> None:
        self._hub = hub
        self._session = hub.session
        self._holds = holds
        self._writes = writes
        self._default_acl = default_acl
        self._watches: dict[str, GroupWatch] = {}
        self._made: dict[str, Made] = {}

    def join(self, request: group_pb2.JoinRequest, call: StreamCall) -> AsyncGenerator[hold_pb2.HoldUpdate, None]:
        return hold.stream(self._holds, self.joining(request, call.deadline_s()), call)

    def joining(
        self, request: group_pb2.JoinRequest, deadline_s: float | None = None
    ) -> AsyncGenerator[HoldUpdate, None]:
        """The updates of the membership that is asked for. Raises: InvalidArgument, InvalidPath, HoldLost."""
        group = paths.validate(request.path)
        asked = _member_id(request)
        requested_path = paths.join(group, asked) if asked else group
        member_id = asked
        if not asked:
            # Joined again under the same name after the loss of a session, by whatever stream has it then.
            token = request.resume_token
            taken_up = self._holds.take_up(token, RECIPE, requested_path, hold.IDENTITY.get()).path if token else ""
            member_id = paths.name(taken_up) if taken_up else str(uuid.uuid4())
        data = request.data
        if request.WhichOneof("content") == "service":
            data = members.encode(_service(request.service, paths.name(group), member_id))
        operation = Create(
            paths.validate(paths.join(group, member_id), field="member_id"),
            data,
            CreateMode.EPHEMERAL,
            convert.acl(request.acl, self._default_acl),
        )
        return join(
            self._holds,
            self._writes,
            operation,
            hold.terms(request, RECIPE, requested_path, follows_data=True),
            on_exists=hold.on_exists(request),
            wait_timeout_s=hold.wait_timeout_s(request),
            resume_token=request.resume_token,
            deadline_s=deadline_s,
        )

    async def watch_group(
        self, request: group_pb2.WatchGroupRequest, call: StreamCall
    ) -> AsyncGenerator[group_pb2.WatchGroupResponse, None]:
        path, shrink = paths.validate(request.path), _shrink_terms(request)
        target = Target(path, Scope.CHILDREN, with_data=True)
        with closing(await self._hub.subscribe((target,))) as subscription, self._making(path) as made:
            watch = GroupWatch(path, subscription, shrink)
            call.stream.pending, call.stream.watches = subscription.pending, subscription.places
            self._watches[watch.watch_id] = watch
            try:
                async with aclosing(responses(self._counted(watch), made)) as parts:
                    async for response in parts:
                        stale, age_s = subscription.is_stale(), subscription.age_s()
                        convert.fill_header(response.header, self._session, watch.zxid, stale=stale, age_s=age_s)
                        response.watch_id = watch.watch_id
                        yield response
            finally:
                del self._watches[watch.watch_id]

    async def list_group(self, request: group_pb2.ListGroupRequest, call: Call) -> group_pb2.ListGroupResponse:
        path, freshness = paths.validate(request.path), convert.freshness(request)
        answer = await in_time(self._read(path, freshness), freshness, call)
        response = group_pb2.ListGroupResponse(header=convert.answer_header(self._session, answer))
        for count, (name, record) in enumerate(answer.value):
            if count % MADE_AT_ONCE == MADE_AT_ONCE - 1:
                await asyncio.sleep(0)
            if members.is_member(record):
                response.members.append(message_of(name, record))
        return response

    async def confirm_shrink(
        self, request: group_pb2.ConfirmShrinkRequest, call: Call
    ) -> group_pb2.ConfirmShrinkResponse:
        watch = self._watches.get(request.watch_id)
        if watch is None:
            raise InvalidArgument("there is no WatchGroup stream of this name (any more)", field="watch_id")
        return group_pb2.ConfirmShrinkResponse(
            header=convert.header(self._session, self._session.last_zxid), published=watch.confirm()
        )

    async def _read(self, path: str, freshness: Freshness) -> Answer[list[Named]]:
        """The children that can be read, sorted by name; who comes or goes meanwhile may be missing."""
        reads = self._hub.reads
        try:
            listing = await reads.children(path, freshness)
        except NoNode:
            absent = await reads.exists(path, freshness)
            return Answer([], absent.zxid, absent.stale, absent.age_s)
        found: list[Named] = []
        zxid, stale, age_s = listing.zxid, listing.stale, listing.age_s
        size_bytes = 0
        names = listing.value.names
        for start in range(0, len(names), READ_AT_ONCE):
            some = names[start : start + READ_AT_ONCE]
            nodes = await reads.get_many([paths.join(path, name) for name in some], freshness)
            zxid, stale, age_s = min(zxid, nodes.zxid), stale or nodes.stale, max(age_s, nodes.age_s)
            size_bytes += sum(len(node) for node in nodes.value if isinstance(node, Record))
            reads.from_server.check(size_bytes)
            found += [
                Named(name, node) for name, node in zip(some, nodes.value, strict=True) if isinstance(node, Record)
            ]
        return Answer(found, zxid, stale, age_s)

    async def _counted(self, watch: GroupWatch) -> AsyncGenerator[GroupNews, None]:
        async with aclosing(watch.news()) as told:
            async for news in told:
                if isinstance(news, Listed):
                    self._hub.snapshots_out[news.reason] += 1
                elif isinstance(news, Differences):
                    self._hub.changes_out += sum(map(len, news))
                yield news

    @contextmanager
    def _making(self, path: str) -> Iterator[Made]:
        made = self._made.setdefault(path, Made(self._hub, path))
        made.users += 1
        try:
            yield made
        finally:
            made.users -= 1
            if not made.users:
                del self._made[path]


# What comes in


def _member_id(request: group_pb2.JoinRequest) -> str:
    """'' if any will do."""
    asked = request.member_id
    if request.WhichOneof("content") == "service":
        asked = asked or request.service.id
    if "/" in asked:
        raise InvalidArgument("one name, without '/'", field="member_id")
    return asked


def _service(request: group_pb2.ServiceInstance, name: str, member_id: str) -> ServiceInstance:
    """The instance that joins as this member of the service of this name."""
    if not name:
        raise InvalidArgument("a service's path ends in its name", field="path")
    if request.name not in ("", name):
        raise InvalidArgument(f"the group's path says {name!r}; leave it empty", field="service.name")
    if request.id not in ("", member_id):
        raise InvalidArgument(f"the member_id says {member_id!r}; leave one of them empty", field="service.id")
    return ServiceInstance(
        name=name,
        id=member_id,
        address=request.address,
        port=request.port if request.HasField("port") else None,
        ssl_port=request.ssl_port if request.HasField("ssl_port") else None,
        payload=request.payload,
        registration_time_ms=_registration_time_ms(request),
        uri_spec=request.uri_spec,
        enabled=request.enabled if request.HasField("enabled") else None,
    )


def _registration_time_ms(request: group_pb2.ServiceInstance) -> int:
    if not request.HasField("registration_time"):
        return time.time_ns() // 1_000_000
    given: Timestamp = request.registration_time
    time_ms = given.seconds * 1000 + given.nanos // 1_000_000
    if not MIN_TIME_MS <= time_ms <= MAX_TIME_MS or not 0 <= given.nanos < 1_000_000_000:
        raise InvalidArgument("not a time of the years 1 to 9999", field="service.registration_time")
    return time_ms


def _shrink_terms(request: group_pb2.WatchGroupRequest) -> ShrinkTerms | None:
    if not request.HasField("shrink_guard"):
        return None
    guard = request.shrink_guard
    min_kept = guard.min_kept or DEFAULT_MIN_KEPT
    if not 0 < min_kept <= 1:
        raise InvalidArgument(f"above 0 and at most 1, not {min_kept:g}", field="shrink_guard.min_kept")
    window_s = convert.seconds(guard, "window", most_s=MAX_WINDOW_S, within="shrink_guard.")
    return ShrinkTerms(
        min_kept,
        DEFAULT_WINDOW_S if window_s is None else window_s,
        convert.seconds(guard, "confirm_after", most_s=MAX_WINDOW_S, within="shrink_guard."),
    )
