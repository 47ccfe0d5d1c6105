"""Groups: to be a member, and to know who is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from types import MappingProxyType

import grpc.aio

from zkside.client.calls import Calls
from zkside.client.ephemeral import Ephemeral
from zkside.client.following import follow
from zkside.client.holding import Terms
from zkside.client.link import Link
from zkside.client.member import (
    GroupAnswer,
    GroupView,
    Member,
    ServiceInstance,
    ShrinkGuard,
    Withheld,
    member_of,
    service_message,
)
from zkside.client.reading import Put, Reading
from zkside.client.value import Acl, Consistency, HoldStatus, OnExists, acl_messages, header_of, optional_duration
from zkside.pb import group_pb2
from zkside.pb.group_pb2_grpc import GroupServiceStub


class GroupCalls(Calls):
    """GroupService, for one link."""

    def join(
        self,
        path: str,
        *,
        member_id: str = "",
        data: bytes = b"",
        service: ServiceInstance | None = None,
        acl: Sequence[Acl] | None = None,
        on_exists: OnExists = OnExists.FAIL,
        wait_timeout_s: float | None = None,
        reconnect_grace_s: float | None = None,
        heartbeat_timeout_s: float | None = None,
        cancel_on_loss: bool = True,
        timeout_s: float | None = None,
        wait_for_ready: bool = False,
        on_update: Callable[[HoldStatus], None] | None = None,
    ) -> Ephemeral:
        """Be a member of a group inside `async with`: see Held. `timeout_s` bounds the entering.

        `member_id` names the child, empty is a new UUID; `service` instead of `data` enters it in Curator's service
        discovery. A membership is made again in a new session, with the data that it had last and a new fencing
        token; it is lost only if somebody takes it away, or a heartbeat is missed. `on_exists` says what to do about
        a member of this id, for which it waits no longer than `wait_timeout_s`.
        """
        request = group_pb2.JoinRequest(
            path=path,
            member_id=member_id,
            acl=acl_messages(list(acl) if acl else None),
            on_exists=on_exists.number,
            reconnect_grace=optional_duration(reconnect_grace_s),
            heartbeat_timeout=optional_duration(heartbeat_timeout_s),
        )
        if service is None:
            request.data = data
        else:
            request.service.CopyFrom(service_message(service))
        terms = Terms(
            recreate=True,
            cancel_on_loss=cancel_on_loss,
            reconnect_grace_s=reconnect_grace_s,
            wait_timeout_s=wait_timeout_s,
            timeout_s=timeout_s,
            wait_for_ready=wait_for_ready,
            on_update=on_update,
        )
        return Ephemeral(self._link, "join", request, terms)

    async def group(
        self,
        path: str,
        *,
        consistency: Consistency | None = None,
        min_zxid: int = 0,
        max_stale_s: float | None = None,
        timeout_s: float | None = None,
        wait_for_ready: bool = False,
    ) -> GroupAnswer:
        """The members of a group; none if it is absent. Raises NoAuth, TooStale."""
        answer = await self._link.call(
            GroupServiceStub(self._link.channel).ListGroup,
            group_pb2.ListGroupRequest(path=path, options=self._options(consistency, min_zxid, max_stale_s)),
            timeout_s=timeout_s,
            wait_for_ready=wait_for_ready,
        )
        return GroupAnswer(header_of(answer.header), MappingProxyType(_by_id(answer.members)))

    def watch_group(
        self,
        path: str,
        *,
        shrink_guard: ShrinkGuard | None = None,
        on_change: Callable[[GroupView], None] | None = None,
        wait_for_ready: bool = False,
    ) -> Reading[GroupView]:
        """The members of a group, then a new view with every change (see GroupFlow). Begins at once."""
        flow = GroupFlow(self._link, path, shrink_guard, wait_for_ready=wait_for_ready)
        return self._read(flow.run, on_change, f"zkside group {path}")

    async def confirm_shrink(self, watch_id: str, *, timeout_s: float | None = None) -> bool:
        """Publish what the shrink guard of a watch withholds; False if that is nothing.

        Raises InvalidArgument for a watch that is not there."""
        answer = await self._link.call(
            GroupServiceStub(self._link.channel).ConfirmShrink,
            group_pb2.ConfirmShrinkRequest(watch_id=watch_id),
            timeout_s=timeout_s,
        )
        return answer.published


class GroupFlow:
    """Reads a group: all members, then a view for every change, over any number of streams. Views are whole; what
    changed while there was no daemon is found by comparison. Goes on, stale, without ZooKeeper; a view may differ
    from the one before in `stale` or `withheld` alone. A shrink guard begins anew with each daemon.

    Raises NoAuth, InvalidPath, InvalidArgument; Unavailable if the first stream cannot be opened, unless
    `wait_for_ready`.
    """

    def __init__(self, link: Link, path: str, guard: ShrinkGuard | None, *, wait_for_ready: bool) -> None:
        self._link = link
        self._request = group_pb2.WatchGroupRequest(path=path, shrink_guard=None if guard is None else guard.message())
        self._wait_for_ready = wait_for_ready
        self._latest: GroupView | None = None
        # What has come of an update that goes on in the next message.
        self._coming: dict[str, Member] | None = None

    async def run(self, put: Put[GroupView]) -> None:
        kind = group_pb2.WatchGroupResponse
        following = follow(self._link, self._open, kind, wait_for_ready=self._wait_for_ready)
        async with aclosing(following) as messages:
            async for message, is_first in messages:
                if is_first:
                    self._coming = None
                view = self._view(message)
                if view is not None:
                    self._latest = view
                    await put(view)

    def _open(self, wait: bool) -> grpc.aio.UnaryStreamCall[group_pb2.WatchGroupRequest, group_pb2.WatchGroupResponse]:
        request = self._request
        return self._link.stream(lambda channel: GroupServiceStub(channel).WatchGroup(request, wait_for_ready=wait))

    def _view(self, message: group_pb2.WatchGroupResponse) -> GroupView | None:
        """The view after this message; None if it says nothing new, or more of it is to come."""
        latest, kind = self._latest, message.WhichOneof("update")
        before = {} if latest is None else latest.members
        members = dict(before) if self._coming is None else self._coming
        if kind == "members":
            members = _by_id(message.members.members)
        for gone in message.changes.left:
            members.pop(gone.member_id, None)
        members |= _by_id(message.changes.joined) | _by_id(message.changes.changed)
        self._coming = members if message.more else None
        if message.more:
            return None
        withheld = Withheld(message.withheld.published, message.withheld.present) if kind == "withheld" else None
        view = GroupView(
            header_of(message.header),
            MappingProxyType(dict(sorted(members.items()))),
            message.watch_id,
            joined=tuple(member for name, member in members.items() if name not in before),
            left=tuple(member for name, member in before.items() if name not in members),
            changed=tuple(member for name, member in members.items() if before.get(name, member) != member),
            withheld=withheld,
        )
        is_news = latest is None or (view.members, view.stale, withheld) != (
            latest.members,
            latest.stale,
            latest.withheld,
        )
        return view if is_news or (latest is not None and view.watch_id != latest.watch_id) else None


def _by_id(members: Iterable[group_pb2.Member]) -> dict[str, Member]:
    return {member.member_id: member_of(member) for member in members}
