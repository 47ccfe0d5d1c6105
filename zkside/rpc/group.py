"""GroupService: memberships, and who the members are."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import closing, contextmanager

from google.protobuf.timestamp_pb2 import Timestamp

from zkside.core.shrink import Differences, Named, ShrinkTerms
from zkside.errors import InvalidArgument, NoNode
from zkside.hub.hub import Hub
from zkside.hub.reads import Answer, Freshness
from zkside.model import member as members
from zkside.model import path as paths
from zkside.model.member import MAX_TIME_MS, MIN_TIME_MS, ServiceInstance
from zkside.model.operation import Acl, Create, CreateMode
from zkside.model.record import Record
from zkside.model.watch import Scope, Target
from zkside.pb import group_pb2, hold_pb2
from zkside.recipes.group import RECIPE, GroupNews, GroupWatch, Listed, Withheld, join
from zkside.recipes.holds import Holds
from zkside.recipes.node import Writes
from zkside.rpc import convert, hold
from zkside.rpc.interceptors import Call, StreamCall

MAX_WINDOW_S = 86_400.0
DEFAULT_MIN_KEPT, DEFAULT_WINDOW_S = 0.5, 10.0
# A message past gRPC's usual limit of 4 MiB could not be received: what is larger goes on in the next one.
PART_BYTES = 2 * 1024 * 1024
READ_AT_ONCE = 1000
MADE_AT_ONCE = 500
"""Members made into messages between two turns of the event loop."""


class GroupServicer:
    """`group.proto`, which documents the promises."""

    def __init__(self, hub: Hub, holds: Holds, writes: Writes, default_acl: tuple[Acl, ...]) -> None:
        self._hub = hub
        self._session = hub.session
        self._holds = holds
        self._writes = writes
        self._default_acl = default_acl
        self._watches: dict[str, GroupWatch] = {}
        self._made: dict[str, _Made] = {}

    def join(self, request: group_pb2.JoinRequest, call: StreamCall) -> AsyncGenerator[hold_pb2.HoldUpdate, None]:
        group = paths.validate(request.path)
        asked = _member_id(request)
        requested_path = paths.join(group, asked) if asked else group
        member_id = asked
        if not asked:
            # Joined again under the same name after the loss of a session, by whatever stream has it then.
            token = request.resume_token
            taken_up = self._holds.take_up(token, RECIPE, requested_path).path if token else ""
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
        updates = join(
            self._holds,
            self._writes,
            operation,
            hold.terms(request, RECIPE, requested_path),
            resume_token=request.resume_token,
            deadline_s=call.deadline_s(),
        )
        return hold.stream(self._holds, updates, call)

    async def watch_group(
        self, request: group_pb2.WatchGroupRequest, call: StreamCall
    ) -> AsyncGenerator[group_pb2.WatchGroupResponse, None]:
        path, shrink = paths.validate(request.path), _shrink_terms(request)
        target = Target(path, Scope.CHILDREN, with_data=True)
        with closing(await self._hub.subscribe((target,))) as subscription, self._making(path) as made:
            watch = GroupWatch(path, subscription, shrink)
            call.stream.pending = subscription.pending
            self._watches[watch.watch_id] = watch
            try:
                async for news in watch.news():
                    async for response in self._responses(news, made):
                        stale, age_s = subscription.is_stale(), subscription.age_s()
                        convert.fill_header(response.header, self._session, watch.zxid, stale=stale, age_s=age_s)
                        response.watch_id = watch.watch_id
                        yield response
            finally:
                del self._watches[watch.watch_id]

    async def list_group(self, request: group_pb2.ListGroupRequest, call: Call) -> group_pb2.ListGroupResponse:
        answer = await self._read(paths.validate(request.path), convert.freshness(request))
        response = group_pb2.ListGroupResponse(header=convert.answer_header(self._session, answer))
        for count, (name, record) in enumerate(answer.value):
            if count % MADE_AT_ONCE == MADE_AT_ONCE - 1:
                await asyncio.sleep(0)
            if members.is_member(record):
                response.members.append(_member(name, record))
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
        names = listing.value.names
        for start in range(0, len(names), READ_AT_ONCE):
            some = names[start : start + READ_AT_ONCE]
            nodes = await reads.get_many([paths.join(path, name) for name in some], freshness)
            zxid, stale, age_s = min(zxid, nodes.zxid), stale or nodes.stale, max(age_s, nodes.age_s)
            found += [
                Named(name, node) for name, node in zip(some, nodes.value, strict=True) if isinstance(node, Record)
            ]
        return Answer(found, zxid, stale, age_s)

    async def _responses(self, news: GroupNews, made: _Made) -> AsyncGenerator[group_pb2.WatchGroupResponse, None]:
        """One, or several if it is large: all but the last say `more`."""
        response = group_pb2.WatchGroupResponse()
        if isinstance(news, Withheld):
            response.withheld.published, response.withheld.present = news.published, news.present
            yield response
            return
        listing = isinstance(news, Listed)
        (response.members if listing else response.changes).SetInParent()
        size_bytes = 0
        for count, (kind, named) in enumerate(_rows(news)):
            if count % MADE_AT_ONCE == MADE_AT_ONCE - 1:
                await asyncio.sleep(0)
            message = made.left(named) if kind == "left" else made.member(named)
            message_bytes = message.ByteSize() + 8
            if size_bytes and size_bytes + message_bytes > PART_BYTES:
                response.more = True
                yield response
                # The rest of a list joins it, so that it is whole also to those who do not look at `more`.
                response, listing, size_bytes = group_pb2.WatchGroupResponse(), False, 0
            (response.members.members if listing else getattr(response.changes, kind)).append(message)
            size_bytes += message_bytes
        yield response

    @contextmanager
    def _making(self, path: str) -> Iterator[_Made]:
        made = self._made.setdefault(path, _Made(self._hub, path))
        made.users += 1
        try:
            yield made
        finally:
            made.users -= 1
            if not made.users:
                del self._made[path]


class _Made:
    """The members of one group as messages, each made once for all who watch it."""

    def __init__(self, hub: Hub, path: str) -> None:
        self.users = 0
        self._hub = hub
        self._path = path
        self._by_name: dict[str, tuple[Record, group_pb2.Member]] = {}

    def member(self, named: Named) -> group_pb2.Member:
        name, record = named
        kept = self._by_name.get(name)
        if kept is not None and kept[0] is record:
            return kept[1]
        message = _member(name, record)
        # One that has been replaced or has left is a slow watcher's own affair: nobody would take it out again.
        if self._hub.table.records.get(paths.join(self._path, name)) is record:
            self._by_name[name] = record, message
        return message

    def left(self, named: Named) -> group_pb2.Member:
        """As `member`, for one that has left."""
        kept = self._by_name.get(named.name)
        if kept is None or kept[0] is not named.record:
            return _member(named.name, named.record)
        del self._by_name[named.name]
        return kept[1]


def _rows(news: Listed | Differences) -> Iterable[tuple[str, Named]]:
    """What a message has to say, with the field of MemberChanges that it belongs to."""
    if isinstance(news, Listed):
        return (("joined", named) for named in news.members)
    return (
        (kind, named)
        for kind, several in (("joined", news.joined), ("left", news.left), ("changed", news.changed))
        for named in several
    )


def _member(name: str, record: Record) -> group_pb2.Member:
    member = members.member(name, record)
    message = group_pb2.Member(member_id=name, data=member.data, fencing_token=member.fencing_token)
    instance = member.service
    if instance is not None:
        service = message.service
        service.name, service.id, service.address = instance.name, instance.id, instance.address
        service.payload, service.uri_spec = instance.payload, instance.uri_spec
        service.registration_time.FromMilliseconds(instance.registration_time_ms)
        if instance.port is not None:
            service.port = instance.port
        if instance.ssl_port is not None:
            service.ssl_port = instance.ssl_port
        if instance.enabled is not None:
            service.enabled = instance.enabled
    return message


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
