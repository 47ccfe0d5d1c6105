"""Members as messages, and news of a group as messages that a client can receive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing

from zkside.core.shrink import Differences, Named
from zkside.hub.hub import Hub
from zkside.model import path as paths
from zkside.model.member import member
from zkside.model.record import Record
from zkside.pb import group_pb2
from zkside.recipes.group import GroupNews, Listed, Withheld

# A message past gRPC's usual limit of 4 MiB could not be received: what is larger goes on in the next one.
PART_BYTES = 2 * 1024 * 1024
MADE_AT_ONCE = 500
"""Members made into messages between two turns of the event loop."""


def message_of(name: str, record: Record) -> group_pb2.Member:
    """The member that a child of a group is."""
    found = member(name, record)
    message = group_pb2.Member(member_id=name, data=found.data, fencing_token=found.fencing_token)
    instance = found.service
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


class Made:
    """The members of one group as messages, each made once for all who watch it."""

    def __init__(self, hub: Hub, path: str) -> None:
        self.users = 0
        self._hub = hub
        self._path = path
        self._by_name: dict[str, tuple[Record, group_pb2.Member]] = {}

    def member(self, named: Named) -> group_pb2.Member:
        """Nobody may change it."""
        name, record = named
        kept = self._by_name.get(name)
        if kept is not None and kept[0] is record:
            return kept[1]
        message = message_of(name, record)
        # One that has been replaced or has left is a slow watcher's own affair: nobody would take it out again.
        if self._hub.table.records.get(paths.join(self._path, name)) is record:
            self._by_name[name] = record, message
        return message

    def left(self, named: Named) -> group_pb2.Member:
        """As `member`, for one that has left."""
        kept = self._by_name.get(named.name)
        if kept is None or kept[0] is not named.record:
            return message_of(named.name, named.record)
        del self._by_name[named.name]
        return kept[1]


async def responses(
    told: AsyncGenerator[GroupNews, None], made: Made
) -> AsyncGenerator[group_pb2.WatchGroupResponse, None]:
    """One message for each news, or several if it is large: all but the last say `more`. Headers are left unset."""
    async with aclosing(told):
        async for news in told:
            for part in _parts(news, made):
                if part is None:
                    await asyncio.sleep(0)
                else:
                    yield part


def _parts(news: GroupNews, made: Made) -> Iterator[group_pb2.WatchGroupResponse | None]:
    """None where the event loop should have a turn."""
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
            yield None
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


def _rows(news: Listed | Differences) -> Iterable[tuple[str, Named]]:
    """What is to be said, with the field of MemberChanges that it belongs to."""
    if isinstance(news, Listed):
        return (("joined", named) for named in news.members)
    return (
        (kind, named)
        for kind, several in (("joined", news.joined), ("left", news.left), ("changed", news.changed))
        for named in several
    )
