"""What the SDK hands out about groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from zkside.client.answer import Answer
from zkside.client.value import optional_duration
from zkside.pb import group_pb2


@dataclass(frozen=True, slots=True)
class ServiceInstance:
    """An instance of a service as Curator's service discovery writes it."""

    name: str = ""
    """Empty on joining: the last name of the group's path."""
    id: str = ""
    """Empty on joining: the member_id."""
    address: str = ""
    port: int | None = None
    ssl_port: int | None = None
    payload: str = ""
    """JSON."""
    registration_time_ms: int | None = None
    """None on joining: now."""
    uri_spec: str = ""
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a group."""

    member_id: str
    data: bytes
    fencing_token: int
    """The child's czxid: another one under the same id is another membership."""
    service: ServiceInstance | None
    """If the data is one."""


@dataclass(frozen=True, slots=True)
class GroupAnswer(Answer):
    """A group: iterates over its members, sorted by id; `answer[member_id]` is one of them."""

    members: Mapping[str, Member]

    def __iter__(self) -> Iterator[Member]:
        return iter(self.members.values())

    def __len__(self) -> int:
        return len(self.members)

    def __contains__(self, member_id: str) -> bool:
        return member_id in self.members

    def __getitem__(self, member_id: str) -> Member:
        """Raises KeyError."""
        return self.members[member_id]


@dataclass(frozen=True, slots=True)
class Withheld:
    """A sudden loss of members that the shrink guard does not publish."""

    published: int
    present: int


@dataclass(frozen=True, slots=True)
class GroupView(GroupAnswer):
    """A group after a change. `joined`, `left` and `changed` compare it with the view before."""

    watch_id: str
    """For `client.confirm_shrink`."""
    joined: tuple[Member, ...]
    left: tuple[Member, ...]
    changed: tuple[Member, ...]
    """With other data, or another membership under the same id."""
    withheld: Withheld | None
    """While the shrink guard keeps members in the view that are not there."""


@dataclass(frozen=True, slots=True)
class ShrinkGuard:
    """Withhold a sudden loss of members: publish no view with less than `min_kept` of the members of `window_s` ago,
    unless the loss has lasted for `confirm_after_s` (None: only on `client.confirm_shrink`)."""

    min_kept: float = 0.5
    window_s: float = 10.0
    confirm_after_s: float | None = None

    def message(self) -> group_pb2.ShrinkGuard:
        return group_pb2.ShrinkGuard(
            min_kept=self.min_kept,
            window=optional_duration(self.window_s),
            confirm_after=optional_duration(self.confirm_after_s),
        )


def service_message(service: ServiceInstance) -> group_pb2.ServiceInstance:
    message = group_pb2.ServiceInstance(
        name=service.name,
        id=service.id,
        address=service.address,
        port=service.port,
        ssl_port=service.ssl_port,
        payload=service.payload,
        uri_spec=service.uri_spec,
        enabled=service.enabled,
    )
    if service.registration_time_ms is not None:
        seconds, left_ms = divmod(service.registration_time_ms, 1000)
        message.registration_time.CopyFrom(Timestamp(seconds=seconds, nanos=left_ms * 1_000_000))
    return message


def service_of(message: group_pb2.ServiceInstance) -> ServiceInstance:
    time = message.registration_time
    return ServiceInstance(
        name=message.name,
        id=message.id,
        address=message.address,
        port=message.port if message.HasField("port") else None,
        ssl_port=message.ssl_port if message.HasField("ssl_port") else None,
        payload=message.payload,
        registration_time_ms=(
            time.seconds * 1000 + time.nanos // 1_000_000 if message.HasField("registration_time") else None
        ),
        uri_spec=message.uri_spec,
        enabled=message.enabled if message.HasField("enabled") else True,
    )


def member_of(message: group_pb2.Member) -> Member:
    service = service_of(message.service) if message.HasField("service") else None
    return Member(message.member_id, message.data, message.fencing_token, service)
