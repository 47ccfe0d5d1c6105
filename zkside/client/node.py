"""Reads and writes of znodes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING

from zkside.client import operation
from zkside.client.answer import (
    AclAnswer,
    CreateAnswer,
    DeleteAnswer,
    ExistsAnswer,
    GetAnswer,
    GetManyAnswer,
    ListAnswer,
    SetAnswer,
)
from zkside.client.calls import Calls
from zkside.client.fault import of_failure
from zkside.client.link import Link
from zkside.client.pipeline import Pipeline
from zkside.client.transaction import Transaction
from zkside.client.value import (
    Acl,
    Consistency,
    CreateMode,
    Node,
    acl_messages,
    acl_of,
    header_of,
    node_of,
    stat_of,
)
from zkside.errors import ZksideError
from zkside.pb import node_pb2
from zkside.pb.node_pb2_grpc import NodeServiceStub

if TYPE_CHECKING:
    from zkside.pb.node_pb2_grpc import NodeServiceAsyncStub


class NodeCalls(Calls):
    """NodeService, for one link.

    Raises the classes of zkside.errors. A write whose answer was lost raises OutcomeUnknown.
    """

    def __init__(self, link: Link, consistency: Consistency) -> None:
        super().__init__(link, consistency)
        self._made: NodeServiceAsyncStub | None = None

    @property
    def _nodes(self) -> NodeServiceAsyncStub:
        channel = self._link.channel
        if self._made is None:
            self._made = NodeServiceStub(channel)
        return self._made

    async def get(
        self,
        path: str,
        *,
        consistency: Consistency | None = None,
        min_zxid: int = 0,
        max_stale_s: float | None = None,
        timeout_s: float | None = None,
        wait_for_ready: bool = False,
    ) -> GetAnswer:
        """The node's data and Stat. Raises NoNode, TooStale, NoAuth."""
        request = node_pb2.GetRequest(path=path, options=self._options(consistency, min_zxid, max_stale_s))
        answer = await self._link.call(self._nodes.Get, request, timeout_s=timeout_s, wait_for_ready=wait_for_ready)
        return GetAnswer(header_of(answer.header), node_of(answer.node))

    async def get_many(
        self,
        paths: Iterable[str],
        *,
        consistency: Consistency | None = None,
        min_zxid: int = 0,
        max_stale_s: float | None = None,
        timeout_s: float | None = None,
        wait_for_ready: bool = False,
    ) -> GetManyAnswer:
        """Several nodes as of one moment: no transaction is seen by half (R6). Raises TooStale, TooLarge."""
        request = node_pb2.GetManyRequest(paths=paths, options=self._options(consistency, min_zxid, max_stale_s))
        answer = await self._link.call(self._nodes.GetMany, request, timeout_s=timeout_s, wait_for_ready=wait_for_ready)
        results: dict[str, Node | ZksideError | None] = {}
        for result in answer.results:
            kind = result.WhichOneof("result")
            if kind == "node":
                results[result.path] = node_of(result.node)
            elif kind == "failure":
                results[result.path] = of_failure(result.failure)
            else:
                results[result.path] = None
        return GetManyAnswer(header_of(answer.header), results)

    async def exists(
        self,
        path: str,
        *,
        consistency: Consistency | None = None,
        min_zxid: int = 0,
        max_stale_s: float | None = None,
        timeout_s: float | None = None,
        wait_for_ready: bool = False,
    ) -> ExistsAnswer:
        """True, with the Stat, or False: an absent node is an answer. Raises TooStale."""
        request = node_pb2.ExistsRequest(path=path, options=self._options(consistency, min_zxid, max_stale_s))
        answer = await self._link.call(self._nodes.Exists, request, timeout_s=timeout_s, wait_for_ready=wait_for_ready)
        return ExistsAnswer(header_of(answer.header), stat_of(answer.stat) if answer.exists else None)

    async def children_page(
        self,
        path: str,
        *,
        page_token: str = "",
        page_size: int = 0,
        with_nodes: bool = False,
        consistency: Consistency | None = None,
        min_zxid: int = 0,
        max_stale_s: float | None = None,
        timeout_s: float | None = None,
        wait_for_ready: bool = False,
    ) -> ListAnswer:
        """One page of the children; `next_page_token` of it leads to the next. Raises NoNode, TooStale."""
        request = node_pb2.ListRequest(
            path=path,
            options=self._options(consistency, min_zxid, max_stale_s),
            with_nodes=with_nodes,
            page_size=page_size,
            page_token=page_token,
        )
        answer = await self._link.call(self._nodes.List, request, timeout_s=timeout_s, wait_for_ready=wait_for_ready)
        nodes = {node.path[node.path.rfind("/") + 1 :]: node_of(node) for node in answer.nodes}
        return ListAnswer(
            header_of(answer.header),
            stat_of(answer.stat),
            tuple(answer.names),
            nodes,
            answer.next_page_token,
            frozenset(answer.unreadable_names),
        )

    async def children_pages(
        self,
        path: str,
        *,
        page_size: int = 0,
        with_nodes: bool = False,
        consistency: Consistency | None = None,
        min_zxid: int = 0,
        max_stale_s: float | None = None,
        timeout_s: float | None = None,
        wait_for_ready: bool = False,
    ) -> AsyncIterator[ListAnswer]:
        """All pages, one after the other. A child that comes or goes between two of them may be missed or
        seen; none is seen twice. Raises NoNode, TooStale."""
        token = ""
        while True:
            page = await self.children_page(
                path,
                page_token=token,
                page_size=page_size,
                with_nodes=with_nodes,
                consistency=consistency,
                min_zxid=min_zxid,
                max_stale_s=max_stale_s,
                timeout_s=timeout_s,
                wait_for_ready=wait_for_ready,
            )
            yield page
            token = page.next_page_token
            if not token:
                return

    async def children(
        self,
        path: str,
        *,
        with_nodes: bool = False,
        consistency: Consistency | None = None,
        min_zxid: int = 0,
        max_stale_s: float | None = None,
        timeout_s: float | None = None,
        wait_for_ready: bool = False,
    ) -> ListAnswer:
        """All children, gathered from all pages; header and Stat are those of the first page.

        Raises NoNode, TooStale."""
        gathered: list[ListAnswer] = []
        async for page in self.children_pages(
            path,
            page_size=10_000,
            with_nodes=with_nodes,
            consistency=consistency,
            min_zxid=min_zxid,
            max_stale_s=max_stale_s,
            timeout_s=timeout_s,
            wait_for_ready=wait_for_ready,
        ):
            gathered.append(page)  # noqa: PERF401 (clearer than an asynchronous comprehension over eight options)
        first = gathered[0]
        if len(gathered) == 1:
            return first
        names = tuple(name for page in gathered for name in page.names)
        nodes = {name: node for page in gathered for name, node in page.nodes.items()}
        unreadable = frozenset[str]().union(*(page.unreadable for page in gathered))
        return ListAnswer(first.header, first.stat, names, nodes, unreadable=unreadable)

    async def create(
        self,
        path: str,
        data: bytes = b"",
        *,
        mode: CreateMode = CreateMode.PERSISTENT,
        ttl_s: float | None = None,
        acl: Sequence[Acl] | None = None,
        make_parents: bool = False,
        daemon_lifetime: bool = False,
        protected: bool = False,
        timeout_s: float | None = None,
        wait_for_ready: bool = False,
    ) -> CreateAnswer:
        """Create a node. The ephemeral modes need `daemon_lifetime`: a process's own is `hold_ephemeral`.

        Raises NodeExists, NoNode (no parent), NoChildrenForEphemerals, InvalidAcl, TooLarge, NotSupported,
        OutcomeUnknown (with `protected` the daemon finds the node again instead)."""
        request = operation.create_request(
            path,
            data,
            mode=mode,
            ttl_s=ttl_s,
            acl=acl,
            make_parents=make_parents,
            daemon_lifetime=daemon_lifetime,
            protected=protected,
        )
        answer = await self._link.call(
            self._nodes.Create, request, timeout_s=timeout_s, wait_for_ready=wait_for_ready, writes=True
        )
        return operation.create_answer(answer, header_of(answer.header))

    async def set(
        self,
        path: str,
        data: bytes,
        *,
        version: int | None = None,
        timeout_s: float | None = None,
        wait_for_ready: bool = False,
    ) -> SetAnswer:
        """Replace the node's data; `version` None means any. Raises NoNode, BadVersion, TooLarge,
        OutcomeUnknown."""
        request = operation.set_request(path, data, version=version)
        answer = await self._link.call(
            self._nodes.Set, request, timeout_s=timeout_s, wait_for_ready=wait_for_ready, writes=True
        )
        return SetAnswer(header_of(answer.header), stat_of(answer.stat))

    async def delete(
        self,
        path: str,
        *,
        version: int | None = None,
        recursive: bool = False,
        timeout_s: float | None = None,
        wait_for_ready: bool = False,
    ) -> DeleteAnswer:
        """Delete the node; with `recursive` all below it too, deepest first, not atomically.

        Raises NoNode, NotEmpty, BadVersion, OutcomeUnknown."""
        request = operation.delete_request(path, version=version, recursive=recursive)
        answer = await self._link.call(
            self._nodes.Delete, request, timeout_s=timeout_s, wait_for_ready=wait_for_ready, writes=True
        )
        return DeleteAnswer(header_of(answer.header), answer.deleted)

    def transaction(self, *, guard_hold_id: str = "") -> Transaction:
        """Collect operations and commit them as one: all or none (N1).

        `guard_hold_id`: commit only while that hold's znode exists (H3)."""
        return Transaction(self._link, self._nodes, guard_hold_id)

    def pipeline(self) -> Pipeline:
        """Send writes one behind the other without waiting, in order (N3); used with `async with`."""
        return Pipeline(self._link, self._nodes)

    async def sync(self, path: str = "/", *, timeout_s: float | None = None, wait_for_ready: bool = False) -> int:
        """Wait until the daemon's server has caught up with the leader; the zxid of that moment."""
        answer = await self._link.call(
            self._nodes.Sync,
            node_pb2.SyncRequest(path=path),
            timeout_s=timeout_s,
            wait_for_ready=wait_for_ready,
        )
        return answer.zxid

    async def get_acl(self, path: str, *, timeout_s: float | None = None, wait_for_ready: bool = False) -> AclAnswer:
        """The node's access control list. Raises NoNode."""
        answer = await self._link.call(
            self._nodes.GetAcl,
            node_pb2.GetAclRequest(path=path),
            timeout_s=timeout_s,
            wait_for_ready=wait_for_ready,
        )
        return AclAnswer(header_of(answer.header), tuple(acl_of(entry) for entry in answer.acl), stat_of(answer.stat))

    async def set_acl(
        self,
        path: str,
        acl: Sequence[Acl],
        *,
        version: int | None = None,
        timeout_s: float | None = None,
        wait_for_ready: bool = False,
    ) -> SetAnswer:
        """Replace the list; `version` is compared with the Stat's aversion.

        Raises NoNode, InvalidAcl, BadVersion, OutcomeUnknown."""
        answer = await self._link.call(
            self._nodes.SetAcl,
            node_pb2.SetAclRequest(path=path, acl=acl_messages(list(acl)), expected_version=version),
            timeout_s=timeout_s,
            wait_for_ready=wait_for_ready,
            writes=True,
        )
        return SetAnswer(header_of(answer.header), stat_of(answer.stat))
