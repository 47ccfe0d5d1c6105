"""What each RPC needs: the one table from methods to verbs and paths, complete by test.

A method without a row is denied to everybody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from zkside.core.policy import Verb
from zkside.errors import InvalidArgument, TooLarge
from zkside.model import path as paths
from zkside.pb import group_pb2, hold_pb2, node_pb2
from zkside.rpc import convert

MOST_ASKS = 10_000
"""Of one request; more are refused before they are looked at."""


class Ask(NamedTuple):
    """One thing that a request wants to do to one node."""

    verb: Verb
    path: str
    """As the caller wrote it."""
    field: str = "path"
    may_end_in_slash: bool = False
    names_a_child: bool = False
    """ZooKeeper or the daemon adds to the last name, so that nobody knows the path yet: what counts is its parent."""
    makes_parents: bool = False
    of_tree: bool = False
    """The path is one of the daemon's tree, not of the caller's chroot."""

    def node(self) -> str:
        """The path that has to be covered. Raises: InvalidPath."""
        paths.validate(self.path, sequential=self.may_end_in_slash, field=self.field)
        return paths.parent(self.path + "x") if self.names_a_child else self.path


Asks = Callable[[Any], Iterable[Ask]]


def _nothing(request: Any) -> Iterable[Ask]:
    return ()


def _none(request: Any) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class Row:
    """What one method needs."""

    needs: str
    """For docs/security.md."""
    asks: Asks = _nothing
    """What a request wants. Raises: BadRequest for one that the servicer would refuse as well."""
    is_open: bool = False
    """Also for callers whom the policy does not know."""
    of_hold: str = ""
    """The field with the id of a hold that has to be the caller's own, or below a path that it may administer."""
    of_watch: str = ""
    """The field with the id of a WatchGroup stream that has to be the caller's own."""
    opens_hold: bool = False
    watches: Callable[[Any], int] = _none
    """How many it counts for in the quota."""
    one_by_one: bool = False
    """Each message of the stream asks for itself (`asks_each`), and is refused alone."""
    asks_each: Asks = _nothing
    carries: bool = False
    """As one_by_one, but what it asks for are holds of other methods (StreamCall.carried)."""
    is_audited: bool = False
    """Written to the audit log also where it is allowed."""


KNOWN = Row("an identity")
OPEN = Row("nothing", is_open=True)


def _on(verb: Verb, **flags: Any) -> Row:
    """A method with one `path`."""
    audited = verb is not Verb.READ
    return Row(f"{verb.value} on `path`", lambda request: (Ask(verb, request.path),), is_audited=audited, **flags)


def _administration(request: Any) -> Iterable[Ask]:
    return (Ask(Verb.ADMIN, "/", of_tree=True),)


ADMINISTRATION = Row('admin on "/"', _administration, is_audited=True)
LOOKING_IN = Row('admin on "/"', _administration)


def _several(verb: Verb, field: str, each: Sequence[Any], path: Callable[[Any], str]) -> Iterator[Ask]:
    _bound(field, each)
    for number, one in enumerate(each):
        yield Ask(verb, path(one), f"{field.replace('[]', f'[{number}]')}")


def _bound(field: str, several: Sequence[Any]) -> None:
    if len(several) > MOST_ASKS:
        name = field.partition("[")[0]
        raise TooLarge(f"at most {MOST_ASKS} {name}, not {len(several)}", field=name)


def _create(request: node_pb2.CreateRequest, field: str = "") -> Ask:
    mode = convert.chosen(convert.CREATE_MODES, request.mode, f"{field}mode")
    return Ask(
        Verb.WRITE,
        request.path,
        f"{field}path",
        may_end_in_slash=mode.is_sequential,
        names_a_child=mode.is_sequential or request.protected,
        makes_parents=request.make_parents,
    )


def _operation(operation: node_pb2.Operation, field: str) -> Iterator[Ask]:
    kind = operation.WhichOneof("operation")
    match kind:
        case "create":
            yield _create(operation.create, f"{field}.create.")
        case "set":
            yield Ask(Verb.WRITE, operation.set.path, f"{field}.set.path")
        case "delete":
            yield Ask(Verb.WRITE, convert.deletable(operation.delete.path, f"{field}.delete."), f"{field}.delete.path")
        case "check":
            yield Ask(Verb.READ, operation.check.path, f"{field}.check.path")


def _transact(request: node_pb2.TransactRequest) -> Iterator[Ask]:
    _bound("operations", request.operations)
    for number, operation in enumerate(request.operations):
        yield from _operation(operation, f"operations[{number}]")


def _hold_ephemeral(request: node_pb2.HoldEphemeralRequest) -> Iterable[Ask]:
    yield from _replaces(request, request.path)
    yield from (
        Ask(
            Verb.HOLD,
            request.path,
            may_end_in_slash=request.sequential,
            names_a_child=request.sequential,
            makes_parents=request.make_parents,
        ),
    )


def _queue(request: Any) -> Iterable[Ask]:
    return (Ask(Verb.HOLD, request.path, makes_parents=True),)


def _join(request: group_pb2.JoinRequest) -> Iterable[Ask]:
    if request.path == "/" and request.WhichOneof("content") == "service":
        # Below a chroot the servicer would take the last name of the chroot for the service's.
        raise InvalidArgument("a service's path ends in its name", field="path")
    yield Ask(Verb.HOLD, request.path, makes_parents=True)
    # Whoever may write at the group may do so to each of its members.
    yield from _replaces(request, request.path)


def _replaces(request: Any, path: str) -> Iterator[Ask]:
    """Another's node may be deleted."""
    if request.on_exists == hold_pb2.ON_EXISTS_REPLACE:
        yield Ask(Verb.WRITE, path, "on_exists")


TABLE: Mapping[str, Row] = MappingProxyType(
    {
        "zkside.v1.SessionService/GetSession": KNOWN,
        "zkside.v1.SessionService/WatchSession": KNOWN,
        "zkside.v1.NodeService/Get": _on(Verb.READ),
        "zkside.v1.NodeService/GetMany": Row(
            "read on each of `paths`",
            lambda request: _several(Verb.READ, "paths[]", request.paths, lambda path: path),
        ),
        "zkside.v1.NodeService/Exists": _on(Verb.READ),
        "zkside.v1.NodeService/List": _on(Verb.READ),
        "zkside.v1.NodeService/Create": Row(
            "write on `path`; on its parent for a sequential or `protected` node",
            lambda request: (_create(request),),
            is_audited=True,
        ),
        "zkside.v1.NodeService/Set": _on(Verb.WRITE),
        "zkside.v1.NodeService/Delete": Row(
            "write on `path`",
            lambda request: (Ask(Verb.WRITE, convert.deletable(request.path)),),
            is_audited=True,
        ),
        "zkside.v1.NodeService/Transact": Row(
            "write on the path of each operation, read for a check; `guard_hold_id` its own",
            _transact,
            of_hold="guard_hold_id",
            is_audited=True,
        ),
        "zkside.v1.NodeService/Pipeline": Row(
            "of each message what Transact needs; one that is denied fails alone",
            one_by_one=True,
            asks_each=lambda request: _operation(request.operation, "operation"),
            is_audited=True,
        ),
        "zkside.v1.NodeService/Sync": Row(
            "read on `path`; an identity where it is unset",
            lambda request: (Ask(Verb.READ, request.path),) if request.path else (),
        ),
        "zkside.v1.NodeService/GetAcl": _on(Verb.READ),
        "zkside.v1.NodeService/SetAcl": _on(Verb.ADMIN),
        "zkside.v1.NodeService/HoldEphemeral": Row(
            "hold on `path`; on its parent for a sequential node; write too for on_exists REPLACE",
            _hold_ephemeral,
            opens_hold=True,
            is_audited=True,
        ),
        "zkside.v1.WatchService/Watch": Row(
            "read on the path of each target",
            lambda request: _several(Verb.READ, "targets[].path", request.targets, lambda target: target.path),
            watches=lambda request: len(request.targets),
        ),
        "zkside.v1.ElectionService/Campaign": Row("hold on `path`", _queue, opens_hold=True, is_audited=True),
        "zkside.v1.ElectionService/Observe": _on(Verb.READ, watches=lambda request: 1),
        "zkside.v1.ElectionService/GetLeader": _on(Verb.READ),
        "zkside.v1.ElectionService/Proclaim": Row("its own hold", of_hold="hold_id", is_audited=True),
        "zkside.v1.LockService/Acquire": Row("hold on `path`", _queue, opens_hold=True, is_audited=True),
        "zkside.v1.LockService/GetContenders": _on(Verb.READ),
        "zkside.v1.GroupService/Join": Row(
            "hold on `path`; write too for on_exists REPLACE", _join, opens_hold=True, is_audited=True
        ),
        "zkside.v1.GroupService/WatchGroup": _on(Verb.READ, watches=lambda request: 1),
        "zkside.v1.GroupService/ListGroup": _on(Verb.READ),
        "zkside.v1.GroupService/ConfirmShrink": Row("its own WatchGroup stream", of_watch="watch_id"),
        "zkside.v1.HoldService/Release": Row("its own hold", of_hold="hold_id", is_audited=True),
        "zkside.v1.HoldService/Heartbeat": Row("its own hold", of_hold="hold_id"),
        "zkside.v1.HoldService/GetHold": Row("its own hold", of_hold="hold_id"),
        "zkside.v1.CarryService/Carry": Row(
            "of each step what the RPC of its request needs; one that is denied fails alone", carries=True
        ),
        "zkside.v1.AdminService/GetStatus": LOOKING_IN,
        "zkside.v1.AdminService/ListHolds": LOOKING_IN,
        "zkside.v1.AdminService/ListWatches": LOOKING_IN,
        "zkside.v1.AdminService/ListStreams": LOOKING_IN,
        "zkside.v1.AdminService/Drain": ADMINISTRATION,
        "zkside.v1.AdminService/ReloadConfig": ADMINISTRATION,
        "zkside.v1.AdminService/GetLogLevel": LOOKING_IN,
        "zkside.v1.AdminService/SetLogLevel": ADMINISTRATION,
        "zkside.v1.AdminService/ListLogLines": LOOKING_IN,
        "zkside.v1.AdminService/DumpState": LOOKING_IN,
        "grpc.health.v1.Health/Check": OPEN,
        "grpc.health.v1.Health/List": OPEN,
        "grpc.health.v1.Health/Watch": OPEN,
        # The protos are public: what is shown is which of them this daemon serves.
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": KNOWN,
        # Addresses of peers, and what each connection does.
        "grpc.channelz.v1.Channelz/GetTopChannels": LOOKING_IN,
        "grpc.channelz.v1.Channelz/GetServers": LOOKING_IN,
        "grpc.channelz.v1.Channelz/GetServer": LOOKING_IN,
        "grpc.channelz.v1.Channelz/GetServerSockets": LOOKING_IN,
        "grpc.channelz.v1.Channelz/GetChannel": LOOKING_IN,
        "grpc.channelz.v1.Channelz/GetSubchannel": LOOKING_IN,
        "grpc.channelz.v1.Channelz/GetSocket": LOOKING_IN,
    }
)

CARRIED: Mapping[str, str] = MappingProxyType(
    {
        "acquire": "zkside.v1.LockService/Acquire",
        "campaign": "zkside.v1.ElectionService/Campaign",
        "join": "zkside.v1.GroupService/Join",
        "hold_ephemeral": "zkside.v1.NodeService/HoldEphemeral",
    }
)
"""The method whose row a step of Carry needs, by the step's name."""


def table() -> str:
    """The table for users, for docs/security.md."""
    lines = ["| RPC | needs |", "|---|---|"]
    lines += [f"| `{name.replace('zkside.v1.', '')}` | {row.needs} |" for name, row in TABLE.items()]
    return "\n".join(lines)
