"""ZooKeeper's tree of nodes in process: what each operation answers, changes and fires. Pure; no clock.

Source: ZooKeeper's PrepRequestProcessor (the order of the checks), DataTree and DataNode (stats, events).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from zkside import errors
from zkside.errors import Refused, ZksideError
from zkside.model import path as paths
from zkside.model import record
from zkside.model.event import EventType
from zkside.model.operation import (
    ANY_VERSION,
    OPEN_ACL,
    Acl,
    Check,
    Create,
    Created,
    CreateMode,
    Delete,
    Exists,
    GetAcl,
    GetChildren,
    GetData,
    Operation,
    ReadMany,
    ReadResult,
    SetAcl,
    SetData,
    Transaction,
    TransactionResult,
    WriteResult,
)
from zkside.model.stat import LAST_NUMBER, Stat
from zkside.zk.memory_acl import ADMIN, CREATE, DELETE, READ, WRITE, Identities, allows, resolved

MAX_TTL_MS = (1 << 40) - 1

SYSTEM_PATHS = ("/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota")


def _validate(path: str) -> None:
    try:
        paths.validate(path)
    except errors.InvalidPath as error:
        raise errors.InvalidArgument(str(error), field="path") from error


@dataclass(slots=True, eq=False)
class Node:
    """A node; `creates` counts the children ever created and gives sequential nodes their number, up to LAST_NUMBER."""

    data: bytes
    acl: tuple[Acl, ...]
    mode: CreateMode
    czxid: int
    mzxid: int
    pzxid: int
    ctime: int
    mtime: int
    owner: int = 0
    ttl_ms: int = 0
    version: int = 0
    aversion: int = 0
    creates: int = 0
    children: dict[str, None] = field(default_factory=dict)

    @property
    def stat(self) -> Stat:
        return Stat(
            czxid=self.czxid,
            mzxid=self.mzxid,
            ctime=self.ctime,
            mtime=self.mtime,
            version=self.version,
            # One for each create and for each delete of a child (DataNode.copyStat).
            cversion=_int(2 * self.creates - len(self.children)),
            aversion=self.aversion,
            ephemeral_owner=self.owner,
            data_length=len(self.data),
            num_children=len(self.children),
            pzxid=self.pzxid,
        )


class Change(NamedTuple):
    """What fires watches."""

    type: EventType
    path: str
    acl: tuple[Acl, ...]
    """Of that node: a session hears nothing of what it may not read (since 3.8.4 and 3.9.2)."""


@dataclass(slots=True)
class Transition:
    """A write under way: who, when, and what it has done so far."""

    zxid: int
    time_ms: int
    session_id: int
    identities: Identities
    changes: list[Change] = field(default_factory=list)
    undo: list[Callable[[], object]] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    """The next one of each parent, as long as the transaction is not applied."""


class Tree:
    """All nodes. Every operation is atomic: it raises before it changes anything."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.ephemerals: dict[int, dict[str, None]] = {}
        self.perishable: dict[str, None] = {}
        """Containers and TTL nodes."""
        for path in SYSTEM_PATHS:
            self.nodes[path] = Node(b"", OPEN_ACL, CreateMode.PERSISTENT, 0, 0, 0, 0, 0)
            if path != "/":
                self.nodes[paths.parent(path)].children[paths.name(path)] = None

    def read(self, operation: Operation[Any], identities: Identities) -> Any:
        """The result of a reading operation. Raises what the operation names."""
        match operation:
            case GetData(path):
                node = self._node(path, READ, identities)
                return record.pack(node.data, node.stat)
            case Exists(path):
                found = self.nodes.get(path)
                return None if found is None else found.stat
            case GetChildren(path):
                node = self._node(path, READ, identities)
                return list(node.children), node.stat
            case ReadMany(reads):
                return [self._read_one(read, identities) for read in reads]
            case GetAcl(path):
                node = self._node(path, READ | ADMIN, identities)
                return self._visible_acl(node, identities), node.stat
        raise TypeError(f"not a read: {operation!r}")

    def _read_one(self, read: GetData | GetChildren, identities: Identities) -> ReadResult:
        try:
            node = self._node(read.path, READ, identities)
        except Refused as error:
            return error
        return record.pack(node.data, node.stat) if isinstance(read, GetData) else list(node.children)

    def _visible_acl(self, node: Node, identities: Identities) -> tuple[Acl, ...]:
        if allows(node.acl, ADMIN, identities):
            return node.acl
        masked = (
            entry._replace(id=entry.id.partition(":")[0] + ":x") if entry.scheme == "digest" else entry
            for entry in node.acl
        )
        return tuple(masked)

    def write(self, operation: Operation[Any], transition: Transition) -> Any:
        """Apply a writing operation. Raises what the operation names, with nothing changed."""
        match operation:
            case Create():
                return self._create(operation, transition)
            case SetData():
                return self._set(operation, transition)
            case Delete():
                self._delete(operation, transition)
                return None
            case Check():
                self._check(operation, transition)
                return None
            case SetAcl():
                return self._set_acl(operation, transition)
            case Transaction():
                return self._transact(operation, transition)
        raise TypeError(f"not a write: {operation!r}")

    def _transact(self, transaction: Transaction, transition: Transition) -> TransactionResult:
        results: list[WriteResult] = []
        for operation in transaction.operations:
            try:
                result = self.write(operation, transition)
            except ZksideError as error:
                while transition.undo:
                    transition.undo.pop()()
                transition.changes.clear()
                undone = [errors.RolledBack() for _ in results]
                rest = len(transaction.operations) - len(results) - 1
                not_attempted = [errors.NotAttempted() for _ in range(rest)]
                return TransactionResult(False, (*undone, error, *not_attempted))
            results.append(result)
        return TransactionResult(True, tuple(results))

    def _create(self, create: Create, transition: Transition) -> Created:
        if create.mode.has_ttl and not 0 < create.ttl_ms <= MAX_TTL_MS:
            raise errors.InvalidArgument(f"a TTL must be 1 to {MAX_TTL_MS} ms", field="ttl_ms")
        acl = resolved(create.acl, transition.identities)
        above = paths.parent(create.path)
        parent = self._node(above, CREATE, transition.identities)
        number = transition.numbers.get(above, parent.creates)
        path = f"{create.path}{number:010}" if create.mode.is_sequential else create.path
        _validate(path)
        if path in self.nodes:
            raise errors.NodeExists(f"{path}: exists already", path=path)
        if parent.mode.is_ephemeral:
            raise errors.NoChildrenForEphemerals(f"{above} is ephemeral and can have no children", path=path)
        zxid, now_ms = transition.zxid, transition.time_ms
        owner = transition.session_id if create.mode.is_ephemeral else 0
        node = Node(create.data, acl, create.mode, zxid, zxid, zxid, now_ms, now_ms, owner=owner, ttl_ms=create.ttl_ms)
        before = parent.creates, parent.pzxid
        self._attach(path, node)
        transition.numbers.pop(path, None)
        transition.numbers[above] = _int(number + 1)
        # A counter that has turned over is not applied (DataTree.createNode), so that the last number comes again.
        if number < LAST_NUMBER and transition.numbers[above] > parent.creates:
            parent.creates, parent.pzxid = transition.numbers[above], zxid

        def undo() -> None:
            self._detach(path, node)
            parent.creates, parent.pzxid = before

        transition.undo.append(undo)
        transition.changes += (
            Change(EventType.NODE_CREATED, path, acl),
            Change(EventType.NODE_CHILDREN_CHANGED, above, parent.acl),
        )
        return Created(path, node.stat)

    def _delete(self, delete: Delete, transition: Transition) -> None:
        path = delete.path
        if path in SYSTEM_PATHS:
            raise errors.InvalidArgument(f"{path} cannot be deleted", field="path")
        self._node(paths.parent(path), DELETE, transition.identities)
        node = self._node(path)
        self._expect(path, node.version, delete.version)
        if node.children:
            raise errors.NotEmpty(f"{path} has children", path=path)
        self.remove(path, transition)

    def remove(self, path: str, transition: Transition) -> None:
        """Delete a node that is there and has no children."""
        node = self.nodes[path]
        above = paths.parent(path)
        parent = self.nodes[above]
        before = parent.pzxid
        self._detach(path, node)
        parent.pzxid = transition.zxid

        def undo() -> None:
            self._attach(path, node)
            parent.pzxid = before

        transition.undo.append(undo)
        transition.changes += (
            Change(EventType.NODE_DELETED, path, node.acl),
            Change(EventType.NODE_CHILDREN_CHANGED, above, parent.acl),
        )

    def _set(self, change: SetData, transition: Transition) -> Stat:
        node = self._node(change.path, WRITE, transition.identities)
        self._expect(change.path, node.version, change.version)
        before = node.data, node.version, node.mzxid, node.mtime

        def undo() -> None:
            node.data, node.version, node.mzxid, node.mtime = before

        transition.undo.append(undo)
        node.data = change.data
        node.version += 1
        node.mzxid = transition.zxid
        node.mtime = transition.time_ms
        transition.changes.append(Change(EventType.NODE_DATA_CHANGED, change.path, node.acl))
        return node.stat

    def _check(self, check: Check, transition: Transition) -> None:
        node = self._node(check.path, READ, transition.identities)
        self._expect(check.path, node.version, check.version)

    def _set_acl(self, change: SetAcl, transition: Transition) -> Stat:
        acl = resolved(change.acl, transition.identities)
        node = self._node(change.path, ADMIN, transition.identities)
        self._expect(change.path, node.aversion, change.version)
        node.acl = acl
        node.aversion += 1
        return node.stat

    def _node(self, path: str, permission: int = 0, identities: Identities = frozenset()) -> Node:
        node = self.nodes.get(path)
        if node is None:
            raise errors.NoNode.at(path)
        if permission and not allows(node.acl, permission, identities):
            raise errors.NoAuth.at(path)
        return node

    def _expect(self, path: str, actual: int, expected: int) -> None:
        if expected not in (ANY_VERSION, actual):
            raise errors.BadVersion(
                f"{path}: expected version {expected}, the node has another",
                path=path,
                expected=str(expected),
            )

    def _attach(self, path: str, node: Node) -> None:
        self.nodes[path] = node
        self.nodes[paths.parent(path)].children[paths.name(path)] = None
        if node.owner:
            self.ephemerals.setdefault(node.owner, {})[path] = None
        if node.ttl_ms or node.mode is CreateMode.CONTAINER:
            self.perishable[path] = None

    def _detach(self, path: str, node: Node) -> None:
        del self.nodes[path]
        del self.nodes[paths.parent(path)].children[paths.name(path)]
        self.perishable.pop(path, None)
        if node.owner:
            owned = self.ephemerals[node.owner]
            del owned[path]
            if not owned:
                del self.ephemerals[node.owner]

    def perished(self, now_ms: int) -> list[str]:
        """Containers that have lost their last child, and empty TTL nodes not written for their time.

        Source: ContainerManager.getCandidates.
        """
        gone = []
        for path in self.perishable:
            node = self.nodes[path]
            if node.children:
                continue
            if node.ttl_ms:
                if now_ms - node.mtime > node.ttl_ms:
                    gone.append(path)
            elif node.creates:
                gone.append(path)
        return gone


def _int(number: int) -> int:
    """As Java counts: it turns over."""
    return (number + 2**31) % 2**32 - 2**31
